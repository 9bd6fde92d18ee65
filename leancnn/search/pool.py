"""Where rungs are trained: processes of this machine, each on a core of its own.

A pool starts jobs and says what became of them; a second kind (`ray_pool`) does so on a cluster.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from leancnn.search.trial import Job, Outcome, outcome

COMMAND = (sys.executable, "-P", "-c", "from leancnn.search.trial import main; main()")
LOOK_S = 0.05
GRACE_S = 60.0  # that a worker has to save before it is killed


class Pool(Protocol):
    """What the driver asks of whoever trains."""

    size: int
    """Jobs at a time."""

    def start(self, job: Job) -> None:
        """Begin a job; there is a place for it."""

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, after at most so many seconds; at once where something has."""

    def quiet(self) -> AbstractContextManager[None]:
        """While this is open nothing of it works where the command runs, which times a program."""

    def stop(self) -> list[Outcome]:
        """Ask all to save and stop; what ended meanwhile."""

    def close(self) -> None:
        """Give back what it holds; it starts nothing more."""


@dataclass(slots=True)
class _Worker:
    job: Job
    process: "subprocess.Popen[bytes]"
    core: int
    log: IO[bytes]


class LocalPool:
    """Processes of this machine, each with one thread on a core of its own.

    `cores` are those it may use; None: all that this process has. A worker that is killed is one
    lost rung; one whose driver is killed saves and ends.
    """

    def __init__(
        self, cores: Sequence[int] | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.cores = sorted(os.sched_getaffinity(0)) if cores is None else list(cores)
        self.size = len(self.cores)
        self._command = list(command)
        self._running: list[_Worker] = []

    def start(self, job: Job) -> None:
        """Begin a job on a core that is free."""
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / "job.json"
        place.write_text(json.dumps(job.to_json()), encoding="utf-8")
        busy = {worker.core for worker in self._running}
        core = next(core for core in self.cores if core not in busy)
        home = str(Path(__file__).parents[2])
        found = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
        one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": found}
        log = (folder / "log.txt").open("ab")
        process = subprocess.Popen(
            [*self._command, str(place), str(core)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **one},
            start_new_session=True,  # Ctrl-C is the driver's, who asks them to save
        )
        self._running.append(_Worker(job, process, core, log))

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, after at most so many seconds."""
        until = time.monotonic() + seconds
        while not (done := self._ended()) and self._running and time.monotonic() < until:
            time.sleep(LOOK_S)
        return done

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Halt all workers for a while.

        What wakes them is a process that waits for this one, to its end at the latest: halted, none
        would hear that its driver was killed.
        """
        halted = [str(worker.process.pid) for worker in self._running]
        if not halted:
            yield
            return
        with subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -s CONT "$@"', "sh", *halted],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the driver's
        ):
            self._signal(signal.SIGSTOP)
            yield

    def _signal(self, number: int) -> None:
        for worker in self._running:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)

    def stop(self) -> list[Outcome]:
        """Ask all to save and stop, and wait for them; what ended meanwhile."""
        self._signal(signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        done: list[Outcome] = []
        while self._running and time.monotonic() < until:
            done += self._ended()
            time.sleep(LOOK_S)
        for worker in self._running:
            worker.process.kill()
            worker.process.wait()
        return [one for one in done + self._ended() if not one.lost]

    def close(self) -> None:
        """Nothing is left to give back once all have stopped."""

    def _ended(self) -> list[Outcome]:
        done = [worker for worker in self._running if worker.process.poll() is not None]
        self._running = [worker for worker in self._running if worker not in done]
        found = []
        for worker in done:
            worker.log.close()
            job = worker.job
            known = outcome(Path(job.folder), job.epochs)
            found.append(known or Outcome(number=job.number, epochs=job.epochs, lost=True))
        return found
