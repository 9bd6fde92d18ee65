"""The report in a real browser: Chromium, from the disk, narrow and wide, dark, printed."""

import base64
import re
import shutil
from importlib.util import find_spec

import pytest

from leancnn.report import report
from tests.made_runs import everything, made_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.charts,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver") and find_spec("selenium")),
        reason="needs chromium, chromium-driver and selenium",
    ),
]
WORD = "<img src=x onerror=document.title='taken'>"
CONTRAST = """
const shade = (text) => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$/.test(colour) && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("h1,h2,h3,h4,p,th,td,caption,summary,a,code,figcaption,text")]
  .filter((node) => node.checkVisibility() && !node.closest(".matrix tbody"))
  .map((node) => {
    const style = getComputedStyle(node);
    const ink = node.tagName === "text" ? style.fill : style.color;
    const [a, b] = [shade(ink), shade(ground(node))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.tagName, node.textContent.slice(0, 30)];
  })
  .sort((x, y) => x[0] - y[0])[0];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    paths = everything(
        folder / "a", classes=(WORD, "a rather long name of a class", "c"), word=WORD
    )
    paths.append(made_run(folder / "many", classes=[f"class {n}" for n in range(60)]))
    report(paths, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield browser
    browser.quit()


def opened(browser, page, width, scheme="light"):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [320, 360, 768, 1440])
def test_nothing_is_wider_than_the_window(browser, page, width):
    opened(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = "return [...document.querySelectorAll('main svg')].map((s) => [s.clientWidth,"
    script += " s.querySelector('text').getBoundingClientRect().height])"
    for wide, high in browser.execute_script(script):
        assert 0 < wide <= width
        assert high >= 8  # pixels of the smallest words of a chart


def test_it_asks_for_no_file_and_complains_of_nothing(browser, page):
    browser.get_log("performance")
    opened(browser, page, 1440)
    asked = re.findall(r'"url":"(.*?)"', str(browser.get_log("performance")).replace("\\", ""))
    asked = {url for url in asked if not url.startswith("data:") and url != "about:blank"}
    assert asked <= {page.as_uri()}
    assert browser.get_log("browser") == []
    assert browser.title != "taken"
    images = "return [...document.images].every((i) => i.complete && i.naturalWidth > 0)"
    assert browser.execute_script(images)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, page, scheme):
    opened(browser, page, 1440, scheme)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ("246" in ground) == (scheme == "light")
    least = browser.execute_script(CONTRAST)
    assert least[0] >= 4.5, least


def test_keys_reach_the_sections_the_tables_and_what_is_folded(browser, page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, page, 1440)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert first.text == "Skip to the figures"
    first.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#main")
    fold = browser.find_element(By.CSS_SELECTOR, "summary")
    browser.execute_script("arguments[0].focus()", fold)
    fold.send_keys(Keys.ENTER)
    assert browser.execute_script("return arguments[0].parentElement.open", fold)
    tables = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].every((t) => t.tabIndex === 0 && "
        "t.getAttribute('aria-label'))"
    )
    assert tables


def test_it_prints_with_everything_unfolded_and_on_white(browser, page):
    opened(browser, page, 1440, "dark")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    data = base64.b64decode(printed["data"])
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 3
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    hidden = browser.execute_script(
        "return [...document.querySelectorAll('details > table, details > .scroll')]"
        ".filter((node) => !node.checkVisibility({ contentVisibilityAuto: true })).length"
    )
    assert hidden == 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
