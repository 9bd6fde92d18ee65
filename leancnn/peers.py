"""Processes of one training that watch each other: when one is lost, the others end with one line.

A collective operation waits for a process that died or stopped for as long as its timeout, which
must be long because one process decodes while the others wait. So each process has a thread that
beats in the store they met at, and looks at the beats of the others.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from leancnn.errors import LeanCNNError, RunError
from leancnn.progress import tell

BEAT_S = 1.0
SILENT_S = 25.0  # without a beat, from which on a process is lost
ENDED_S = 5.0  # in which the others follow one that has ended
SLEPT_S = 5.0  # between two looks: then we were the one that stood still
END = "end"
_calls = 0


@contextmanager
def watching(rank: int, size: int, folder: Path) -> Iterator[None]:
    """Watch the other processes meanwhile; alone, nothing happens.

    When one is lost this process ends with status 1, after a line on stderr that names it and the
    command to go on with, which the lowest process of those that are left prints.
    """
    if size == 1:
        yield
        return
    watch = _Watch(rank, size, folder)
    watch.thread.start()
    try:
        yield
    except LeanCNNError:
        raise
    except RuntimeError as error:  # a collective operation lost its other end
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the launcher, meanwhile
        watch.thread.join(SILENT_S + ENDED_S)  # it knows who is lost, and ends this process
        raise RunError(
            f"the processes lost each other ({' '.join(str(error).split())[:120]}); {watch.advice}"
        ) from error
    finally:
        watch.close()


class _Watch:
    """The thread, and what it knows of the others."""

    def __init__(self, rank: int, size: int, folder: Path) -> None:
        global _calls
        _calls += 1
        self.rank, self.others = rank, [other for other in range(size) if other != rank]
        self.own = os.environ.get("LOCAL_WORLD_SIZE", str(size))
        self.advice = (
            f"go on with 'torchrun --nproc-per-node {self.own} -m leancnn train --resume {folder}'"
        )
        self.prefix = f"leancnn/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_calls}"
        self.host, self.parent = socket.gethostname(), os.getppid()
        self.done = threading.Event()
        self.store: Any = None
        self.seen: dict[int, tuple[str, float]] = {}
        self.thread = threading.Thread(target=self._run, daemon=True)

    def close(self) -> None:
        """Say that this process ended as it should, and look no more."""
        self.done.set()
        with suppress(Exception):  # whoever held the store may be gone
            self.store.set(f"{self.prefix}/{self.rank}", END)

    def _run(self) -> None:
        import torch.distributed as dist

        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        patience = timedelta(seconds=SILENT_S)
        beats, looked = 0, time.monotonic()
        while not self.done.wait(BEAT_S):
            now = time.monotonic()
            if now - looked > SLEPT_S:
                self.seen = {rank: (beat, now) for rank, (beat, _) in self.seen.items()}
            looked, beats = now, beats + 1
            try:
                if self.store is None:
                    self.store = dist.TCPStore(*place, None, False, patience)  # type: ignore[attr-defined]
                self.store.set(f"{self.prefix}/{self.rank}", f"{self.host} {os.getpid()} {beats}")
                lost = {rank: why for rank in self.others if (why := self._lost(rank, now))}
            except Exception as error:  # torch's errors of a store share no class
                self._end({}, f"the launcher of these processes is gone ({type(error).__name__})")
                return
            if os.getppid() != self.parent:
                self._end({}, "the launcher of these processes is gone")
            elif lost:
                self._end(lost, "; ".join(lost.values()))

    def _lost(self, rank: int, now: float) -> str:
        """Why a process is lost, or nothing."""
        key = f"{self.prefix}/{rank}"
        beat = self.store.get(key).decode() if self.store.check([key]) else ""
        if rank not in self.seen or self.seen[rank][0] != beat:
            self.seen[rank] = beat, now
        silent = now - self.seen[rank][1]
        if beat == END:
            return f"process {rank} has ended" if silent > ENDED_S else ""
        host, number = [*beat.split(), "", ""][:2]
        named = f"process {rank} ({number} on {host})" if beat else f"process {rank}"
        if host == self.host and not _alive(int(number)):
            return f"{named} has died"
        return f"{named} does not answer for {silent:.0f} s" if silent > SILENT_S else ""

    def _end(self, lost: dict[int, str], why: str) -> None:
        """End this process; of those that are left here one says why."""
        if self.done.is_set():
            return
        left = [rank for rank in (self.rank, *self.others) if rank not in lost]
        speaks = min(left) == self.rank if lost else os.environ.get("LOCAL_RANK", "0") == "0"
        if speaks:
            tell(f"{why}; {self.advice}")
        os._exit(1)


def _alive(process: int) -> bool:
    """Whether a process of this machine runs or is stopped; not one that nobody has buried yet."""
    with suppress(OSError, IndexError):
        about = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return about.rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    return not Path("/proc/self/stat").exists()
