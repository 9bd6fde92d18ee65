"""The page: what its server serves and takes, and, where a browser is, that it flickers."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from leancnn.eeg.page import Page, account, checked, onset
from leancnn.errors import UsageError


@pytest.fixture
def page():
    heard = []
    with Page((7.5, 10.0), port=0, on_onset=heard.append) as served:
        served.heard = heard
        yield served


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_the_page_is_served_whole_warns_and_waits(page):
    status, body, headers = ask(page.url)
    text = body.decode()
    assert status == 200
    assert '"frequencies": [7.5, 10.0]' in text
    assert "photosensitive" in text
    assert 'id="start" disabled' in text
    assert "http://" not in text
    assert "https://" not in text
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_onsets_and_accounts_are_taken(page):
    assert ask(page.url + "onset", b'{"hz": 7.5, "at": 1.5}')[0] == 200
    facts = {"rate": 60, "frames": 600, "dropped": 1, "longest_ms": 33.4, "seconds": 10}
    assert ask(page.url + "report", json.dumps(facts).encode())[0] == 200
    assert page.heard == [7.5]
    assert page.report["dropped"] == 1


def test_the_decision_is_shown(page):
    page.show(letter="B", probabilities=[0.1, 0.9], reason="")
    assert json.loads(ask(page.url + "decision")[1])["letter"] == "B"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("onset", b"no json"),
        ("onset", b"[]"),
        ("onset", b'{"hz": 11, "at": 0}'),
        ("onset", b'{"hz": NaN, "at": 0}'),
        ("onset", b'{"hz": true, "at": 0}'),
        ("report", b'{"rate": 60}'),
        ("report", b"[" * 30000),
        ("else", b"{}"),
    ],
)
def test_what_the_page_would_not_post_is_refused(page, path, body):
    status, text, _ = ask(page.url + path, body)
    assert status == 400
    assert text.count(b"\n") == 1
    assert page.heard == []


def test_other_pages_and_other_names_are_refused(page):
    body = b'{"hz": 7.5, "at": 1.5}'
    assert ask(page.url + "onset", body, Origin="http://evil.example")[0] == 403
    assert ask(page.url, None, Host="evil.example")[0] == 403
    assert ask(page.url + "onset", b"x" * 100_000)[0] == 413
    assert ask(page.url + "nothing")[0] == 404
    assert page.heard == []


@pytest.mark.parametrize("wrong", [(), (1.0,), (100.0,), tuple(range(3, 20)), (float("nan"),)])
def test_frequencies_that_no_page_should_show_are_refused(wrong):
    with pytest.raises(UsageError):
        checked(wrong)


def test_a_taken_port_is_named(page):
    with pytest.raises(UsageError, match=f"port {page.port} cannot be had"):
        Page((10.0,), port=page.port)


def test_rest_is_an_onset_of_nothing():
    assert onset({"hz": 0, "at": 3}, (10.0,)) == {"hz": 0.0, "at": 3.0}
    with pytest.raises(UsageError, match="refused is a list"):
        account({**dict.fromkeys(KEYS, 1), "refused": "x"})


KEYS = ("rate", "frames", "dropped", "longest_ms", "seconds")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_the_warning_and_flickers_only_when_asked(page, tmp_path):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path}", "--dump-dom", page.url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Nothing flickers." in done.stdout
    assert page.report == {}


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    assert what()


WORDS = ["left out: O1", "lost samples: 12"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1440])
def test_all_of_the_page_fits_and_a_second_start_begins_anew(browser, page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.url)
    state, bars = browser.find_element("id", "state"), browser.find_element("id", "bars")
    page.show(letter="B", probabilities=[0.1, 0.9], reason="", quality=WORDS)
    for starts in (1, 2):
        browser.find_element("id", "agree").click()
        browser.find_element("id", "start").click()
        until(lambda: "dropped" in state.text and "Stopped" not in state.text)
        until(lambda: bars.text.endswith("\n".join(WORDS)))
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        stop, cued = browser.find_element("id", "stop"), browser.find_element("id", "cued")
        top = browser.execute_script("return arguments[0].getBoundingClientRect().bottom", stop)
        assert top < 200  # in sight, however many targets there are
        if not cued.is_selected():
            cued.click()
        until(lambda n=starts: len(page.onsets) == n, seconds=30)
        stop.click()
        assert not bars.is_displayed()
    assert page.heard == [7.5, 7.5]


@pytest.mark.slow
def test_agreed_to_it_flickers_until_escape_and_onsets_go_out_by_lsl(browser, tmp_path):
    pylsl = pytest.importorskip("pylsl", reason="needs the extra eeg")
    words = ["page", "--freqs", "10,12,25", "--port", "0", "--lsl-out", "--seconds", "90", "--json"]
    command = [sys.executable, "-m", "leancnn", "eeg", *words]
    served = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        line = served.stderr.readline()
        while "http://" not in line:
            line = served.stderr.readline()
        browser.get("http://" + line.split("http://")[1].split()[0])
        (stream,) = pylsl.resolve_byprop("name", "leancnn-decisions", 1, 20)
        inlet = pylsl.StreamInlet(stream)
        inlet.open_stream(20)
        start = browser.find_element("id", "start")
        assert not start.is_enabled()
        browser.find_element("id", "agree").click()
        start.click()
        state = browser.find_element("id", "state")
        until(lambda: "dropped" in state.text)
        assert "not shown, the screen is too slow: 25 Hz" in state.text
        browser.find_element("id", "cued").click()
        word, _ = inlet.pull_sample(timeout=60)
        assert word == ["10"]
        browser.find_element("tag name", "body").send_keys("\ue00c")  # Escape
        assert "Nothing flickers." in state.text
        assert not browser.find_element("id", "stage").is_displayed()
    finally:
        served.send_signal(signal.SIGINT)
        told = json.loads(served.communicate(timeout=60)[0])
    assert told["onsets"] >= 1
    assert told["frames"]["refused"] == [25]
    assert told["frames"]["frames"] > 0
