"""compile() and train(), called again and again in one process, leave nothing behind in it."""

import gc
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import leancnn
from leancnn.train import train
from tests.compiler_saved import network, on_shelf
from tests.few import few
from tests.tiny import RECIPE

MOST = 24 << 20  # bytes of memory that 30 turns may add: less than one MB each
Held = tuple[int, int, int]


def held() -> Held:
    """Open files, threads, and entries of the folder for temporary files."""
    gc.collect()
    files, threads, temporary = (
        len(list(Path(folder).iterdir()))
        for folder in ("/proc/self/fd", "/proc/self/task", tempfile.gettempdir())
    )
    return files, threads, temporary


def resident() -> int:
    """Bytes of memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(work: Callable[[int], object], times: int, *, before: int = 1) -> tuple[Held, int]:
    """What so many turns add, after some that may fill what is kept once."""
    for turn in range(before):
        work(turn)
    first, memory = held(), resident()
    for turn in range(before, before + times):
        work(turn)
    files, threads, temporary = (now - then for now, then in zip(held(), first, strict=True))
    return (files, threads, temporary), resident() - memory


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))


@pytest.fixture
def speck() -> Iterator[None]:
    off = on_shelf()
    yield
    off()


@pytest.mark.usefixtures("speck")
@pytest.mark.parametrize("times", few([6, pytest.param(30, marks=pytest.mark.slow)]))
def test_compiling_again_and_again_does_not_grow(times: int) -> None:
    net = network()
    images = np.zeros((2, 8, 8, 3), np.uint8)
    left, memory = growth(lambda turn: leancnn.compile(net)(images), times, before=3)
    assert left == (0, 0, 0)
    assert memory < MOST


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_training_three_times_does_not_grow(pictures: Path, tmp_path: Path) -> None:
    short = RECIPE.changed(epochs=1)
    left, memory = growth(
        lambda turn: train(pictures, recipe=short, out=tmp_path / str(turn), progress=False), 3
    )
    assert left == (0, 0, 0)
    assert memory < MOST


def test_what_does_grow_is_seen(tmp_path: Path) -> None:
    """The control: each turn leaves a file open, a thread, a temporary folder and a megabyte."""
    kept: list[object] = []
    end = threading.Event()

    def careless(turn: int) -> None:
        thread = threading.Thread(target=end.wait)
        thread.start()
        kept.append((tmp_path / str(turn)).open("w"))
        kept.extend([thread, tempfile.mkdtemp(), np.ones(1 << 20, np.uint8)])

    try:
        left, memory = growth(careless, 30)
    finally:
        end.set()
        for thing in kept:
            if isinstance(thing, threading.Thread):
                thread = thing
                thread.join()
            elif hasattr(thing, "close"):
                thing.close()
    assert left == (30, 30, 30)
    assert memory > MOST
