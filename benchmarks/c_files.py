"""Two versions of C files side by side on one core: `c_files.py before/ after/`, file by file.

    python benchmarks/c_files.py --nan squeezenet1_1 nvmnet_g4 mobilenetv2 --rounds 200

takes networks of the zoo instead, before: as if maxima and minima might lose NaN on AVX-512.

Each folder holds what `leancnn export --to c` wrote, by one version of leancnn each. Files of the
same name take turns; the median of the rounds' ratios tells what a change of the compiler costs.
"""

import argparse
import json
import statistics
import sys
import tempfile
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


def write_pairs(networks: list[str], before: Path, after: Path) -> None:
    """The C of networks, and the same whose maxima and minima do not put NaN back."""
    from leancnn.bench import untrained
    from leancnn.targets._c_text import to_c

    for name in networks:
        written = to_c(untrained(name))
        plain = written.source
        for word in ("greater", "lesser"):
            plain = plain.replace(f"return restored(x, {word}(x, y));", f"return {word}(x, y);")
        if plain == written.source:
            sys.exit("the prelude keeps NaN in other words than this script knows")
        for folder, text in ((before, plain), (after, written.source)):
            folder.mkdir(exist_ok=True)
            (folder / f"{written.prefix}.c").write_text(text, encoding="utf-8")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("before", type=Path, nargs="?")
    words.add_argument("after", type=Path, nargs="?")
    words.add_argument("--nan", nargs="+", metavar="NETWORK")
    words.add_argument("--rounds", type=int, default=40)
    given = words.parse_args()
    work = tempfile.TemporaryDirectory()
    if given.nan:
        given.before, given.after = Path(work.name, "before"), Path(work.name, "after")
        write_pairs(given.nan, given.before, given.after)
    elif given.after is None:
        words.error("two folders, or --nan and networks")
    for path in sorted(given.before.glob("*.c")):
        print(json.dumps(compare(path, given.after / path.name, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
