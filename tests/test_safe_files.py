"""Files that are whole or refused."""

import os
import random
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn import safe_files
from leancnn.errors import DamagedError, RunError, WriteError
from leancnn.safe_files import atomic_write, load_pair, read_json, save_pair, write_json

TENSORS = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "count": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A pair with checksums on disk."""
    paths = tmp_path / "a.json", tmp_path / "a.safetensors"
    save_pair(*paths, {"step": 3, "name": "Ω"}, TENSORS)
    return paths


def test_what_was_sealed_comes_back_bit_by_bit(pair: tuple[Path, Path]) -> None:
    manifest, tensors = load_pair(*pair)
    assert manifest["step"] == 3
    assert manifest["name"] == "Ω"
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        assert tensors[name].shape == array.shape
        assert tensors[name].tobytes() == array.tobytes()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec=None)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_json_value_survives_the_seal(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    paths = (folder := tmp_path_factory.mktemp("s")) / "a.json", folder / "a.safetensors"
    save_pair(*paths, {"value": value}, {})
    assert load_pair(*paths)[0]["value"] == value


def test_every_single_bit_counts(pair: tuple[Path, Path]) -> None:
    dice = random.Random(5)
    for path in pair:
        whole = path.read_bytes()
        for place in dice.sample(range(8 * len(whole)), 120):
            bad = bytearray(whole)
            bad[place // 8] ^= 1 << place % 8
            path.write_bytes(bad)
            with pytest.raises(DamagedError):
                load_pair(*pair)
        path.write_bytes(whole)
    load_pair(*pair)


def test_a_file_cut_short_is_refused(pair: tuple[Path, Path]) -> None:
    for path in pair:
        whole = path.read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(DamagedError):
                load_pair(*pair)
        path.unlink()
        with pytest.raises(DamagedError, match="missing"):
            load_pair(*pair)
        path.write_bytes(whole)


def test_parts_of_two_pairs_do_not_pass_for_one(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = tmp_path / "b.json", tmp_path / "b.safetensors"
    save_pair(*other, {"step": 3}, {**TENSORS, "count": np.array(8)})
    with pytest.raises(DamagedError):
        load_pair(pair[0], other[1])


def test_a_kill_at_any_write_leaves_one_whole_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def run_until(stop: int, step: int) -> bool:
        """Seal, but die before the stop-th rename."""
        replace, renames = Path.replace, 0

        def counted(self: Path, target: Path) -> Path:
            nonlocal renames
            renames += 1
            if renames > stop:
                raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", counted)
            try:
                save_pair(*paths, {"step": step}, {"w": np.full(5, step)})
            except Killed:
                return False
            return True

    paths = tmp_path / "a.json", tmp_path / "a.safetensors"
    save_pair(*paths, {"step": 0}, {"w": np.full(5, 0)})
    # Every pair of two kills in a row, since the second save begins with what the first one left.
    for first in range(4):
        for second in range(4):
            for stop in (first, second):
                before = load_pair(*paths)[0]["step"]
                finished = run_until(stop, before + 1)
                manifest, tensors = load_pair(*paths)
                assert manifest["step"] in (before, before + 1)
                assert manifest["step"] == before + 1 or not finished
                assert (tensors["w"] == manifest["step"]).all()


def test_a_pair_that_is_replaced_while_it_is_read_is_read_again(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_of, steps = safe_files._bytes_of, [4]

    def replaced(path: Path, most: int = 1 << 30) -> bytes | None:
        if steps:
            save_pair(*pair, {"step": steps.pop()}, {"weight": np.ones(3)})
        return bytes_of(path, most)

    monkeypatch.setattr(safe_files, "_bytes_of", replaced)
    manifest, tensors = load_pair(*pair)
    assert manifest["step"] == 4
    assert (tensors["weight"] == 1).all()


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WriteError, match=r"a: 5,000 bytes not written") as caught:
            atomic_write(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_whatever_call_fails_the_old_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif call == "fsync":
        monkeypatch.setattr(safe_files.os, "fsync", fail)
    else:
        monkeypatch.setattr(safe_files.os, "open", fail)
    with pytest.raises(WriteError, match="free that much"):
        atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="that can be written"):
        atomic_write(tmp_path / "file" / "a", b"")
    for name in (".", "/"):
        with pytest.raises(WriteError, match="is no name for a file"):
            atomic_write(Path(name), b"")


def test_json_is_read_or_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}
    for broken in ("{", "[" * 100_000):
        (tmp_path / "a.json").write_text(broken)
        with pytest.raises(DamagedError):
            read_json(tmp_path / "a.json")
    with pytest.raises(RunError):
        read_json(tmp_path / "b.json")


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "a.json", [name])
    assert read_json(tmp_path / "a.json") == [name]
