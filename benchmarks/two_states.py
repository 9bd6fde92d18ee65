"""Compiled programs and training steps of two states of this repository, in turns on one core.

    python benchmarks/two_states.py COMMIT                 against what stands here
    python benchmarks/two_states.py COMMIT henet_r3        some networks

A change that moves and renames must leave the clock where it was. Each state works in a process of
its own, from a copy of its own tree; the two take turns, so that what disturbs the core meets both.
`ratio` is the time of here over the time of there, turn by turn: its median and quartiles; above 1
is slower than before. Writes results/two-states.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / "results" / "two-states.json"
COMPILED = [
    "henet_r2",
    "henet_r3",
    "henet_r4",
    "shufflenet_r3",
    "shufflenet_r5",
    "resnet8",
    "resnet20",
    "mobilenetv2",
    "shufflenetv2_x0_5",
    "lbmbnet32_r6",
    "nvmnet_g4",
    "squeezenet1_1",
    "rsenet",
]
TRAINED = ("henet_r3", "shufflenet_r3")
BATCH = 32
TURN = 0.1  # seconds

Work = Callable[[], Any]


def compiled(network: str) -> Work:
    """One call of the compiled network on one image."""
    import numpy as np

    import leancnn
    from leancnn.bench import untrained

    program = leancnn.compile(untrained(network))
    c, h, w = program.shape[:3]
    return program.bare(np.zeros((1, h, w, c), np.uint8))


def trained(network: str) -> Work:
    """One training step, forward, backward and optimizer, in our own kernels."""
    import torch

    from leancnn import models

    try:
        from leancnn.cpu_training import accelerate
    except ImportError:  # as it was called in 0.1
        from leancnn.lanes import accelerate  # type: ignore[import-not-found,no-redef]
    body = models.create_model(network, seed=0).train()
    forward = accelerate(body, threads=1)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(BATCH, *models.card(network).image)
    labels = torch.randint(models.card(network).classes, (BATCH,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward(images), labels).backward()
        optimizer.step()

    return step


def answer_turns(what: str, network: str) -> None:
    """A worker: for each line of standard input, the seconds of a call, median over a turn."""
    work = {"compiled": compiled, "trained": trained}[what](network)
    work()
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds: list[float] = []
        began = time.perf_counter()
        while not seconds or time.perf_counter() - began < TURN:
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        print(statistics.median(seconds), flush=True)


class Worker:
    """A process that works in one state's tree, on core 0 with one thread."""

    def __init__(self, tree: Path, what: str, network: str) -> None:
        words = ["taskset", "-c", "0", sys.executable, "-P", __file__, "--work", what, network]
        place = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            words, env=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self._process.wait()}")
        return line

    def turn(self) -> float:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        self._process.communicate()


def compare(there: Path, what: str, network: str, rounds: int) -> dict[str, Any]:
    """Times of one job in both states; a row of the result."""
    old, new = (Worker(tree, what, network) for tree in (there, REPOSITORY))
    turns = [(old.turn(), new.turn()) for _ in range(rounds + 1)][1:]  # the first warms up
    old.end()
    new.end()
    ratios = [after / before for before, after in turns]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "network": network,
        "what": what,
        "before, us": round(1e6 * statistics.median(before for before, _ in turns), 1),
        "here, us": round(1e6 * statistics.median(after for _, after in turns), 1),
        "ratio": round(middle, 3),
        "quartiles": f"{low:.3f} to {high:.3f}",
    }


def git(*words: str) -> str:
    return subprocess.check_output(("git", "-C", str(REPOSITORY), *words), text=True).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit", nargs="?")
    parser.add_argument("networks", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        answer_turns(*asked.work)
        return
    if not asked.commit:
        parser.error("which commit is it compared with?")
    jobs = [("trained", name) for name in TRAINED] + [("compiled", name) for name in COMPILED]
    jobs = [job for job in jobs if not asked.networks or job[1] in asked.networks]
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "before"
        there.mkdir()
        archive = subprocess.Popen(
            ("git", "-C", str(REPOSITORY), "archive", asked.commit), stdout=subprocess.PIPE
        )
        subprocess.run(("tar", "-x", "-C", str(there)), stdin=archive.stdout, check=True)
        if archive.wait():
            raise SystemExit(f"git knows no commit {asked.commit}")
        rows = []
        for what, name in jobs:
            rows.append(compare(there, what, name, asked.rounds))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    from leancnn.runs import machine, now, write_json

    commit, here = git("rev-parse", "--short", asked.commit), git("rev-parse", "--short", "HEAD")
    write_json(
        RESULT,
        {
            "title": f"Time at {here} over time at {commit}",
            "command": " ".join(["python benchmarks/two_states.py", commit, *asked.networks]),
            "machine": machine(),
            "made": now(),
            "note": f"median of {asked.rounds} turns; training in batches of {BATCH}, one thread",
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
