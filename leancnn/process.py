"""The process a run lives in: memory that is kept or counted, and signals that are heard."""

import contextlib
import ctypes
import platform
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self


def keep_pages() -> bool:
    """Let glibc keep the memory of freed tensors instead of handing it back; True where it does.

    Half of the time of a training step on a CPU can be the kernel clearing pages for large tensors.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim, top_pad, most_maps = -1, -2, -4  # malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((most_maps, 0), (trim, 2**31 - 1), (top_pad, 64 << 20))
    done = [mallopt(key, value) == 1 for key, value in settings]
    return all(done)


@contextlib.contextmanager
def kept_pages() -> Iterator[None]:
    """`keep_pages` for a while; then memory goes back to the system as it usually does."""
    kept = keep_pages()
    try:
        yield
    finally:
        if kept:
            libc = ctypes.CDLL(None)
            for key, value in ((-4, 65_536), (-1, 128 << 10), (-2, 0)):  # glibc's own
                libc.mallopt(key, value)
            libc.malloc_trim(0)


@contextlib.contextmanager
def kept_threads() -> Iterator[None]:
    """Give torch its thread count back at the end, whatever was set in between."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that this process can still take; None where Linux does not tell."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found.append(1024 * int(text.split("MemAvailable:")[1].split()[0]))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: there is no limit
        most, used = (CONTROL_GROUP / f"memory.{word}" for word in ("max", "current"))
        found.append(max(0, int(most.read_text()) - int(used.read_text()) + _cached()))
    return min(found, default=None)


def _cached() -> int:
    """Bytes of files that the control group holds in memory and gives back when it is short."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (CONTROL_GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        counts = dict(line.split() for line in lines)
        return int(counts["inactive_file"]) + int(counts["active_file"])
    return 0


class Memory:
    """How much memory this process has taken since this was made: pages it really holds.

    Not `getrusage`: Linux hands its maximum on from a process to those it starts.
    """

    STATUS = Path("/proc/self/status")

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the most held is what is held now
        self._before = self._held("VmRSS")

    def most_mb(self) -> float | None:
        """The most above what was held at the start, 10^6 bytes; None where Linux does not tell."""
        most = self._held("VmHWM")
        if most is None or self._before is None:
            return None
        return max(0, most - self._before) / 1e6

    def _held(self, key: str) -> int | None:
        try:
            lines = self.STATUS.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        kilobytes = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
        return 1024 * int(kilobytes[0]) if kilobytes else None


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unwinds a command as Ctrl-C does."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let the first SIGTERM end a command as Ctrl-C does, so that it leaves nothing behind.

    It raises `Terminated`. The second ends the process at once.
    """
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Stop:
    """The first Ctrl-C or SIGTERM asks the loop to save and stop; the second ends at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)


def die_with_parent() -> None:
    """Have Linux send this process SIGTERM when the one that started it is gone."""
    if platform.system() == "Linux":
        set_parent_death_signal = 1  # sys/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM), 0, 0, 0)
