import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import leancnn
from leancnn import cli, error_analysis, printed, runs
from leancnn.errors import (
    DataError,
    LeanCNNError,
    MismatchError,
    RunError,
)
from leancnn.evaluate import class_figures, confusion
from leancnn.safe_files import load_pair
from leancnn.weights import save
from tests.tiny_photos import PREPROCESSING, network, photos


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_the_confusion_matrix_counts_every_image_once(pairs):
    truth, answer = np.array(pairs, np.int64).T
    counts = confusion(truth, answer, 4)
    assert counts.sum() == len(pairs)
    assert (counts.sum(axis=1) == np.bincount(truth, minlength=4)).all()
    assert np.trace(counts) == (truth == answer).sum()
    for figures, row in zip(class_figures("abcd", counts), counts, strict=True):
        assert figures.images == row.sum()
        assert (figures.recall is None) == (row.sum() == 0)
        if figures.precision and figures.recall:
            mean = 2 / (1 / figures.precision + 1 / figures.recall)
            assert figures.f1 == pytest.approx(mean)


def test_a_network_is_measured_by_class_name_not_by_position(photo_run, tmp_path):
    straight = leancnn.evaluate(photo_run)
    names = ("s2", "s10", "éa")
    turned = network(names)
    order = [2, 0, 1]
    turned.classes = tuple(names[i] for i in order)
    with torch.no_grad():
        turned.body.fc.weight.copy_(turned.body.fc.weight[order])
        turned.body.fc.bias.copy_(turned.body.fc.bias[order])
    again = leancnn.evaluate(turned, tmp_path / "photos")
    assert again.correct == straight.correct
    assert {f.name: f for f in again.classes} == {f.name: f for f in straight.classes}


def test_an_evaluation_stays_in_the_run_with_small_pictures_of_what_was_confused(
    photo_run, tmp_path
):
    found = leancnn.evaluate(photo_run)
    told, arrays = load_pair(
        photo_run / "evaluation-best.json",
        photo_run / "evaluation-best.safetensors",
        printed.Evaluation,
    )
    assert {key: told[key] for key in ("right", "accuracy", "low", "opened")} == {
        "right": found.correct,
        "accuracy": found.accuracy,
        "low": found.low,
        "opened": 1,
    }
    assert told["confusion"] == [list(row) for row in found.confusion]
    wrong = found.images - found.correct
    assert 0 < len(told["pictures"]) <= wrong
    for one, small in zip(told["pictures"], arrays["pictures"], strict=True):
        assert one["true"] != one["answer"]
        assert np.array_equal(small, PREPROCESSING.read(tmp_path / "photos" / one["file"]).image)


def test_of_each_pair_that_is_confused_often_the_surest_are_chosen():
    pairs = ["ab"] * 9 + ["cd"] * 2 + [f"{place}x" for place in range(20)]
    mistakes = [
        error_analysis.Mistake(
            file=str(place), true=pair[0], answer=pair[1], probability=1 - place / 99
        )
        for place, pair in enumerate(pairs)
    ]
    chosen = error_analysis.frequent_confusions(mistakes)
    assert chosen[:8] == [0, 1, 2, 3, 4, 5, 9, 10]
    assert len(chosen) == 8 + 6


@pytest.mark.parametrize("shape", [(31, 31, 1), (300, 150, 3), (1, 400, 1)])
def test_a_thumbnail_keeps_the_look_within_its_size(shape):
    image = np.full(shape, 77, np.uint8)
    small = error_analysis.thumbnails([image, image])
    assert max(small.shape[1:3]) <= error_analysis.THUMBNAIL
    assert small.shape[3] == shape[2]
    assert (small == 77).all()


def test_composed_and_decomposed_class_names_are_one_class(photo_run, tmp_path):
    other = photos(tmp_path / "other", ["s2", "s10", "e\u0301a"])
    assert leancnn.evaluate(photo_run, other).images == 12


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["s2", "s10"], "'éa' only in the network"),
        (["s2", "s10", "éa", "x"], "'x' only in the data"),
        (["s2", "S10", "éa"], "'s10' only in the network, 'S10' only in the data"),
    ],
)
def test_other_classes_are_refused_and_named(photo_run, tmp_path, classes, message):
    other = photos(tmp_path / "other", classes)
    with pytest.raises(MismatchError, match=message):
        leancnn.evaluate(photo_run, other)
    assert runs.evaluations(photo_run) == []


def test_unreadable_test_images_are_said(photo_run, tmp_path):
    assert leancnn.evaluate(photo_run).skipped == 0
    for number in range(100, 250):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(
            tmp_path / "photos" / "test" / "s2" / f"{number}.png"
        )
    (tmp_path / "photos" / "test" / "s2" / "100.png").write_bytes(b"")
    found = leancnn.evaluate(photo_run)
    assert (found.skipped, found.images) == (1, 12 + 149)
    assert "1 unreadable file left out" in found.text()


def test_other_data_leave_the_picture_of_the_runs_own_alone(photo_run, tmp_path):
    own = leancnn.evaluate(photo_run).picture
    shutil.copytree(tmp_path / "photos", tmp_path / "elsewhere")
    other = leancnn.evaluate(photo_run, tmp_path / "elsewhere").picture
    assert Path(own).name == "confusion-best.png"
    assert Path(other).name == "confusion-best-elsewhere.png"


def test_a_network_outside_a_run_needs_data_and_counts_nothing(photo_run, tmp_path):
    save(network(("s2", "s10", "éa")), tmp_path / "alone")
    with pytest.raises(RunError, match="--data"):
        leancnn.evaluate(tmp_path / "alone")
    found = leancnn.evaluate(tmp_path / "alone", tmp_path / "photos")
    assert (found.uses, found.picture, found.which) == (None, None, "")


def test_data_without_a_test_part_is_refused(photo_run, tmp_path):
    with pytest.raises(DataError, match="test"):
        leancnn.evaluate(
            photo_run, photos(tmp_path / "other", ["s2", "s10", "éa"], parts=("train",))
        )


def test_the_command_prints_one_json_value_and_draws_the_matrix(photo_run, capsys):
    assert cli.main(["evaluate", str(photo_run), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["images"] == sum(map(sum, one["confusion"])) == 12
    assert one["low"] <= one["accuracy"] <= one["high"]
    with Image.open(one["picture"]) as image:
        assert image.format == "PNG"
    assert cli.main(["evaluate", str(photo_run), "--json", "--checkpoint", "both"]) == 0
    assert [item["which"] for item in json.loads(capsys.readouterr().out)] == ["best", "last"]


def test_the_command_prints_figures_per_class(photo_run, capsys):
    assert cli.main(["evaluate", str(photo_run)]) == 0
    text = capsys.readouterr().out
    assert "95 % interval" in text
    assert all(name in text for name in ("s2", "s10", "éa", "precision", "recall", "f1"))


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "no")]) == LeanCNNError.exit_status
    assert capsys.readouterr().err.count("\n") == 1


def test_data_that_has_moved_is_asked_for_by_name(photo_run, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"photos, the data of .*run, is not there; .* --data"):
        leancnn.evaluate(photo_run)
    assert leancnn.evaluate(photo_run, tmp_path / "moved").uses == 1
