"""Figure 7: odd image files are used rightly, or refused by name; none crashes or hangs.

    python benchmarks/odd_images.py --files 2000

Each file is read in a process of its own with a limit of time and memory, so that a crash of a C
library is counted. Its truth is known (tests/oddities.py). Then all of them stand in class folders:
`leancnn check` must name exactly those that cannot be used and end with 1. The control is what
anyone would write, `Image.open(path).convert("RGB")` with every exception caught.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import at_most, publish
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from oddities import Odd, judge, odd_files  # noqa: E402 - it lies beside the tests

from leancnn.check import check  # noqa: E402
from leancnn.decode import decode  # noqa: E402
from leancnn.errors import ImageError  # noqa: E402

SLOWEST_S, MOST_BYTES = 20, 3 << 30
VERDICTS = ("right", "refused", "damaged", "crashed")
Reader = Callable[[Path], "np.ndarray[Any, Any]"]


def ours(path: Path) -> "np.ndarray[Any, Any]":
    return np.asarray(decode(path).image.convert("RGB"))


def naive(path: Path) -> "np.ndarray[Any, Any]":
    """What anyone would write, with every exception caught."""
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except Exception as error:
        raise ImageError(str(error)) from error


def in_own_process(reader: Reader, case: Odd) -> str:
    """The verdict of a process of its own; "crashed" also where it dies, "hung" after 20 s."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(VERDICTS.index(judge(reader, case)))
    end = time.monotonic() + SLOWEST_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hung"
        time.sleep(0.001)
    code = os.waitstatus_to_exitcode(ended[1])
    return VERDICTS[code] if 0 <= code < len(VERDICTS) else "crashed"


def listed(cases: list[Odd], folder: Path) -> list[str]:
    """The files about which `check` is wrong: a sound one called unreadable, or a bad one not."""
    for number, case in enumerate(cases):
        place = folder / "train" / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        case.path.rename(place / f"{number} {case.path.name}")
    report = check(folder)
    named = {name for one in report.problems if one.kind == "unreadable" for name in one.files}
    bad = {
        f"train/class {number % 2}/{number} {case.path.name}"
        for number, case in enumerate(cases)
        if case.pixels is None and case.kind != "folder"  # a folder below a class is another thing
    }
    return sorted(named ^ bad) + ([] if not report.ok else ["check says go"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "files")
        folder.mkdir()
        cases: list[Odd] = []
        for case in odd_files(folder, 10**6):
            cases.append(case)
            if len(cases) == args.files:
                break
        verdicts = [(case, in_own_process(ours, case)) for case in cases]
        wrong = [
            (case, found)
            for case, found in verdicts
            if found != ("right" if case.pixels is not None else "refused")
        ]
        control = Counter(in_own_process(naive, case) for case in cases)
        unlisted = listed(cases, Path(work, "data"))
    counts = Counter(found for _, found in verdicts)
    kinds = sorted({case.kind for case in cases})
    rows = [
        {
            "what": f"odd files of {len(kinds)} kinds: used rightly, or refused with a reason",
            "trials": len(cases),
            "failed": len(wrong),
            "at most (95 %)": at_most(len(wrong), len(cases)),
        },
        {
            "what": "the same files in class folders: check names those it cannot use",
            "trials": len(cases),
            "failed": len(unlisted),
            "at most (95 %)": at_most(len(unlisted), len(cases)),
        },
        {
            "what": 'control: Image.open(path).convert("RGB")',
            "trials": len(cases),
            "failed": sum(control[key] for key in ("damaged", "crashed", "hung")),
            "at most (95 %)": "",
        },
    ]
    publish(
        7,
        "odd image files",
        rows,
        note=f"{counts['right']:,} used, {counts['refused']:,} refused; of the control "
        f"{control['damaged']:,} silently damaged, {control['crashed'] + control['hung']:,} "
        f"crashed or hung; a process for each file, {SLOWEST_S} s and {MOST_BYTES >> 30} GB",
        kinds=kinds,
        wrong=[f"{case.kind}: {found}" for case, found in wrong],
        unlisted=unlisted,
        control=dict(control),
    )
    sys.exit(bool(wrong or unlisted) or not control["damaged"])


if __name__ == "__main__":
    main()
