"""What commands left on disk, read back: each damage is named, each odd value shown or refused."""

import re

import numpy as np
import pytest

from leancnn.errors import DamagedError, LeanCNNError, RunError
from leancnn.records import find, recognise
from leancnn.report import render, report
from leancnn.safe_files import write_checked, write_json
from tests.made_runs import (
    everything,
    made_bench,
    made_comparison,
    made_eeg,
    made_plan,
    made_run,
)
from tests.report_pages import read_value

pytestmark = pytest.mark.usefixtures("plain_charts")


def test_the_same_run_named_twice_is_one(tmp_path):
    run = made_run(tmp_path / "run")
    out = tmp_path / "r.html"
    written = report([run, run / "best", run / "run.json", run / ".." / "run"], out)
    assert written.records == (str(run),)


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


def test_what_was_called_otherwise_at_first_is_read(tmp_path):
    folder = made_eeg(tmp_path / "eeg")
    made_bench(folder / "bench.json")
    made_comparison(folder)
    for name, old, new in (
        ("session.json", "right", "correct"),
        ("evaluation.json", "against", "baselines"),
        ("comparison.json", "verdict", "conclusion"),
        ("bench.json", "verdicts", "summaries"),
    ):
        now = recognise(folder / name)
        value = {
            old if key == new else key: item for key, item in read_value(folder / name).items()
        }
        (folder / name).unlink()
        write_json(folder / name, {key: value[key] for key in value if key != "sha256"})
        kind, found = recognise(folder / name)
        assert kind == now[0]
        assert {**found} == {key: now[1][key] for key in now[1] if key != "sha256"}


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
    cases = [
        (path, at, odd) for path in sorted(files) for at in places(read_value(path)) for odd in ODD
    ]
    pages = 0
    for path, at, odd in chosen(cases):
        whole, value = path.read_bytes(), changed(read_value(path), at, odd)
        (write_checked if isinstance(value, dict) and b'"sha256"' in whole else write_json)(
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
