"""CIFAR and SVHN: four published layouts and one .mat, read exactly, and no pickle ever run."""

import contextlib
import io
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leancnn.data import load_dataset
from leancnn.data.cifar import LAYOUTS, Layout, _unpickled
from leancnn.errors import DataError
from leancnn.preprocess import Preprocessing

PREPROCESSING = Preprocessing(size=(31, 31), scale=(32, 32))
EACH = 6  # images in a file
Rows = list[tuple[int, "np.ndarray[Any, Any]"]]
BY_FOLDER = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.folder)


def publish(root: Path, layout: Layout) -> dict[str, Rows]:
    """Write a small CIFAR; part → (label, uint8 (32, 32, 3)) in the order of the files."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    names = [f"class{n}" for n in range(100 if layout.folder.startswith("cifar-100") else 10)]
    if layout.names:
        meta = {layout.names: names, "num_vis": 3072}
        (root / layout.meta).write_bytes(pickle.dumps(meta, protocol=2))
    else:
        (root / layout.meta).write_text("\n".join(names) + "\n\n")
    written: dict[str, Rows] = {}
    first = 0
    for part, files in layout.files.items():
        rows = written[part] = []
        for file in files:
            count = max(EACH, -(-len(names) // len(files)))
            images = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
            labels = [(first + n) % len(names) for n in range(count)]
            first += count
            rows += [(n, i.transpose(1, 2, 0)) for n, i in zip(labels, images, strict=True)]
            flat = images.reshape(count, -1)
            if layout.names:
                batch = {b"data": flat, layout.labels.encode(): labels, b"filenames": [b"x"]}
                (root / file).write_bytes(pickle.dumps(batch, protocol=2))
            else:
                head = np.repeat(np.array(labels, np.uint8)[:, None], layout.head, axis=1)
                head[:, :-1] = 0  # the coarse label, not used
                (root / file).write_bytes(np.hstack([head, flat]).tobytes())
    return written


@BY_FOLDER
def test_every_published_layout_is_read_exactly(tmp_path: Path, layout: Layout) -> None:
    written = publish(tmp_path / layout.folder, layout)
    for root in (tmp_path / layout.folder, tmp_path):
        found = load_dataset(root, PREPROCESSING, parts=("train", "test"))
        assert found.name == "cifar"
        assert found.classes[:3] == ("class0", "class1", "class2")
        for part, rows in (("train", found.train), ("test", found.test)):
            assert rows is not None
            assert rows.labels.tolist() == [label for label, _ in written[part]]
            np.testing.assert_array_equal(rows.images, [image for _, image in written[part]])
            assert len(set(rows.files)) == len(rows)


@BY_FOLDER
def test_damage_is_named_with_its_file(tmp_path: Path, layout: Layout) -> None:
    publish(tmp_path, layout)
    path = tmp_path / layout.files["test"][0]
    data = path.read_bytes()
    for broken in (b"", data[:-1], data[: len(data) // 2 + 1], b"\x80\x02N."):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=path.name):
            load_dataset(tmp_path, PREPROCESSING, parts=("test",))
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        load_dataset(tmp_path, PREPROCESSING, parts=("test",))


@BY_FOLDER
def test_a_label_out_of_range_is_named_with_its_own_file_and_row(
    tmp_path: Path, layout: Layout
) -> None:
    publish(tmp_path, layout)
    path = tmp_path / layout.files["train"][-1]
    if layout.names:
        batch = pickle.loads(path.read_bytes())
        batch[layout.labels.encode()][2] = 200
        path.write_bytes(pickle.dumps(batch, protocol=2))
    else:
        data = bytearray(path.read_bytes())
        data[2 * (layout.head + 3072) + layout.head - 1] = 200
        path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{path.name}#2: its label, 200, is not in 0\.\.9"):
        load_dataset(tmp_path, PREPROCESSING, parts=("train",))


class Unfilled:
    """An array whose state a damaged pickle has lost."""

    def __reduce__(self) -> Any:
        return np.zeros(0).__reduce__()[:2]


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [2**70]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": Unfilled()},
        {b"data": Unfilled(), b"labels": [1]},
        {b"data": 5, b"labels": 5},
    ],
)
def test_batches_that_are_no_images_and_labels_are_data_errors(tmp_path: Path, batch: Any) -> None:
    publish(tmp_path, LAYOUTS[0])
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match="data_batch_2: not 3072 bytes and one label per image"):
        load_dataset(tmp_path, PREPROCESSING, parts=("train",))


@pytest.mark.parametrize("names", [5, "abcdefghij", Unfilled(), None])
def test_class_names_that_are_no_list_are_a_data_error(tmp_path: Path, names: Any) -> None:
    publish(tmp_path, LAYOUTS[0])
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    with pytest.raises(DataError, match=r"batches\.meta: no list of class names"):
        load_dataset(tmp_path, PREPROCESSING)


class Bomb:
    """What an attacker pickles."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.told = call, arguments

    def __reduce__(self) -> Any:
        return self.told


@pytest.mark.parametrize(
    "attack",
    [
        Bomb(os.system, "touch pwned"),
        Bomb(eval, "open('pwned', 'w')"),
        Bomb(exec, "open('pwned', 'w')"),
        Bomb(getattr, "x", "upper"),
        Bomb(__import__, "antigravity"),
        Bomb(np.load, "pwned"),
        Bomb(np.ndarray, (10**12,)),
        Bomb(np.dtype, "O"),
        Bomb(bytearray, 10**12),
        {"data": np.array([print], object)},
        {"data": Bomb(os.system, "touch pwned")},
        {Bomb(os.system, "touch pwned"): 1},
    ],
    ids=lambda value: re.sub(r" at 0x[0-9a-f]+", "", str(value)),
)
def test_no_pickle_is_ever_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(attack, protocol=2))
    found: list[str] = []
    watching = True
    sys.addaudithook(
        lambda event, _: (
            found.append(event)
            if watching and event in ("os.system", "exec", "import", "pickle.find_class")
            else None
        )
    )
    try:
        with contextlib.suppress(DataError):
            values = _unpickled(tmp_path / "test_batch")
            assert not isinstance(values.get("data"), np.ndarray)
    finally:
        watching = False
    assert not found
    assert not Path("pwned").exists()


def test_a_pickle_of_another_order_or_type_is_the_array_it_says(tmp_path: Path) -> None:
    wanted = np.asfortranarray(np.arange(12, dtype=">i4").reshape(3, 4))
    (tmp_path / "a").write_bytes(pickle.dumps({"data": wanted}, protocol=2))
    np.testing.assert_array_equal(_unpickled(tmp_path / "a")["data"].values, wanted)


def test_other_pickles_are_data_errors_whatever_their_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=2)
    head = whole[:160]
    for _ in range(300):
        broken = bytearray(head)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(len(broken))] = rng.integers(256)
        (tmp_path / "a").write_bytes(bytes(broken) + whole[160:])
        with contextlib.suppress(DataError):  # any other error fails
            _unpickled(tmp_path / "a")


# SVHN


def mat(path: Path, images: "np.ndarray[Any, Any]", labels: Any) -> None:
    from scipy import io as scipy_io

    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"X": images, "y": labels}, do_compression=True)
    path.write_bytes(buffer.getvalue())


def test_svhn_is_read_exactly_and_its_ten_is_the_digit_zero(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), np.uint8)
    labels = np.array([*range(1, 11), *range(1, 11)], np.uint8)[:, None]
    for part in ("train", "test", "extra"):
        mat(tmp_path / f"{part}_32x32.mat", images, labels)
    found = load_dataset(tmp_path, PREPROCESSING, parts=("train", "test"))
    assert found.name == "svhn"
    assert found.classes == tuple("0123456789")
    assert found.train is not None
    assert found.train.labels.tolist() == [*range(1, 10), 0] * 2
    np.testing.assert_array_equal(found.train.images[3], images[..., 3])
    assert found.manifest["stray"][0]["file"] == "extra_32x32.mat"


def test_svhn_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    mat(path, np.zeros((28, 28, 3, 5), np.uint8), np.ones((5, 1)))
    with pytest.raises(DataError, match=r"train_32x32.mat: not images X"):
        load_dataset(tmp_path, PREPROCESSING)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"train_32x32.mat: damaged"):
        load_dataset(tmp_path, PREPROCESSING)
    mat(path, np.zeros((32, 32, 3, 5), np.uint8), np.full((5, 1), 11))
    with pytest.raises(DataError, match=r"train_32x32.mat#0: its label, 11, is not in 0\.\.9"):
        load_dataset(tmp_path, PREPROCESSING)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    with pytest.raises(DataError, match=r"train_32x32.mat: in MATLAB's format 7\.3.* -v7"):
        load_dataset(tmp_path, PREPROCESSING)
