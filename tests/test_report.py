"""`leancnn report`: one page that holds everything, runs nothing and says what is missing."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from itertools import pairwise

import pytest

from leancnn import cli
from leancnn.errors import WriteError
from leancnn.records import find
from leancnn.report import MARK, render, report
from leancnn.safe_files import write_checked
from tests.few import few
from tests.made_runs import (
    everything,
    made_bench,
    made_check,
    made_eeg,
    made_network,
    made_run,
    made_search,
)
from tests.report_pages import ALLOWED, HOSTILE, Page, page_of, read_value

pytestmark = pytest.mark.usefixtures("plain_charts")


@pytest.mark.parametrize("word", few(HOSTILE), ids=range(len(HOSTILE)))
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


def test_every_command_that_the_page_names_is_one_that_works(tmp_path):
    run = made_run(tmp_path / "a run")
    stopped = read_value(run / "run.json") | {"state": "stopped"}
    write_checked(run / "run.json", stopped)
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


def test_pictures_of_the_data_can_be_left_out(tmp_path):
    run = made_run(tmp_path / "run")
    with_them, without = Page(page_of(run)), Page(page_of(run, pictures=False))
    assert with_them.tags.count("img") == 3 + 3
    assert "img" not in without.tags
    assert "It holds small pictures of the data" in with_them.text
    assert "It holds small pictures of the data" not in without.text


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
    few(
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
        rows=True,
    ),
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


def test_the_command_says_what_was_written_and_what_is_missing(tmp_path, capsys):
    run = made_run(tmp_path / "run")
    out = tmp_path / "r.html"
    assert cli.main(["report", str(run), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == out.stat().st_size
    assert told["records"] == [str(run)]
    assert "Accuracy" in told["sections"]
    assert all(one["command"].startswith("leancnn") for one in told["missing"])


@pytest.mark.long
def test_a_report_loads_no_torch(tmp_path):
    paths = [str(made_run(tmp_path / "run", epochs=1))]
    code = (
        "import sys\nfrom leancnn import cli\n"
        f"assert cli.main(['report', *{paths!r}, '--out', {str(tmp_path / 'r.html')!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Parts
