"""The test part: opened in one place, and each use of it counted."""

import shutil
import unicodedata

import pytest
from PIL import Image

import leancnn
from leancnn import runs
from leancnn.data import load_dataset
from leancnn.errors import (
    DamagedError,
    WriteError,
)
from tests.tiny_photos import network, photos


@pytest.mark.long
def test_uses_are_counted_for_each_test_set_and_a_changed_one_is_noticed(photo_run, tmp_path):
    first = leancnn.evaluate(photo_run)
    assert (first.which, first.uses, first.all_uses, first.changed) == ("best", 1, 1, False)
    second = leancnn.evaluate(photo_run, which="last")
    assert (second.which, second.uses, second.all_uses, second.changed) == ("last", 2, 2, False)
    other = photos(tmp_path / "other", ["s2", "s10", "éa"], each=3)
    foreign = leancnn.evaluate(photo_run, other)
    assert (foreign.uses, foreign.all_uses, foreign.changed) == (1, 3, False)
    assert "measured on these test images once, and others 2 times" in foreign.text()
    (tmp_path / "photos").rename(tmp_path / "moved")  # the same images are the same test set
    moved = leancnn.evaluate(photo_run / "best", tmp_path / "moved")
    assert (moved.which, moved.uses, moved.all_uses, moved.changed) == ("best", 3, 4, False)
    assert "measured on these test images 3 times, and others once" in moved.text()
    (tmp_path / "moved").rename(tmp_path / "photos")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "photos" / "test" / "s2" / "0.png")
    changed = leancnn.evaluate(photo_run)
    assert (changed.uses, changed.all_uses, changed.changed) == (1, 5, True)
    assert "not those that an earlier use found" in changed.text()
    assert len(runs.evaluations(photo_run)) == 5


def test_files_that_came_later_may_move_trained_images_into_the_test_part(photo_run, tmp_path):
    names = ["s2", "s10", "éa"]
    data = photos(tmp_path / "plain", names, parts=("",), each=10)
    preprocessing = network(names).preprocessing
    manifest = load_dataset(data, preprocessing, parts=("train",)).manifest
    runs.write_json(photo_run / "run.json", {"data": manifest})
    first = leancnn.evaluate(photo_run)
    assert not first.recut
    assert "trained on" not in first.text()
    trained = load_dataset(data, preprocessing, parts=("train",)).train.files
    for number in range(9):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(data / "s2" / f"added {number}.png")
    tested = load_dataset(data, preprocessing, parts=("test",)).test.files
    assert {*trained} & {*tested}  # the reason for the warning
    later = leancnn.evaluate(photo_run)
    assert later.recut
    assert "images that were trained on may be among these" in later.text()
    shutil.copytree(data, tmp_path / "other")
    assert leancnn.evaluate(photo_run, tmp_path / "other").recut, "the same images, elsewhere"


def test_decomposed_names_are_cut_as_composed_ones(photo_run, tmp_path):
    names = ["s2", "s10", "éa"]
    data = photos(tmp_path / "plain", names, parts=("",), each=10)
    other = photos(tmp_path / "other", ["s2", "s10", "e\u0301a"], parts=("",), each=10)
    preprocessing = network(names).preprocessing
    runs.write_json(
        photo_run / "run.json",
        {"data": load_dataset(data, preprocessing, parts=("train",)).manifest},
    )
    tested = [
        [unicodedata.normalize("NFC", name) for name in found.test.files]
        for found in (
            load_dataset(place, preprocessing, parts=("test",)) for place in (data, other)
        )
    ]
    assert sorted(tested[0]) == sorted(tested[1])
    assert not leancnn.evaluate(photo_run, other).recut


def test_an_opening_whose_picture_cannot_be_drawn_did_not_happen(photo_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        leancnn.evaluate(photo_run, picture=tmp_path / "file" / "matrix.png")
    assert runs.evaluations(photo_run) == []


def test_an_opening_that_cannot_be_counted_shows_nothing(photo_run, tmp_path, monkeypatch):
    def refuses(*given):
        raise WriteError("no")

    monkeypatch.setattr(runs, "add_evaluation", refuses)
    with pytest.raises(WriteError):
        leancnn.evaluate(photo_run, picture=tmp_path / "matrix.png")
    assert not (tmp_path / "matrix.png").exists()


def test_a_network_inside_a_run_is_counted_from_inside_too(photo_run, tmp_path, monkeypatch):
    monkeypatch.chdir(photo_run / "best")
    assert leancnn.evaluate(".", tmp_path / "photos").uses == 1
    (tmp_path / "link").symlink_to(photo_run / "last")
    assert leancnn.evaluate(tmp_path / "link", tmp_path / "photos").uses == 2


def test_a_damaged_count_of_uses_stops_before_the_test_set_is_opened(photo_run, tmp_path):
    (tmp_path / "photos" / "test").rename(tmp_path / "away")
    for text in ("{", "{}", "[1]"):
        (photo_run / "evaluations.json").write_text(text)
        with pytest.raises(DamagedError, match=r"evaluations\.json"):
            leancnn.evaluate(photo_run)


def test_only_the_test_part_is_opened(photo_run, tmp_path):
    for path in (tmp_path / "photos" / "train").rglob("*.png"):
        path.write_bytes(b"junk")
    assert leancnn.evaluate(photo_run).images == 12


def test_a_picture_that_cannot_be_drawn_is_no_opening(photo_run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError):
        leancnn.evaluate(photo_run, picture=tmp_path / "taken" / "matrix.png")
    assert runs.evaluations(photo_run) == []
