"""Doing something with each of many files, in processes that may die of a file without us.

The processes are plain children that run this file and speak JSON lines: nothing is forked below
running threads, and a script without a `__main__` guard can load data. A file that kills its
process, or takes longer than `LONGEST_S`, is one more unreadable file, and the rest goes on.
A few small files do not pay for processes: they are done in this one, without that shelter.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.data._near_copies import thumbnail
from leancnn.errors import ImageError
from leancnn.preprocess import Preprocessing, decode, file_bytes
from leancnn.progress import Progress

CHUNK = 32  # files a process gets at a time
FEW = 256  # files that do not pay for starting processes ...
LITTLE = 16 << 20  # ... when they are no more than so many bytes
LONGEST_S = 60.0  # for one file

Answer = dict[str, Any]
"""What is known of a file: `error` (why it is unreadable), or what its task found."""


def each(
    task: str,
    setup: dict[str, Any],
    paths: Sequence[str],
    *,
    title: str,
    total_bytes: int,
    processes: int | None = None,
) -> list[Answer]:
    """Do `task` (a name of `TASKS`) with every file; answers in the order of `paths`.

    `setup` is JSON and the same for all.
    """
    count = processes if processes is not None else _processes()
    if count == 0 or (processes is None and len(paths) <= FEW and total_bytes <= LITTLE):
        work = TASKS[task](setup)
        return [_answer(work, row, path) for row, path in enumerate(paths)]
    crew = _Crew(task, setup, paths)
    with Progress(title, total=len(paths), shown=_progress_shown()) as bar:
        return crew.run(min(count, -(-len(paths) // CHUNK)), bar)


def _processes() -> int:
    """`LEANCNN_WORKERS`, or one per core we may use; 0 means in this process."""
    count = os.environ.get("LEANCNN_WORKERS", "")
    return int(count) if count.isdigit() else len(os.sched_getaffinity(0))


def _progress_shown() -> bool:
    return os.environ.get("LEANCNN_PROGRESS", "1") != "0"


# What a process does


def _hash(setup: dict[str, Any]) -> Callable[[int, str], Answer]:
    return lambda row, path: {"sha256": hashlib.sha256(file_bytes(path)).hexdigest()}


def _decode(setup: dict[str, Any]) -> Callable[[int, str], Answer]:
    """Decode into row `row` of the file `out`."""
    preprocessing = Preprocessing.from_json(setup["preprocessing"])
    out = os.open(setup["out"], os.O_WRONLY)
    row_bytes = int(np.prod(preprocessing.shape))

    def work(row: int, path: str) -> Answer:
        data = file_bytes(path)
        answer: Answer = {"sha256": hashlib.sha256(data).hexdigest()}
        try:
            picture = preprocessing.read(data, name=path)
        except ImageError as error:
            return {**answer, "error": _reason(error, path)}
        os.pwrite(out, picture.image.tobytes(), row * row_bytes)
        return {**answer, "warnings": picture.warnings} if picture.warnings else answer

    return work


def _inspect(setup: dict[str, Any]) -> Callable[[int, str], Answer]:
    """Decode at full size and describe; `pixels` is equal for equal pictures, `look` about so."""

    def work(row: int, path: str) -> Answer:
        found = decode(path)
        array = np.asarray(found.image.convert("RGB"))
        shape = repr(array.shape).encode()
        return {
            "look": thumbnail(array),
            "pixels": hashlib.sha256(shape + array.tobytes()).hexdigest(),
            "format": found.format,
            "mode": found.mode,
            "size": list(found.size),
            "warnings": found.warnings,
            "grey": found.image.mode == "L",
        }

    return work


TASKS = {"hash": _hash, "decode": _decode, "inspect": _inspect}


def _answer(work: Callable[[int, str], Answer], row: int, path: str) -> Answer:
    try:
        return work(row, path)
    except ImageError as error:
        return {"error": _reason(error, path)}


def _reason(error: ImageError, path: str) -> str:
    from leancnn.preprocess import shown

    return str(error).removeprefix(f"{shown(path)}: ")


def main() -> None:
    """A process: setup on the first line, then chunks [[row, path], ...]; answers line by line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us by closing stdin
    task, setup = json.loads(sys.stdin.readline())
    work = TASKS[task](setup)
    print("ready", flush=True)
    for line in sys.stdin:
        for row, path in json.loads(line):
            print(json.dumps(_answer(work, row, path)), flush=True)


# Who gives them work


class _Crew:
    """Processes, each with a thread of ours that feeds it and collects its answers."""

    def __init__(self, task: str, setup: dict[str, Any], paths: Sequence[str]) -> None:
        self.first_line = json.dumps([task, setup]) + "\n"
        self.alone = TASKS[task](setup)
        self.paths = paths
        self.answers: list[Answer] = [{} for _ in paths]
        self.next = 0
        self.done = 0
        self.stopped = False
        self.lock = threading.Lock()
        self.deadlines: dict[int, tuple[float, subprocess.Popen[str]]] = {}
        self.late: set[int] = set()  # process ids we killed for taking too long
        self.failure: BaseException | None = None

    def run(self, count: int, bar: Progress) -> list[Answer]:
        threads = [
            threading.Thread(target=self._serve, args=(n,), daemon=True) for n in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.2) if threads[0].is_alive() else time.sleep(0.1)
                bar.to(self.done)
                self._kill_late()
        finally:
            self.stopped = True
            for _, process in list(self.deadlines.values()):
                process.kill()
            for thread in threads:
                thread.join()
        if self.failure is not None:
            raise self.failure
        return self.answers

    def _kill_late(self) -> None:
        for deadline, process in list(self.deadlines.values()):
            if time.monotonic() > deadline and process.poll() is None:
                self.late.add(process.pid)
                process.kill()

    def _take(self) -> list[int]:
        with self.lock:
            rows = list(range(self.next, min(self.next + CHUNK, len(self.paths))))
            self.next += len(rows)
            return rows

    def _serve(self, number: int) -> None:
        process: subprocess.Popen[str] | None = None
        try:
            while (rows := self._take()) and not self.stopped:
                while rows and not self.stopped:
                    process = process or self._start(number)
                    if process is None:  # cannot start: do it here
                        for row in rows:
                            self._keep(row, _answer(self.alone, row, self.paths[row]))
                        break
                    rows = self._feed(number, process, rows)
                    if rows and not self.stopped:  # it died of the first of these
                        process.wait()
                        late = process.pid in self.late
                        reason = (
                            f"took longer than {LONGEST_S:.0f} s" if late else "kills the decoder"
                        )
                        self._keep(rows[0], {"error": f"{reason}; replace or remove it"})
                        self._end(number, process)
                        rows, process = rows[1:], None
        except BaseException as error:
            self.failure = error
            self.stopped = True
        finally:
            self._end(number, process)

    def _start(self, number: int) -> "subprocess.Popen[str] | None":
        home = str(Path(__file__).parents[2])
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
        try:
            process = subprocess.Popen(
                # -P: a json.py that lies among somebody's images is not imported.
                [sys.executable, "-P", "-c", "from leancnn.data._workers import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
        except OSError:
            return None
        self.deadlines[number] = (time.monotonic() + LONGEST_S, process)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(self.first_line)
            process.stdin.flush()
            if process.stdout.readline() == "ready\n":
                return process
        except OSError:
            pass
        self._end(number, process)
        return None

    def _feed(self, number: int, process: "subprocess.Popen[str]", rows: list[int]) -> list[int]:
        """Have `rows` done; returns those that are not, when the process dies."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([[row, self.paths[row]] for row in rows]) + "\n")
            process.stdin.flush()
        except OSError:
            return rows
        for place, row in enumerate(rows):
            self.deadlines[number] = (time.monotonic() + LONGEST_S, process)
            line = process.stdout.readline()
            if not line.endswith("\n"):
                return rows[place:]
            self._keep(row, json.loads(line))
        self.deadlines[number] = (float("inf"), process)
        return []

    def _keep(self, row: int, answer: Answer) -> None:
        self.answers[row] = answer
        with self.lock:
            self.done += 1

    def _end(self, number: int, process: "subprocess.Popen[str] | None") -> None:
        """Let go of a process, whatever its state."""
        self.deadlines.pop(number, None)
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                try:
                    if pipe is not None:
                        pipe.close()
                except OSError:
                    pass
            process.kill()
            process.wait()
