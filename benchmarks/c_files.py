"""Two versions of C files side by side on one core: `c_files.py before/ after/`, file by file.

Each folder holds what `leancnn export --to c` wrote, by one version of leancnn each. Files of the
same name take turns; the median of the rounds' ratios tells what a change of the compiler costs.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from leancnn.compiled import CompiledNetwork
from leancnn.toolchain import compile_library

TURN_SECONDS = 0.02
LEAST = 5  # calls of a turn


def once(run, seconds: float) -> float:
    """The least time of a call within so many seconds, in µs of this thread alone: neighbours that
    take the core meanwhile do not count."""
    best, until, calls = float("inf"), time.perf_counter() + seconds, 0
    while calls < LEAST or time.perf_counter() < until:
        before = time.thread_time_ns()
        run()
        best = min(best, time.thread_time_ns() - before)
        calls += 1
    return best / 1000


def compare(before: Path, after: Path, rounds: int) -> dict[str, float | str]:
    """Medians in µs of two files, and of the rounds' ratios after / before with its quartiles."""
    runs = []
    for path in (before, after):
        native = CompiledNetwork(compile_library(path.read_text(encoding="utf-8"), name=path.stem))
        c, h, w = native.shape
        image = np.random.default_rng(0).integers(0, 256, (1, h, w, c)).astype(np.uint8)
        runs.append(native.bare(image))
    times = [[once(run, TURN_SECONDS) for run in runs] for _ in range(rounds)]
    ratios = [new / old for old, new in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    old, new = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "network": before.stem,
        "before_us": round(old, 2),
        "after_us": round(new, 2),
        "ratio": round(middle, 4),
        "quartiles": f"{low:.4f} to {high:.4f}",
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("before", type=Path)
    words.add_argument("after", type=Path)
    words.add_argument("--rounds", type=int, default=40)
    given = words.parse_args()
    for path in sorted(given.before.glob("*.c")):
        print(json.dumps(compare(path, given.after / path.name, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
