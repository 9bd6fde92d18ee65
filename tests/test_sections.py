"""The sections of a report: each says what it has, and what is missing with the command for it."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from leancnn.records import find
from leancnn.report import render
from leancnn.safe_files import write_json
from leancnn.sections import sections
from leancnn.sections._base import NUMBER, bytes_text
from leancnn.sections._pictures import mask_of_shares
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
from tests.report_pages import Page, page_of

pytestmark = pytest.mark.usefixtures("plain_charts")


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
        "Used 2 times",
        "leancnn's C",
        "299.0 to 302.0",
        "one-cycle",
        "50.00 %",
        "3.23 %",  # (0.01 + 0.02) / (0.5 + 0.01 + 0.4 + 0.02)
        "best validation accuracy 80.00 %, epoch 4",
        "x86_64" if "x86_64" in json.dumps(find(run)[0].value["machine"]) else "Linux",
    ):
        assert word in text, word


def test_what_is_not_on_disk_is_one_sentence_and_its_command(tmp_path):
    run = made_run(tmp_path / "a run")
    for path in run.glob("eval*"):
        path.unlink()
    _, _, missing = render(find(run))
    told = {one.text: one.command for one in missing}
    assert told["The test part was not used."] == f"leancnn evaluate '{run}'"
    check = told["What the data doctor found is not on disk."]
    assert check == f"leancnn check photos --json > '{run}/check.json'"
    assert f"leancnn bench '{run}' --json > '{run}/bench.json'" in told.values()
    for line in told.values():
        made_check(run / "check.json")
        assert line.startswith("leancnn ")


def test_an_evaluation_of_an_older_version_still_gives_accuracy_and_interval(tmp_path):
    run = made_run(tmp_path / "run")
    for path in run.glob("evaluation-*"):
        path.unlink()
    text = Page(page_of(run)).text
    assert "80.00 % of 30 test images correct, 95 % interval 62.69 % to 90.49 %" in text
    assert "one more use of the test part" in text


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


@pytest.mark.parametrize(
    ("count", "told"), [(12, "12 bytes"), (303_104, "303 kB"), (2.5e6, "2.5 MB")]
)
def test_bytes_are_told_as_people_do(count, told):
    assert bytes_text(count) == told
    assert NUMBER.fullmatch(told)


def test_a_comparison_shows_its_conclusion_and_a_network_its_own_command(tmp_path):
    text = page_of(made_comparison(tmp_path / "compared", word="l1 is better"))
    assert "l1 is better" in text
    _, _, missing = render(find(made_network(tmp_path / "net", data="photos")))
    assert f"leancnn evaluate {tmp_path / 'net'}" in [one.command for one in missing]


def test_a_search_says_what_was_compared_and_by_how_much_validation_promised_too_much(tmp_path):
    text = Page(page_of(made_search(tmp_path / "search"))).text
    assert re.search(r"pointwise\s+0\.125", text)  # what a cycle costs, kind by kind
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
