"""Loading data sets: what is loaded, how parts are cut, and what is refused."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from photos import draw, nfd, photos
from PIL import Image

from leancnn import data
from leancnn.data import Dataset, Split, _base, load_dataset
from leancnn.data._classes import disagreements, natural, ordered
from leancnn.data._split import cut, val_share_of
from leancnn.errors import DataError
from leancnn.preprocess import Preprocessing

PREPROCESSING = Preprocessing(size=(6, 8))


def test_rows_are_the_files_pixels_labels_and_names(tmp_path: Path) -> None:
    root = photos(tmp_path)
    found = load_dataset(root, PREPROCESSING, parts=("train", "test"))
    assert found.classes == ("s2", "s10")  # as people count
    assert found.val is None
    for part in (found.train, found.test):
        assert part is not None
        assert part.images.shape == (10, 6, 8, 3)
        assert part.labels.dtype == np.int64
        for image, label, name in zip(part.images, part.labels, part.files, strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(root / name)))
            assert Path(name).parent.name == found.classes[label]


def test_val_is_cut_from_train_by_class_and_seed(tmp_path: Path) -> None:
    root = photos(tmp_path, each=10)
    whole = load_dataset(root, PREPROCESSING, parts=("train",)).train
    first, again = (load_dataset(root, PREPROCESSING, val_share=0.2, seed=1) for _ in range(2))
    assert first.manifest == again.manifest
    assert whole is not None
    assert first.train is not None
    assert first.val is not None
    assert again.val is not None
    assert first.val.files == again.val.files
    assert np.bincount(first.val.labels).tolist() == [2, 2]
    assert sorted([*first.train.files, *first.val.files]) == sorted(whole.files)
    assert first.test is None
    others = [load_dataset(root, PREPROCESSING, parts=("val",), seed=seed).val for seed in range(5)]
    assert len({tuple(other.files) for other in others if other is not None}) > 1


@pytest.mark.parametrize(("images", "val"), [(10, 1), (20_000, 2_000), (50_000, 2_000)])
def test_a_tenth_goes_to_val_but_never_more_than_2000(images: int, val: int) -> None:
    assert val_share_of(images) * images == pytest.approx(val)


def test_the_share_of_a_cut_is_known_afterwards(tmp_path: Path) -> None:
    root = photos(tmp_path, each=10)
    assert load_dataset(root, PREPROCESSING).val_share == 0.1
    assert load_dataset(root, PREPROCESSING, val_share=0.3).val_share == 0.3


def test_a_val_folder_is_used_as_it_is(tmp_path: Path) -> None:
    root = photos(tmp_path, ("Train", "valid"))
    found = load_dataset(root, PREPROCESSING)
    assert found.val is not None
    assert {name.split("/")[0] for name in found.val.files} == {"valid"}
    assert found.manifest["cuts"] == {}


def test_an_unsplit_folder_keeps_the_same_test_part_for_every_seed(tmp_path: Path) -> None:
    root = photos(tmp_path, ("",))
    parts = [
        load_dataset(root, PREPROCESSING, parts=("train", "val", "test"), seed=seed)
        for seed in range(3)
    ]
    tests = [found.test.files for found in parts if found.test]
    assert tests[0] == tests[1] == tests[2]
    assert len(tests[0]) == 2
    for found in parts:
        names = [n for part in (found.train, found.val, found.test) if part for n in part.files]
        assert len(names) == len(set(names)) == 10
        assert found.manifest["cuts"]["test"]["share"] == 0.2


def test_parts_that_are_not_asked_for_are_not_opened(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"never read")
    load_dataset(root, PREPROCESSING)
    with pytest.raises(DataError, match="unreadable"):
        load_dataset(root, PREPROCESSING, parts=("test",))


def test_a_large_cut_lies_in_a_nameless_file_and_holds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos", each=8)
    small = load_dataset(root, PREPROCESSING, cache=tmp_path / "cache").train
    monkeypatch.setattr(_base, "LARGE", 0)
    large = load_dataset(root, PREPROCESSING, cache=tmp_path / "cache").train
    assert small is not None
    assert large is not None
    assert isinstance(large.images, np.memmap)
    np.testing.assert_array_equal(large.images, small.images)
    assert not list((tmp_path / "cache").glob("tmp*"))


def test_mean_and_std_are_those_of_the_train_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 7, 3), np.uint8)
    split = Split(images, np.zeros(50, np.int64), [""] * 50)
    mean, std = Dataset(name="", classes=("a",), train=split).mean_std()
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255)
    np.testing.assert_allclose(std, images.std((0, 1, 2)) / 255)


@given(
    st.lists(st.integers(0, 4), min_size=10, max_size=80),
    st.floats(0.05, 0.5),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_a_cut_does_not_depend_on_the_order_of_files(
    drawn: list[int], share: float, seed: int, shuffle: random.Random
) -> None:
    labels = np.array(drawn + list(range(5)) * 2)
    files = [f"{label}/{row}" for row, label in enumerate(labels)]
    stay, off = cut(files, labels, share, str(seed))
    assert sorted([*stay, *off]) == list(range(len(labels)))
    order = list(range(len(labels)))
    shuffle.shuffle(order)
    _, other = cut([files[row] for row in order], labels[order], share, str(seed))
    assert {files[row] for row in off} == {files[order[row]] for row in other}
    for label in range(5):
        count = int((labels == label).sum())
        assert (labels[off] == label).sum() == min(max(1, round(share * count)), count - 1)


@given(st.lists(st.text(min_size=1)))
@example(["²", "٣", "3"])  # a digit that is no number, and one that is, in another script
def test_class_order_is_a_function_of_the_set_of_names(names: list[str]) -> None:
    assert ordered(names) == ordered(reversed(names)) == ordered(ordered(names))
    assert sorted(["s10", "s2", "S1", "é"], key=natural) == ["S1", "s2", "s10", "é"]


# What is refused


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (["a", "b"], ["a"], ["test lacks class 'b' of train"]),
        (["a"], ["a", "b"], ["test has class 'b', which train does not have"]),
        (["Cat", "b"], ["cat", "b"], ["test has class 'cat' where train has 'Cat'; rename one"]),
        (["é", nfd("é")], ["é"], ["train: 2 folders are named 'é', in different Unicode forms"]),
        (["é"], [nfd("é")], []),
        (["1", "10", "2"], ["10", "2", "1"], []),
    ],
)
def test_classes_are_compared_by_name(train: list[str], test: list[str], says: list[str]) -> None:
    found = disagreements({"train": train, "test": test})
    assert len(found) == len(says)
    assert all(text.startswith(said) for text, said in zip(found, says, strict=True))


def test_classes_that_differ_between_parts_stop_a_load(tmp_path: Path) -> None:
    root = photos(tmp_path)
    (root / "test" / "s10").rename(root / "test" / "S10")
    with pytest.raises(DataError, match="test has class 'S10' where train has 's10'"):
        load_dataset(root, PREPROCESSING)


def test_one_bad_file_in_many_is_skipped_and_listed(tmp_path: Path) -> None:
    root = photos(tmp_path, each=60)
    (root / "train" / "s2" / "7.png").write_bytes(b"")
    found = load_dataset(root, PREPROCESSING, parts=("train",))
    (skipped,) = found.manifest["skipped"]
    assert skipped["file"] == "train/s2/7.png"
    assert "empty file" in skipped["reason"]
    assert found.train is not None
    assert len(found.train) == 119
    for image, name in zip(found.train.images, found.train.files, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / name)))
    again = load_dataset(root, PREPROCESSING, parts=("train",))
    assert again.manifest == found.manifest


def test_more_bad_files_than_allowed_stop_a_load(tmp_path: Path) -> None:
    root = photos(tmp_path, each=20)
    (root / "train" / "s2" / "7.png").write_bytes(b"")
    (root / "train" / "s2" / "x.heic").write_bytes(b"?")
    with pytest.raises(
        DataError, match=r"2 of 41 files are unreadable, more than the allowed 1.0%"
    ):
        load_dataset(root, PREPROCESSING)
    assert load_dataset(root, PREPROCESSING, max_bad_share=0.05).train is not None


def test_a_class_without_a_readable_image_stops_a_load_whatever_is_allowed(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for path in (root / "train" / "s2").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="'s2' has no readable image"):
        load_dataset(root, PREPROCESSING, max_bad_share=1)
    for path in (root / "train" / "s2").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="'s2' has no images"):
        load_dataset(root, PREPROCESSING, max_bad_share=1)


def test_stray_files_are_passed_over_and_noted(tmp_path: Path) -> None:
    root = photos(tmp_path)
    stray = ["README", ".DS_Store", "train/Thumbs.db", "train/s2/notes.txt", "train/s2/._0.png"]
    for name in stray:
        (root / name).write_bytes(b"?")
    (root / "__MACOSX").mkdir()
    found = load_dataset(root, PREPROCESSING)
    assert {item["file"] for item in found.manifest["stray"]} == {*stray, "__MACOSX/"}


def test_loops_of_links_end(tmp_path: Path) -> None:
    root = photos(tmp_path)
    (root / "train" / "s2" / "deeper").symlink_to(root / "train" / "s2")
    (root / "train" / "s10" / "up").symlink_to(root)
    (root / "loop").symlink_to(root)
    found = load_dataset(root, PREPROCESSING, parts=("train",))
    assert found.train is not None
    assert len(found.train) == 10
    assert len(found.manifest["stray"]) == 3


def test_a_link_to_itself_is_passed_over_wherever_it_lies(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for place in ("loop", "train/loop", "train/s2/loop"):
        (root / place).symlink_to("loop")
    found = load_dataset(root, PREPROCESSING, parts=("train",))
    assert found.train is not None
    assert len(found.train) == 10
    assert len(found.manifest["stray"]) == 3


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for seed, name in enumerate(("car", "bus", "train", "test")):
        for number in range(5):
            draw(tmp_path / name / f"{number}.png", 10 * seed + number)
    found = load_dataset(tmp_path, PREPROCESSING, parts=("train", "test"))
    assert found.classes == ("bus", "car", "test", "train")
    assert found.train is not None
    assert len(found.train) == 16


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    root = photos(tmp_path)
    draw(root / "train" / "s2" / "2024" / "june" / "0.png", 99)
    found = load_dataset(root, PREPROCESSING, parts=("train",))
    assert found.train is not None
    assert "train/s2/2024/june/0.png" in found.train.files


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "=cmd", "<script>", "a\udcffb", "‮x"])
def test_hostile_class_names_work_and_stay_json(tmp_path: Path, name: str) -> None:
    root = photos(tmp_path)
    for part in ("train", "test"):
        (root / part / "s2").rename(root / part / name)
    found = load_dataset(root, PREPROCESSING)
    assert name in found.classes
    assert json.loads(json.dumps(found.manifest)) == found.manifest


def test_wrong_sources_are_told_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load_dataset("digit", PREPROCESSING)
    with pytest.raises(DataError, match="the path of the data is empty"):
        load_dataset("", PREPROCESSING)
    with pytest.raises(DataError, match="no folder at"):
        load_dataset(tmp_path / "nowhere", PREPROCESSING)
    archive = tmp_path / "photos.tar"
    archive.write_bytes(b"")
    with pytest.raises(DataError, match="unpack"):
        load_dataset(archive, PREPROCESSING)
    with pytest.raises(DataError, match="no class folders"):
        load_dataset(tmp_path, PREPROCESSING)
    with pytest.raises(DataError, match="has no test part; it has: train"):
        load_dataset(photos(tmp_path / "a", ("train",)), PREPROCESSING, parts=("test",))
    with pytest.raises(DataError, match="not 'tset'"):
        load_dataset(tmp_path, PREPROCESSING, parts=("tset",))  # type: ignore[arg-type]


def test_names_are_those_that_need_no_folder() -> None:
    assert data.names() == ["digits"]


def test_the_digits_have_one_test_part_and_every_grey_level() -> None:
    found = load_dataset(
        "digits", Preprocessing(size=(8, 8), channels=1), parts=("train", "val", "test")
    )
    assert found.train is not None
    assert found.val is not None
    assert found.test is not None
    assert len(found.train) + len(found.val) + len(found.test) == 1797
    assert len(found.test) == 359
    assert found.classes == tuple("0123456789")
    assert found.train.images.max() == 255
    assert len(np.unique(found.train.images)) == 17
    other = load_dataset("digits", Preprocessing(size=(8, 8), channels=1), parts=("test",), seed=7)
    assert other.test is not None
    assert other.test.files == found.test.files


def test_a_plain_script_loads_without_torch_or_a_main_guard(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", each=3)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from leancnn.data import load_dataset\n"
        "from leancnn.preprocess import Preprocessing\n"
        "small = Preprocessing(size=(6, 8))\n"
        f"print(len(load_dataset({str(root)!r}, small, parts=('train',)).train))\n"
        "assert 'torch' not in sys.modules\n"
    )
    home = str(Path(data.__file__).parents[2])
    out = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": home, "LEANCNN_CACHE": str(tmp_path), "LEANCNN_WORKERS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout == "6\n"
