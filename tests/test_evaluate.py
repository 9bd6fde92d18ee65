import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import leancnn
from leancnn import cli, models, printed, runs, scrutiny
from leancnn.data import load_dataset
from leancnn.errors import (
    DamagedError,
    DataError,
    LeanCNNError,
    MismatchError,
    RunError,
    WriteError,
)
from leancnn.evaluate import class_figures, confusion, wilson
from leancnn.preprocess import Preprocessing
from leancnn.safe_files import unseal
from leancnn.weights import Network, save

ROAD = Preprocessing(size=(31, 31), scale=(32, 32))


def network(classes, seed=0):
    return Network(
        models.create_model("henet_r2", classes=len(classes), init="kaiming", seed=seed),
        name="henet_r2",
        arguments={"repeat": 2},
        classes=classes,
        preprocessing=ROAD,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    ).eval()


def photos(folder, classes, parts=("train", "test"), each=4):
    for part in parts:
        for number, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for i in range(each):
                rng = np.random.default_rng([number, i, len(part)])
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture
def run(tmp_path):
    """A run with an untrained best and another last network, on photos of three classes."""
    torch.set_num_threads(1)
    data = photos(tmp_path / "photos", ["s2", "s10", "éa"])
    folder = tmp_path / "run"
    runs.write_json(folder / "run.json", {"data": {"source": str(data)}})
    save(network(("s2", "s10", "éa")), folder / "best")
    save(network(("s2", "s10", "éa"), seed=1), folder / "last")
    return folder


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(right, images):
    right = min(right, images)
    low, high = wilson(right, images)
    assert 0 <= low <= right / images <= high <= 1


def test_the_interval_is_wilsons():
    # Both ends solve |p - share| = z·sqrt(p(1 - p)/n), which is how Wilson defined them.
    for right, images in ((81, 100), (1, 10), (8_612, 10_000)):
        for end in wilson(right, images):
            z = abs(right / images - end) / (end * (1 - end) / images) ** 0.5
            assert z == pytest.approx(1.959964, rel=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


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


def test_a_network_is_measured_by_class_name_not_by_position(run, tmp_path):
    straight = leancnn.evaluate(run)
    names = ("s2", "s10", "éa")
    turned = network(names)
    order = [2, 0, 1]
    turned.classes = tuple(names[i] for i in order)
    with torch.no_grad():
        turned.body.fc.weight.copy_(turned.body.fc.weight[order])
        turned.body.fc.bias.copy_(turned.body.fc.bias[order])
    again = leancnn.evaluate(turned, tmp_path / "photos")
    assert again.right == straight.right
    assert {f.name: f for f in again.classes} == {f.name: f for f in straight.classes}


def test_an_evaluation_stays_in_the_run_with_small_pictures_of_what_was_confused(run, tmp_path):
    found = leancnn.evaluate(run)
    told, arrays = unseal(
        run / "evaluation-best.json", run / "evaluation-best.safetensors", printed.Evaluation
    )
    assert {key: told[key] for key in ("right", "accuracy", "low", "opened")} == {
        "right": found.right,
        "accuracy": found.accuracy,
        "low": found.low,
        "opened": 1,
    }
    assert told["confusion"] == [list(row) for row in found.confusion]
    wrong = found.images - found.right
    assert 0 < len(told["pictures"]) <= wrong
    for one, small in zip(told["pictures"], arrays["pictures"], strict=True):
        assert one["true"] != one["answer"]
        assert np.array_equal(small, ROAD.read(tmp_path / "photos" / one["file"]).image)


def test_of_each_pair_that_is_confused_often_the_surest_are_chosen():
    pairs = ["ab"] * 9 + ["cd"] * 2 + [f"{place}x" for place in range(20)]
    mistakes = [
        scrutiny.Mistake(file=str(place), true=pair[0], answer=pair[1], probability=1 - place / 99)
        for place, pair in enumerate(pairs)
    ]
    chosen = scrutiny.frequent_confusions(mistakes)
    assert chosen[:8] == [0, 1, 2, 3, 4, 5, 9, 10]
    assert len(chosen) == 8 + 6


@pytest.mark.parametrize("shape", [(31, 31, 1), (300, 150, 3), (1, 400, 1)])
def test_a_thumbnail_keeps_the_look_within_its_size(shape):
    image = np.full(shape, 77, np.uint8)
    small = scrutiny.thumbnails([image, image])
    assert max(small.shape[1:3]) <= scrutiny.THUMBNAIL
    assert small.shape[3] == shape[2]
    assert (small == 77).all()


def test_composed_and_decomposed_class_names_are_one_class(run, tmp_path):
    other = photos(tmp_path / "other", ["s2", "s10", "e\u0301a"])
    assert leancnn.evaluate(run, other).images == 12


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["s2", "s10"], "'éa' only in the network"),
        (["s2", "s10", "éa", "x"], "'x' only in the data"),
        (["s2", "S10", "éa"], "'s10' only in the network, 'S10' only in the data"),
    ],
)
def test_other_classes_are_refused_and_named(run, tmp_path, classes, message):
    other = photos(tmp_path / "other", classes)
    with pytest.raises(MismatchError, match=message):
        leancnn.evaluate(run, other)
    assert runs.evaluations(run) == []


def test_uses_are_counted_for_each_test_set_and_a_changed_one_is_noticed(run, tmp_path):
    first = leancnn.evaluate(run)
    assert (first.which, first.uses, first.all_uses, first.changed) == ("best", 1, 1, False)
    second = leancnn.evaluate(run, which="last")
    assert (second.which, second.uses, second.all_uses, second.changed) == ("last", 2, 2, False)
    other = photos(tmp_path / "other", ["s2", "s10", "éa"], each=3)
    foreign = leancnn.evaluate(run, other)
    assert (foreign.uses, foreign.all_uses, foreign.changed) == (1, 3, False)
    assert "measured on these test images once, and others 2 times" in foreign.text()
    (tmp_path / "photos").rename(tmp_path / "moved")  # the same images are the same test set
    moved = leancnn.evaluate(run / "best", tmp_path / "moved")
    assert (moved.which, moved.uses, moved.all_uses, moved.changed) == ("best", 3, 4, False)
    assert "measured on these test images 3 times, and others once" in moved.text()
    (tmp_path / "moved").rename(tmp_path / "photos")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "photos" / "test" / "s2" / "0.png")
    changed = leancnn.evaluate(run)
    assert (changed.uses, changed.all_uses, changed.changed) == (1, 5, True)
    assert "not those that an earlier use found" in changed.text()
    assert len(runs.evaluations(run)) == 5


def test_files_that_came_later_may_move_trained_images_into_the_test_part(run, tmp_path):
    names = ["s2", "s10", "éa"]
    data = photos(tmp_path / "plain", names, parts=("",), each=10)
    preprocessing = network(names).preprocessing
    manifest = load_dataset(data, preprocessing, parts=("train",)).manifest
    runs.write_json(run / "run.json", {"data": manifest})
    first = leancnn.evaluate(run)
    assert not first.recut
    assert "trained on" not in first.text()
    trained = load_dataset(data, preprocessing, parts=("train",)).train.files
    for number in range(9):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(data / "s2" / f"added {number}.png")
    tested = load_dataset(data, preprocessing, parts=("test",)).test.files
    assert {*trained} & {*tested}  # the reason for the warning
    later = leancnn.evaluate(run)
    assert later.recut
    assert "images that were trained on may be among these" in later.text()
    shutil.copytree(data, tmp_path / "other")
    assert leancnn.evaluate(run, tmp_path / "other").recut, "the same images, elsewhere"


def test_decomposed_names_are_cut_as_composed_ones(run, tmp_path):
    names = ["s2", "s10", "éa"]
    data = photos(tmp_path / "plain", names, parts=("",), each=10)
    other = photos(tmp_path / "other", ["s2", "s10", "e\u0301a"], parts=("",), each=10)
    preprocessing = network(names).preprocessing
    runs.write_json(
        run / "run.json", {"data": load_dataset(data, preprocessing, parts=("train",)).manifest}
    )
    tested = [
        [unicodedata.normalize("NFC", name) for name in found.test.files]
        for found in (
            load_dataset(place, preprocessing, parts=("test",)) for place in (data, other)
        )
    ]
    assert sorted(tested[0]) == sorted(tested[1])
    assert not leancnn.evaluate(run, other).recut


def test_unreadable_test_images_are_said(run, tmp_path):
    assert leancnn.evaluate(run).skipped == 0
    for number in range(100, 250):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(
            tmp_path / "photos" / "test" / "s2" / f"{number}.png"
        )
    (tmp_path / "photos" / "test" / "s2" / "100.png").write_bytes(b"")
    found = leancnn.evaluate(run)
    assert (found.skipped, found.images) == (1, 12 + 149)
    assert "1 unreadable file left out" in found.text()


def test_an_opening_whose_picture_cannot_be_drawn_did_not_happen(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        leancnn.evaluate(run, picture=tmp_path / "file" / "matrix.png")
    assert runs.evaluations(run) == []


def test_an_opening_that_cannot_be_counted_shows_nothing(run, tmp_path, monkeypatch):
    def refuses(*given):
        raise WriteError("no")

    monkeypatch.setattr(runs, "add_evaluation", refuses)
    with pytest.raises(WriteError):
        leancnn.evaluate(run, picture=tmp_path / "matrix.png")
    assert not (tmp_path / "matrix.png").exists()


def test_a_network_inside_a_run_is_counted_from_inside_too(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run / "best")
    assert leancnn.evaluate(".", tmp_path / "photos").uses == 1
    (tmp_path / "link").symlink_to(run / "last")
    assert leancnn.evaluate(tmp_path / "link", tmp_path / "photos").uses == 2


def test_other_data_leave_the_picture_of_the_runs_own_alone(run, tmp_path):
    own = leancnn.evaluate(run).picture
    shutil.copytree(tmp_path / "photos", tmp_path / "elsewhere")
    other = leancnn.evaluate(run, tmp_path / "elsewhere").picture
    assert Path(own).name == "confusion-best.png"
    assert Path(other).name == "confusion-best-elsewhere.png"


def test_a_damaged_count_of_uses_stops_before_the_test_set_is_opened(run, tmp_path):
    (tmp_path / "photos" / "test").rename(tmp_path / "away")
    for text in ("{", "{}", "[1]"):
        (run / "evaluations.json").write_text(text)
        with pytest.raises(DamagedError, match=r"evaluations\.json"):
            leancnn.evaluate(run)


def test_only_the_test_part_is_opened(run, tmp_path):
    for path in (tmp_path / "photos" / "train").rglob("*.png"):
        path.write_bytes(b"junk")
    assert leancnn.evaluate(run).images == 12


def test_a_network_outside_a_run_needs_data_and_counts_nothing(run, tmp_path):
    save(network(("s2", "s10", "éa")), tmp_path / "alone")
    with pytest.raises(RunError, match="--data"):
        leancnn.evaluate(tmp_path / "alone")
    found = leancnn.evaluate(tmp_path / "alone", tmp_path / "photos")
    assert (found.uses, found.picture, found.which) == (None, None, "")


def test_data_without_a_test_part_is_refused(run, tmp_path):
    with pytest.raises(DataError, match="test"):
        leancnn.evaluate(run, photos(tmp_path / "other", ["s2", "s10", "éa"], parts=("train",)))


def test_the_command_prints_one_json_value_and_draws_the_matrix(run, capsys):
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["images"] == sum(map(sum, one["confusion"])) == 12
    assert one["low"] <= one["accuracy"] <= one["high"]
    with Image.open(one["picture"]) as image:
        assert image.format == "PNG"
    assert cli.main(["evaluate", str(run), "--json", "--checkpoint", "both"]) == 0
    assert [item["which"] for item in json.loads(capsys.readouterr().out)] == ["best", "last"]


def test_the_command_prints_figures_per_class(run, capsys):
    assert cli.main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    assert "95 % interval" in text
    assert all(name in text for name in ("s2", "s10", "éa", "precision", "recall", "f1"))


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "no")]) == LeanCNNError.exit_status
    assert capsys.readouterr().err.count("\n") == 1


def test_data_that_has_moved_is_asked_for_by_name(run, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"photos, the data of .*run, is not there; .* --data"):
        leancnn.evaluate(run)
    assert leancnn.evaluate(run, tmp_path / "moved").uses == 1


def test_a_picture_that_cannot_be_drawn_is_no_opening(run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError):
        leancnn.evaluate(run, picture=tmp_path / "taken" / "matrix.png")
    assert runs.evaluations(run) == []
