"""What stands behind a test accuracy: copies, runs that are not finished, mistakes, coverage."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leancnn import check, cli, evaluate, runs
from leancnn.error_analysis import reject_option, worst_mistakes
from leancnn.errors import DataError, MismatchError
from leancnn.train import train
from tests.tiny import RECIPE
from tests.tiny_runs import stopped_at

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_sound_test_of_a_finished_run_has_no_warning(quiet: Path, tmp_path: Path) -> None:
    shutil.copytree(quiet, tmp_path / "run")
    found = evaluate(tmp_path / "run")
    assert (found.copies, found.unfinished) == ((), "")
    assert "warning" not in found.text()


def test_test_images_that_were_trained_on_are_named(
    pictures: Path, quiet: Path, tmp_path: Path
) -> None:
    """Also when they lie elsewhere, under other names and in another format."""
    shutil.copytree(quiet, tmp_path / "run")
    trained = [str(path) for path in sorted(pictures.rglob("*.png"))]
    for label in range(3):
        place = tmp_path / "other" / "test" / f"class {label}"
        place.mkdir(parents=True)
        for number, name in enumerate(n for n in trained if f"class {label}" in n):
            Image.open(name).save(place / f"renamed {number}.bmp")
    shutil.copytree(tmp_path / "other" / "test", tmp_path / "other" / "train")
    found = evaluate(tmp_path / "run", tmp_path / "other")
    whole = evaluate(tmp_path / "run")
    assert len(found.copies) == found.images - whole.images, "all but the test part of the run"
    assert "test images are copies of training images (test/class 0/renamed" in found.text()


def test_a_run_that_is_not_finished_says_so(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with stopped_at(6):
        train(pictures, recipe=RECIPE, out=folder, progress=False)
    found = evaluate(folder)
    assert "the run is not finished (stopped): 1 of 4 epochs" in found.text()


def test_the_surest_mistakes_are_drawn_and_listed(
    quiet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(quiet, tmp_path / "run")
    assert cli.main(["evaluate", str(tmp_path / "run"), "--reject", "0.6"]) == 0
    told = capsys.readouterr().out
    found = evaluate(tmp_path / "run", reject=0.6)
    assert found.rejecting is not None
    assert f"answering from 0.6 on: {found.rejecting.answered:,} of {found.images:,}" in told
    sure = [one.probability for one in found.mistakes]
    assert sure == sorted(sure, reverse=True)
    assert len(sure) == found.images - found.correct
    assert all(one.true != one.answer for one in found.mistakes)
    drawn = tmp_path / "run" / "mistakes-best.png"
    assert drawn.exists() == bool(sure)
    assert found.sheet == (str(drawn) if sure else None)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 1)), min_size=1))
def test_refusing_more_answers_less_and_counts_what_is_left(rows: list[tuple]) -> None:
    answers = np.array([[a / (a + b), b / (a + b)] for a, b, _ in rows])
    truth = np.array([label for *_, label in rows])
    found = [reject_option(answers, truth, threshold) for threshold in (0.0, 0.5, 0.8, 1.0)]
    assert found[0].answered == found[1].answered == len(rows)
    assert found[0].correct == int((answers.argmax(1) == truth).sum())
    assert [one.answered for one in found] == sorted((o.answered for o in found), reverse=True)
    assert all((one.accuracy is None) == (one.answered == 0) for one in found)
    mistakes, places = worst_mistakes(
        answers, truth, ("a", "b"), [str(n) for n in range(len(rows))]
    )
    assert len(mistakes) == len(rows) - found[0].correct
    assert [one.file for one in mistakes] == [str(place) for place in places]


def test_a_threshold_is_a_probability(quiet: Path) -> None:
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(MismatchError, match=r"in 0\.\.1"):
            reject_option(np.ones((1, 2)), np.zeros(1, np.int64), wrong)


def test_images_are_known_by_their_content_and_all_else_is_said(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    for number, path in enumerate(sorted((data / "class 0").glob("*.png"))):
        path.rename(path.with_name(f"{number:03}.png?w=200" if number % 2 else f"{number:03}"))
    (data / "class 1" / "notes.csv").write_text("a,b\n1,2\n")
    trained = train(data, recipe=RECIPE.changed(epochs=0.2), out=tmp_path / "run", progress=False)
    counts = runs.read_json(trained.folder / "run.json")["data"]["counts"]
    assert counts["train"]["class 0"] == counts["train"]["class 2"]
    said = capfd.readouterr().err
    assert "1 file is left out as no image (class 1/notes.csv)" in said


def test_all_problems_of_a_folder_are_named_at_once(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "train/cow", "test/Cat", "test/dog"):
        (tmp_path / "data" / place).mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "train" / "cat" / "1.png")
    with pytest.raises(DataError) as caught:
        train(tmp_path / "data", recipe=RECIPE, out=tmp_path / "run")
    for text in (
        "test has class 'Cat' where train has 'cat'",
        "test lacks class 'cow' of train",
        "train: class 'dog' has no images",
        "test: class 'dog' has no images",
        "'leancnn check",
    ):
        assert text in str(caught.value)


def test_a_class_name_that_no_export_can_hold_is_found_before_training(
    pictures: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    (data / "class 0").rename(data / os.fsdecode(b"caf\xe9"))
    report = check(data)
    assert not report.ok
    assert any(one.kind == "class name" for one in report.problems)
