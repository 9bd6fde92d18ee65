"""An engine in a process of its own on one core, which answers, and times itself when it is asked.

A process of its own has one thread, one core, and no other engine's libraries or memory.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn.errors import LeanCNNError, MissingDependencyError
from leancnn.precisions import precisions
from leancnn.process import Memory
from leancnn.targets import targets
from leancnn.timing import turn

WARM_UP = 3  # calls before each turn, for caches that another engine has filled


class Worker:
    """A process that holds one engine. Raises what the engine raised while it was loaded."""

    def __init__(self, target: str, artifact: Path, images: Path, core: int) -> None:
        home = str(Path(__file__).parents[1])
        found = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = found
        self._process = subprocess.Popen(
            # -P: what lies in the current folder is not imported.
            [
                sys.executable,
                "-P",
                "-m",
                "leancnn.timed_worker",
                target,
                artifact,
                images,
                str(core),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._memory: float | None = None
        answer = self._read()
        if "error" in answer:
            self.close()
            missing = answer.get("kind") == "MissingDependencyError"
            raise (MissingDependencyError if missing else LeanCNNError)(answer["error"])
        self.logits: list[list[float]] = answer["logits"]
        self.probabilities: list[list[float]] | None = answer["probabilities"]
        self.startup: float = answer["startup"]
        self.macs: int = answer["macs"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return {"error": f"its process ended with status {self._process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def time(self, seconds: float) -> list[float]:
        """Seconds of each call of one turn, after a short warm-up."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: what is read says how
            print(seconds, file=self._process.stdin, flush=True)
        answer = self._read()
        if "error" in answer:
            raise LeanCNNError(f"while it was timed, {answer['error']}")
        self._memory = answer["memory"]
        times: list[float] = answer["times"]
        return times

    def close(self) -> float | None:
        """End the process; the most memory its engine took, in MB."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        return self._memory


def _work(target: str, artifact: str, images: str, core: str) -> None:
    """What the process does: load, answer, then time as often as it is asked to."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines print what they like elsewhere
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    torch.set_num_threads(1)
    given = np.load(images)
    memory = Memory()
    start = time.perf_counter()
    try:
        if target == "peak":
            from leancnn.compiler.peak import Peak

            peak = Peak()
            run: Any = peak
            logits, macs, shares = [[0.0]], peak.macs, None
        else:
            loaded = (precisions.get(target) or targets[target]).load(Path(artifact))
            run = loaded.prepare(given[1:2])
            run()
            logits, macs = loaded.logits(given).tolist(), 0
            entry = loaded.entry(given)
            shares = None if entry is None else entry.tolist()
    except Exception as error:
        kind = type(error).__name__
        print(json.dumps({"error": f"{kind}: {error}", "kind": kind}), file=answers, flush=True)
        return
    startup = time.perf_counter() - start
    ready = {"logits": logits, "probabilities": shares, "startup": startup, "macs": macs}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        times = turn(run, float(line), warm_up=WARM_UP)
        print(json.dumps({"times": times, "memory": memory.most_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    _work(*sys.argv[1:])
