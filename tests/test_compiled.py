"""Libraries that are not what was built: refused before a byte of them runs, made again if ours."""

import ctypes
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leancnn import toolchain
from leancnn.bench import untrained
from leancnn.compile import compile
from leancnn.compiled import CompiledNetwork, open_library
from leancnn.errors import DamagedError, MissingDependencyError
from leancnn.safe_files import TAIL, check_library

ROOT = Path(__file__).parent.parent

try:
    toolchain.find_compiler()
except MissingDependencyError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of a small network, as a user ships it."""
    return compile(untrained("resnet8"), out=tmp_path_factory.mktemp("built")).path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_flipped_bit_anywhere_is_refused(built: Path, tmp_path: Path) -> None:
    whole, dice, path = built.read_bytes(), random.Random(5), tmp_path / "net.so"
    places = [dice.randrange(len(whole)) for _ in range(100)]
    places += range(len(whole) - TAIL, len(whole))  # the digest itself
    for place in places:
        bad = bytearray(whole)
        bad[place] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(DamagedError):
            CompiledNetwork(path)


def test_a_cut_library_is_refused_wherever_it_ends(built: Path, tmp_path: Path) -> None:
    whole, dice, path = built.read_bytes(), random.Random(6), tmp_path / "net.so"
    ends = [0, 1, 63, 64, *(dice.randrange(len(whole) - TAIL) for _ in range(40))]
    ends += range(len(whole) - TAIL + 1, len(whole))
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(DamagedError):
            CompiledNetwork(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedError):
        CompiledNetwork(path)


def test_what_a_user_built_from_the_c_file_is_taken(built: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.so"
    source = built.with_suffix(".c")
    toolchain.run_compiler(
        ["-O1", "-shared", "-fPIC", "-o", str(own), str(source), "-I", str(built.parent), "-lm"]
    )
    assert check_library(own)[1] is False
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert np.allclose(CompiledNetwork(own)(images), CompiledNetwork(built)(images), atol=1e-5)
    own.write_bytes(own.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        CompiledNetwork(own)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "folder"])
def test_a_damaged_entry_of_the_cache_is_built_again(damage: str, own_cache: Path) -> None:
    source = f"int answer(void) {{ return {len(damage)}; }}\n"
    path = toolchain.compile_library(source, name="answer")
    whole = path.read_bytes()
    bad = bytearray(whole)
    bad[len(bad) // 2] ^= 8
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {"flip": bytes(bad), "cut": whole[:5000], "empty": b"", "foreign": b"hi\n"}[damage]
        )
    assert toolchain.compile_library(source, name="answer") == path
    assert open_library(path).answer() == len(damage)
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_training_heals_its_kernels(own_cache: Path) -> None:
    code = (
        "import torch\nfrom leancnn import models\nfrom leancnn.cpu_training import accelerate\n"
        "run = accelerate(models.create_model('resnet8', seed=0).train())\n"
        "out = run(torch.zeros(16, 3, 32, 32)); assert not run.why_not, run.why_not\n"
        "print(float(out.sum()))\n"
    )

    def trained() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
        )
        return done.stdout

    whole = trained()
    (path,) = (own_cache / "native").glob("simd-*.so")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    assert trained() == whole
    path.write_bytes(b"")
    assert trained() == whole
    assert path.stat().st_size == size


def test_writing_over_a_library_changes_nothing_for_who_has_it_open(
    built: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.so"
    path.write_bytes(built.read_bytes())
    native = CompiledNetwork(path)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    before = native(images)
    path.write_bytes(b"\0" * 10)  # in place: a mapped file would end here with a bus error
    assert np.array_equal(native(images), before)


def test_the_same_bytes_are_loaded_once(built: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.so", tmp_path / "other.so"
    for path in (one, other):
        path.write_bytes(built.read_bytes())
    first, second = open_library(one), open_library(other)
    assert isinstance(first, ctypes.CDLL)
    assert first is second
