"""Memory that is kept, signals that are heard."""

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leancnn import process
from leancnn.process import Memory, Stop, free_memory, keep_pages, kept_pages


def test_the_second_ctrl_c_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.skipif(not Memory.STATUS.exists(), reason="needs Linux")
def test_memory_is_what_was_taken_since_and_not_what_the_parent_held() -> None:
    ours = bytearray(b"x" * 100_000_000)
    script = """
from leancnn.process import Memory
memory = Memory()
print(memory.most_mb())
taken = bytearray(b"x" * 50_000_000)
print(memory.most_mb())
"""
    words = [sys.executable, "-c", script]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    before, after = map(float, told)
    assert before < 5
    assert 45 < after - before < 110  # the bytes, and while they are copied twice that
    assert len(ours) == 100_000_000


def test_pages_are_kept_on_glibc_and_nothing_happens_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert keep_pages() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keep_pages() is False


def test_pages_are_kept_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, key: int, value: int) -> int:
            settings.append((key, value))
            return 1

        def malloc_trim(self, pad: int) -> int:
            settings.append((0, pad))
            return 1

    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr("ctypes.CDLL", lambda name: Libc())
    with kept_pages():
        kept = dict(settings)
    given_back = dict(settings[3:])
    assert given_back.keys() == {*kept, 0}
    assert all(given_back[key] != kept[key] for key in kept)


@pytest.mark.skipif(not Memory.STATUS.exists(), reason="needs Linux")
def test_free_memory_is_no_more_than_the_control_group_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CONTROL_GROUP", tmp_path)
    whole = free_memory()
    assert whole is not None
    assert whole > 10**7
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (free_memory() or 0) > 10**7
    (tmp_path / "memory.max").write_text("9000\n")
    assert free_memory() == 5000
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 2000\nactive_file 500\n")
    assert free_memory() == 7500  # files are let go of
