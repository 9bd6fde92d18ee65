"""The web export in a real browser: Chromium, headless, driven as a person would drive it."""

import base64
import functools
import http.server
import io
import shutil
import struct
import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from leancnn.export import export
from tests.test_web import NAMES, any_png, network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (
            shutil.which("chromium")
            and shutil.which("chromedriver")
            and all(find_spec(name) for name in ("selenium", "ziglang", "wasmtime"))
        ),
        reason="needs chromium, chromium-driver, selenium, ziglang and wasmtime",
    ),
]
CLASSIFY = """
const done = arguments[arguments.length - 1];
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
import("/classify.mjs").then(async ({ load }) => {
  window.network ??= await load();
  const pixels = await window.network.pixels(new Blob([bytes]));
  return { pixels: btoa(String.fromCharCode(...pixels)), level: window.network.level };
}).then(done, (error) => done({ error: error.message }));
"""
GIVE = """
const file = new File([Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0))], arguments[2]);
const data = new DataTransfer();
data.items.add(file);
const event = arguments[0] === "drop"
  ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
  : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
document.body.dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    export(network(), to="web", out=folder)
    (single,) = export(network(), to="web", out=folder / "single", single=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", single, server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    film = tmp_path_factory.mktemp("film") / "film.y4m"
    frame = np.full(64 * 48 * 3 // 2, 128, np.uint8).tobytes()
    film.write_bytes(b"YUV4MPEG2 W64 H48 F10:1 C420\n" + (b"FRAME\n" + frame) * 10)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-video-capture={film}",
    ):
        options.add_argument(word)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    browser.set_script_timeout(60)
    yield browser
    browser.quit()


def until(look, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def opened(browser, url):
    browser.get(url)
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))


def text(browser, name):
    return browser.execute_script(f"return document.getElementById('{name}').textContent")


def encoded(data):
    return base64.b64encode(data).decode()


def jpeg(turn=1, size=(90, 70), **how):
    pixels = np.random.default_rng(turn).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG", quality=90, exif=exif, **how)
    return buffer.getvalue()


def test_photographs_give_the_pixels_that_predict_sees(browser, site):
    opened(browser, site[0])
    preprocessing = network().preprocessing
    pictures = [jpeg(turn) for turn in range(1, 9)]
    pictures += [jpeg(1, (801, 603), subsampling=way) for way in (0, 1, 2)]
    pictures += [jpeg(6, (801, 603), progressive=True), any_png(40, 30, 8, 6, 1, 0, 3)]
    for data in pictures:
        answer = browser.execute_async_script(CLASSIFY, encoded(data))
        expected = preprocessing.window(preprocessing.read(data).image[None])
        assert answer["pixels"] == encoded(expected.tobytes())
    assert answer["level"] == "relaxed"


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(browser, site, way):
    opened(browser, site[0])
    browser.execute_script(GIVE, way, encoded(jpeg()), "<img src=x onerror=alert(1)>.jpg")
    until(lambda: browser.execute_script("return document.querySelectorAll('#results li').length"))
    found = text(browser, "results")
    assert any(name in found for name in NAMES)
    assert "<img src=x onerror=alert(1)>.jpg" in found
    assert browser.execute_script("return document.querySelectorAll('#results b').length") == 0


def test_a_file_is_chosen_by_keyboard_alone(browser, site, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, site[0])
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "files"
    (tmp_path / "a.jpg").write_bytes(jpeg())
    browser.find_element(By.ID, "files").send_keys(str(tmp_path / "a.jpg"))
    until(lambda: "a.jpg" in text(browser, "said"))


def test_what_is_no_picture_gets_a_line_and_the_page_goes_on(browser, site):
    opened(browser, site[0])
    large = any_png(3, 3, 8, 2, 0, 0, 1)
    head = b"IHDR" + struct.pack(">II", 10_000, 10_000) + large[24:29]
    import zlib

    large = large[:12] + head + struct.pack(">I", zlib.crc32(head)) + large[33:]
    wrong = {
        "cut.jpg": jpeg()[:-400],
        "large.png": large,
        "text.png": b"no picture",
        "none.png": b"",
    }
    for name, data in wrong.items():
        browser.execute_script(GIVE, "drop", encoded(data), name)
        until(lambda name=name: name in text(browser, "errors"))
        reason = text(browser, "errors")
        assert {"cut.jpg": "cut short", "large.png": "more than"}.get(name, name) in reason
    browser.execute_script(GIVE, "drop", encoded(jpeg()), "right.jpg")
    until(lambda: "right.jpg" in text(browser, "said"))


def test_the_camera_is_classified_live_until_it_is_stopped(browser, site):
    from selenium.webdriver.common.by import By

    opened(browser, site[0])
    browser.find_element(By.ID, "camera").click()
    until(lambda: "images a second" in text(browser, "speed"))
    assert any(name in text(browser, "now") for name in NAMES)
    browser.find_element(By.ID, "stop").click()
    assert not browser.find_element(By.ID, "live").is_displayed()


def test_one_file_works_from_the_disk(browser, site):
    opened(browser, site[1].as_uri())
    browser.execute_script(GIVE, "drop", encoded(jpeg()), "a.jpg")
    until(lambda: "a.jpg" in text(browser, "said"))


def test_the_page_opens_again_without_its_server(browser, site):
    url, _, server = site
    opened(browser, url)
    kept = "const done = arguments[0]; caches.keys().then(async (names) => { for (const n of names)"
    kept += (
        " { const c = await caches.open(n); if ((await c.keys()).length >= 5) return done(true); }"
    )
    until(lambda: browser.execute_async_script(kept + " done(false); });"))
    server.shutdown()
    server.server_close()
    opened(browser, url)
    browser.execute_script(GIVE, "drop", encoded(jpeg()), "offline.jpg")
    until(lambda: "offline.jpg" in text(browser, "said"))
