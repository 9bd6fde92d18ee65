"""`leancnn report`: one page that holds everything, runs nothing and says what is missing."""

import base64
import html.parser
import io
import json
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from leancnn import cli
from leancnn.errors import DamagedError, LeanCNNError, RunError, WriteError
from leancnn.records import find
from leancnn.report import MARK, render, report
from leancnn.safe_files import write_json, write_sealed
from leancnn.sections import sections
from leancnn.sections._base import NUMBER, bytes_text
from leancnn.sections._pictures import mask_of_shares
from leancnn.svg import Series, _word, interval_chart, line_chart, point_chart
from tests.made_runs import (
    everything,
    made_bench,
    made_check,
    made_comparison,
    made_eeg,
    made_network,
    made_plan,
    made_run,
    made_search,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{background:url(https://example.com/x)}",
    "--><!-- <svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "$a_1$ \\frac &amp; &lt;",
    "right\u202eto left\x1b[31m\x00\ufffe\udc80",
    "javascript:alert(1)",
)
VOID = {"meta", "img", "br", "link", "input", "hr"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "a", "header", "p", "nav", "ol", "li"),
    *("h1", "h2", "h3", "h4", "h5", "main", "section", "div", "table", "caption", "thead"),
    *("tbody", "tr", "th", "td", "span", "i", "b", "u", "figure", "figcaption", "img", "details"),
    *("summary", "code", "footer", "svg", "defs", "g", "path", "use", "text", "clippath", "rect"),
}


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; a tag that is not closed by its own is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.styles if self.open[-1:] == ["style"] else self.words).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(autouse=True)
def plain_charts(request, monkeypatch):
    """Charts without matplotlib's second for each page, where a test is not about them."""
    if "charts" in request.keywords:
        return

    def drawn(label, *words, **how):
        root = ET.Element("svg", {"role": "img", "aria-label": _word(label, 200)})
        return Markup(ET.tostring(root, encoding="unicode"))

    for place in ("training.line_chart", "accuracy.interval_chart", "speed.interval_chart"):
        monkeypatch.setattr(f"leancnn.sections.{place}", drawn)
    monkeypatch.setattr("leancnn.sections.comparison.point_chart", drawn)
    monkeypatch.setattr("leancnn.sections.search.point_chart", drawn)


def page_of(*paths, **how):
    return render([record for path in paths for record in find(path)], **how)[0]


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_are_words_in_every_place(tmp_path, word):
    check_words(tmp_path, word)


@pytest.mark.slow
@pytest.mark.charts
def test_hostile_words_are_words_in_every_chart(tmp_path):
    check_words(tmp_path, "".join(HOSTILE))


def check_words(tmp_path, word):
    name = re.sub(r"[/\x00]", "-", word)[:60]
    folder = tmp_path / name
    classes = (word, f"{word}2", "dog")
    paths = everything(folder, classes=classes, data=word, word=word, name=name)
    page = Page(page_of(*paths))
    assert set(page.tags) <= ALLOWED
    assert not [one for one in page.attributes if one[1].startswith("on")]
    plain = Page(page_of(*everything(tmp_path / "plain", classes=("a", "b", "dog"))))
    assert page.styles == plain.styles
    assert {(tag, name) for tag, name, _ in page.attributes} == {
        (tag, name) for tag, name, _ in plain.attributes
    }
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", "".join(page.words))


def test_nothing_on_the_page_leads_out_of_it(tmp_path):
    page = Page(page_of(*everything(tmp_path, word="https://example.com/x")))
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert not page.values("srcset")
    style = "".join(page.styles) + "".join(page.values("style"))
    assert "url(" not in style
    assert "@import" not in style
    assert any("default-src 'none'" in value for value in page.values("content"))


@pytest.mark.charts
def test_what_a_reader_without_eyes_or_mouse_needs_is_there(tmp_path):
    page = Page(page_of(*(made_run(tmp_path / name) for name in "ab")))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in page.values("href")]
    assert set(targets) <= set(ids)
    assert all(page.values("alt"))
    assert page.tags.count("caption") == page.tags.count("table")
    assert page.tags.count("svg") == len([v for v in page.values("role") if v == "img"])
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-5]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert ("html", "lang", "en") in page.attributes


def test_every_section_has_something_to_say_of_everything(tmp_path):
    _, titles, missing = render([r for p in everything(tmp_path) for r in find(p)])
    assert titles == [one.title for one in sorted(sections.values(), key=lambda s: s.place)]
    assert not [one for one in missing if "doctor" in one.text]


@pytest.mark.charts
def test_the_figures_of_a_run_stand_on_the_page(tmp_path):
    run = made_run(tmp_path / "run")
    made_plan(run / "plan.json")
    made_bench(run / "bench.json")
    text = Page(page_of(run)).text
    for word in (
        "80.00 %",
        "70.00 % to 88.00 %",
        "68,194",
        "is cat, was called dog",
        "2 of 10",
        "Opened 2 times",
        "leancnn's C",
        "299.0 to 302.0",
        "one-cycle",
        "50.00 %",
        "3.23 %",  # (0.01 + 0.02) / (0.5 + 0.01 + 0.4 + 0.02)
        "best validation accuracy 80.00 %, epoch 4",
        "x86_64" if "x86_64" in json.dumps(find(run)[0].told["machine"]) else "Linux",
    ):
        assert word in text, word


def test_what_is_not_on_disk_is_one_sentence_and_its_command(tmp_path):
    run = made_run(tmp_path / "a run")
    for path in run.glob("eval*"):
        path.unlink()
    _, _, missing = render(find(run))
    told = {one.text: one.command for one in missing}
    assert told["The test part was not opened."] == f"leancnn evaluate '{run}'"
    check = told["The data doctor's remarks are not on disk."]
    assert check == f"leancnn check photos --json > '{run}/check.json'"
    assert f"leancnn bench '{run}' --json > '{run}/bench.json'" in told.values()
    for line in told.values():
        made_check(run / "check.json")
        assert line.startswith("leancnn ")


def test_every_command_that_the_page_names_is_one_that_works(tmp_path):
    run = made_run(tmp_path / "a run")
    stopped = told(run / "run.json") | {"state": "stopped"}
    write_sealed(run / "run.json", stopped)
    for path in run.glob("eval*"):
        path.unlink()
    int8 = made_network(tmp_path / "int8", more={"quantized": {}})
    eeg = made_eeg(tmp_path / "eeg")
    for path in [*eeg.glob("evaluation*"), eeg / "session.json", eeg / "check.json"]:
        path.unlink()
    search = made_search(tmp_path / "search", ended=False)
    _, _, missing = render([r for p in (run, int8, eeg, search) for r in find(p)])
    verbs = set()
    for one in missing:
        words = shlex.split(one.command.split(" > ")[0])
        assert words.pop(0) == "leancnn"
        words = [{"HOURS": "2"}.get(word, word) for word in words]
        args, unknown = cli.build_parser().parse_known_args(words)
        assert not unknown
        verbs.add(args.command)
    assert verbs == {"train", "evaluate", "check", "bench", "quantize", "eeg", "search"}


def test_an_evaluation_of_an_older_version_still_gives_accuracy_and_interval(tmp_path):
    run = made_run(tmp_path / "run")
    for path in run.glob("evaluation-*"):
        path.unlink()
    text = Page(page_of(run)).text
    assert "80.00 % of 30 test images right, 95 % interval 62.69 % to 90.49 %" in text
    assert "one more opening of the test part" in text


def test_pictures_of_the_data_can_be_left_out(tmp_path):
    run = made_run(tmp_path / "run")
    with_them, without = Page(page_of(run)), Page(page_of(run, pictures=False))
    assert with_them.tags.count("img") == 3 + 3
    assert "img" not in without.tags
    assert "It holds small pictures of the data" in with_them.text
    assert "It holds small pictures of the data" not in without.text


def test_many_classes_are_a_picture_and_a_page_of_bounded_size(tmp_path):
    names = [f"class {number}" for number in range(300)]
    run = made_run(tmp_path / "run", classes=names)
    text = page_of(run)
    assert len(text) < 1_500_000
    assert "Confusion matrix of 300 classes" in text
    assert "and 100 more rows" in text


def test_several_runs_stand_beside_each_other(tmp_path):
    runs = [made_run(tmp_path / name, seed=place) for place, name in enumerate("abc")]
    page = Page(page_of(*runs))
    assert "Validation accuracy of all runs" in page.text
    assert "Accuracies whose intervals overlap do not tell two networks apart" in page.text
    assert page.text.count("Test accuracies") == 1


def test_the_same_run_named_twice_is_one(tmp_path):
    run = made_run(tmp_path / "run")
    out = tmp_path / "r.html"
    written = report([run, run / "best", run / "run.json", run / ".." / "run"], out)
    assert written.records == (str(run),)


def test_the_same_records_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("leancnn.report"), "now", lambda: "now")
    paths = everything(tmp_path)
    assert page_of(*paths) == page_of(*paths)


# Where it is written


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    run, out = made_run(tmp_path / "run"), tmp_path / "r.html"
    report(run, out)
    first = out.read_bytes()
    assert first.startswith(MARK)
    report([run], out, title="again")
    assert b"again" in out.read_bytes()
    out.write_text("mine")
    with pytest.raises(WriteError, match=r"no report of leancnn; choose another, or --force"):
        report(run, out)
    assert out.read_text() == "mine"
    report(run, out, force=True)
    assert out.read_bytes().startswith(MARK)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: at / "gone", "gone: no such folder or file"),
        (lambda at: at / "empty", "holds no run, saved network, comparison, search or EEG run"),
        (lambda at: at / "some", "is no run but holds some; name those you want: .*some/run"),
        (lambda at: at / "text.json", "text.json: not readable as JSON"),
        (lambda at: at / "empty.json", "empty.json: not readable as JSON"),
        (lambda at: at / "list.json", "list.json is no run, and no JSON of"),
        (lambda at: at / "other.json", "other.json is no run, and no JSON of"),
        (lambda at: at / "cut", "run.json: not readable as JSON"),
        (lambda at: at / "edited", "run.json is not what was written"),
        (lambda at: at / "bench", "bench.json is not what leancnn writes: .*median_us"),
        (lambda at: at / "swapped", "bench.json holds no bench but a check"),
    ],
    ids=range(11),
)
def test_what_is_nothing_to_report_is_one_line(tmp_path, make, said, capsys):
    (tmp_path / "empty").mkdir()
    made_run(tmp_path / "some" / "run", epochs=1)
    (tmp_path / "text.json").write_text("text")
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text('{"a": 1}')
    for name in ("cut", "edited", "bench", "swapped"):
        made_run(tmp_path / name, epochs=1)
    told = tmp_path / "cut" / "run.json"
    told.write_bytes(told.read_bytes()[:-40])
    told = tmp_path / "edited" / "run.json"
    told.write_text(told.read_text().replace("finished", "finishes"))
    made_bench(tmp_path / "bench" / "bench.json")
    told = tmp_path / "bench" / "bench.json"
    told.write_text(told.read_text().replace('"median_us": 80.0', '"median_us": "80"'))
    made_check(tmp_path / "swapped" / "bench.json")
    out = tmp_path / "r.html"
    assert cli.main(["report", str(make(tmp_path)), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)
    assert not out.exists()


def test_a_bad_place_is_refused_before_anything_is_read(tmp_path, capsys):
    for place, said in (("none/r.html", "there is no folder"), (".", "is a folder; name the page")):
        assert cli.main(["report", "nothing", "--out", str(tmp_path / place)]) == 1
        assert said in capsys.readouterr().err


def test_every_damaged_file_of_a_run_is_named(tmp_path):
    run = made_run(tmp_path / "run")
    made_plan(run / "plan.json")
    paths = [path for path in run.rglob("*") if path.is_file() and path.name[0] != "."]
    for path in paths:
        whole = path.read_bytes()
        if path.name in ("recipe.json", "metrics.csv", "weights.safetensors"):
            continue  # what is read stands in run.json, metrics.jsonl and the manifest
        place = len(whole) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((DamagedError, RunError), match=re.escape(path.name)):
            render(find(run))
        path.write_bytes(whole)


ODD = ("a word", None, -1, 10**400, 1e300, -0.5, [], {}, [[1]], {"a": {"b": 1}}, True, "x" * 9999)


def places(value, at=()):
    """Every place in a JSON value, from the top."""
    yield at
    inside = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else inside:
        yield from places(one, (*at, key))


def changed(value, at, odd):
    """The value with something else in one place."""
    if not at:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(copy[at[0]], at[1:], odd)
    return copy


def check_odd(folder, chosen):
    """Replace single values in files whose checksums fit: the page is made, or one line is said."""
    paths = everything(folder)
    files = [path for path in folder.rglob("*.json") if path.name != "recipe.json"]
    cases = [(path, at, odd) for path in sorted(files) for at in places(told(path)) for odd in ODD]
    pages = 0
    for path, at, odd in chosen(cases):
        whole, value = path.read_bytes(), changed(told(path), at, odd)
        (write_sealed if isinstance(value, dict) and b'"sha256"' in whole else write_json)(
            path, value
        )
        said = ""
        try:
            text = render([record for one in paths for record in find(one)])[0]
            pages += 1
        except LeanCNNError as error:
            said, text = str(error), ""
        except Exception as error:
            raise AssertionError(f"{path}, {at}: {str(odd)[:20]}") from error
        assert len(text) < 1_000_000
        assert "\n" not in said
        path.write_bytes(whole)
    return pages, len(cases)


def told(path):
    value = json.loads(path.read_bytes())
    if isinstance(value, dict):
        value.pop("sha256", None)
    return value


def test_an_odd_value_is_shown_or_refused_in_one_line(tmp_path):
    random = np.random.default_rng(0)
    pages, cases = check_odd(
        tmp_path, lambda cases: random.permutation(np.array(cases, object))[:60]
    )
    assert cases > 5000
    assert pages > 5


@pytest.mark.slow
@pytest.mark.charts
def test_many_odd_values_are_shown_or_refused_in_one_line(tmp_path):
    random = np.random.default_rng(1)
    check_odd(tmp_path, lambda cases: random.permutation(np.array(cases, object))[:600])


def test_the_command_says_what_was_written_and_what_is_missing(tmp_path, capsys):
    run = made_run(tmp_path / "run")
    out = tmp_path / "r.html"
    assert cli.main(["report", str(run), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == out.stat().st_size
    assert told["records"] == [str(run)]
    assert "Accuracy" in told["sections"]
    assert all(one["command"].startswith("leancnn") for one in told["missing"])


def test_a_report_loads_no_torch(tmp_path):
    paths = [str(made_run(tmp_path / "run", epochs=1))]
    code = (
        "import sys\nfrom leancnn import cli\n"
        f"assert cli.main(['report', *{paths!r}, '--out', {str(tmp_path / 'r.html')!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Parts


def test_charts_are_well_formed_and_in_the_pages_colours():
    series = [Series(word, [1, 2], [3, 4], [(0.5, 0.2), (0.1, 0.1)]) for word in HOSTILE]
    charts = [
        line_chart("label", series, "x", "y"),
        point_chart("label", series, "x", "y", log_x=True),
        interval_chart("label", HOSTILE, series, "x", log=True),
    ]
    for chart in charts:
        root = ET.fromstring(chart)
        assert root.tag == "svg"
        words = " ".join(root.itertext())
        assert "<script>" in words
        assert "var(--c0)" in chart
        assert not re.search("#0[123]00", chart)
        assert "DejaVu" not in chart


@pytest.mark.parametrize(
    ("count", "told"), [(12, "12 bytes"), (303_104, "303 kB"), (2.5e6, "2.5 MB")]
)
def test_bytes_are_told_as_people_do(count, told):
    assert bytes_text(count) == told
    assert NUMBER.fullmatch(told)


def test_a_comparison_shows_its_verdict_and_a_network_its_own_command(tmp_path):
    text = page_of(made_comparison(tmp_path / "compared", word="l1 is better"))
    assert "l1 is better" in text
    _, _, missing = render(find(made_network(tmp_path / "net", data="photos")))
    assert f"leancnn evaluate {tmp_path / 'net'}" in [one.command for one in missing]


def test_a_search_says_what_was_compared_and_by_how_much_validation_promised_too_much(tmp_path):
    text = Page(page_of(made_search(tmp_path / "search"))).text
    for word in ("1 trials were compared, 1 failed", "is +5.00 percentage points", "0, the winner"):
        assert word in text, word
    begun = page_of(made_search(tmp_path / "begun", ended=False))
    assert "The search has not ended; the same command goes on." in begun


def test_what_the_doctor_said_of_signals_stands_beside_their_decoder(tmp_path):
    eeg = made_eeg(tmp_path / "eeg")
    check = {"source": "trials.npz", "fit": False, "problems": ["dead channel"], "warnings": []}
    write_json(eeg / "check.json", check)
    text = Page(page_of(eeg)).text
    assert "trials.npz is not fit for use" in text
    assert "problem: dead channel" in text


def test_shares_become_pixels_that_are_seen():
    counts = np.eye(30, dtype=int) * 999
    counts[0, 1] = 1
    data = base64.b64decode(mask_of_shares(counts.tolist()).split(",")[1])
    alpha = np.asarray(Image.open(io.BytesIO(data)))[:, :, 1]
    assert alpha[1, 1] == 255
    assert alpha[0, 1] >= 40
    assert alpha[5, 6] == 0
