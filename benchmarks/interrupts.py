"""Figure 20: Ctrl-C and SIGTERM save and end within 5 s; a second one ends at once.

    python benchmarks/interrupts.py --trials 50

The command line trains in a process group of its own and gets a signal at a random moment, every
other one a SIGTERM. Its status must be 130, no process of its
group and nothing in /dev/shm may stay; resumed, it must end with the weights of the run that nobody
stopped. Of ten more the second Ctrl-C comes half a second after the first, in a step that takes
half a minute. The control hears no signal, as a loop without a handler does: nothing is saved.
Children are forked where torch is imported and has computed nothing, so a trial costs no import.
"""

import argparse
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import at_most, publish

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402 - it lies beside the tests
from kill_training import result  # noqa: E402

from leancnn import cli  # noqa: E402
from leancnn.recipes._base import recipes  # noqa: E402

EPOCHS = 12
SLOW = Path(tempfile.gettempdir(), f"slow-step-{os.getpid()}")  # there once it has begun
LIMIT_S = 5.0


class Started:
    """The command line in a process group of its own, forked where torch is imported already."""

    def __init__(self, words: list[str], output: Path, before: Callable[[], None]) -> None:
        self._output = output
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, 1)
                os.dup2(file, 2)
                torch.set_num_threads(1)
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
                before()
                status = cli.main(words)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            except BaseException:  # what no handler took: the child must not go on as its parent
                os._exit(99)

    def poll(self) -> int | None:
        """Its status if it has ended; below 0 the signal that ended it."""
        if self.status is None:
            gone, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if gone else None
        return self.status

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.002)
        return self.status or 0

    def output(self) -> list[str]:
        """The last line of what it printed."""
        return self._output.read_text(encoding="utf-8").strip().splitlines()[-1:]


def as_it_is() -> None:
    """Nothing is changed before the command."""


def deaf() -> None:
    """Signals keep their usual meaning: whatever handler is asked for is not set."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal = lambda number, handler: None


def slow() -> None:
    """A step that takes half a minute, so that the first Ctrl-C has to wait for its end."""
    features = tiny.Tiny.features
    calls = itertools.count()

    def late(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        if next(calls) > 30:
            SLOW.touch()
            time.sleep(30)
        return features(self, x)

    tiny.Tiny.features = late


def training(run: Path) -> bool:
    """Whether its first checkpoint stands."""
    return any((run / "checkpoints").glob("step-*.json"))


def group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def shared() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def trial(
    words: list[str], run: Path, sign: int, wait: float, before: Callable[[], None] = as_it_is
) -> dict[str, Any] | None:
    """Start, signal, and what came of it; None if the run had ended before."""
    shared_before = shared()
    child = Started(words, run.with_suffix(".output"), before)
    while not training(run) and child.poll() is None:
        time.sleep(0.002)
    time.sleep(wait)
    if child.poll() is not None:
        return None
    sent = time.monotonic()
    os.kill(child.pid, sign)
    status = child.wait()
    return {
        "seconds": time.monotonic() - sent,
        "status": status,
        "output": child.output(),
        "left": group_lives(child.pid) or bool(shared() - shared_before),
    }


def stopped(place: Path, train: list[str], trials: int) -> tuple[list[float], list[str], int]:
    """Seconds from the signal to the end of each trial, what was wrong with which, and how many did
    not name --resume: a signal behind the last step finds nothing to go on with.
    """
    silent = 0
    dice = random.Random(5)
    began = time.monotonic()
    assert Started([*train, str(place / "quiet")], place / "quiet.output", as_it_is).wait() == 0
    length = time.monotonic() - began
    expected = result(place / "quiet")
    seconds: list[float] = []
    reasons: list[str] = []
    for number in itertools.count():
        if len(seconds) == trials:
            return seconds, reasons, silent
        run = place / f"run {number}"
        sign = signal.SIGTERM if number % 2 else signal.SIGINT
        found = trial([*train, str(run)], run, sign, dice.uniform(0, length / 2))
        if found is None:
            continue  # it had ended before
        seconds.append(found["seconds"])
        silent += "--resume" not in str(found["output"])
        if found["status"] != 130 or found["left"] or found["seconds"] > LIMIT_S:
            reasons.append(f"{run.name}: {found}")
            continue
        words = ["train", "--resume", str(run), "--quiet"]
        if Started(words, run.with_suffix(".output"), as_it_is).wait() or result(run) != expected:
            reasons.append(f"{run.name}: resumed otherwise")
    raise AssertionError


def twice(place: Path, train: list[str], trials: int) -> list[tuple[bool, float, int]]:
    """Of a second Ctrl-C: whether the first was still waiting, seconds to the end, the status."""
    found = []
    for number in range(trials):
        run = place / f"twice {number}"
        child = Started([*train, str(run)], place / "twice.output", slow)
        while not SLOW.exists():
            time.sleep(0.002)
        SLOW.unlink()
        os.kill(child.pid, signal.SIGINT)
        time.sleep(0.5)
        waited = child.poll() is None
        sent = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGINT)
        found.append((waited, 0.0, child.wait()))
        found[-1] = (waited, time.monotonic() - sent, found[-1][2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    args = parser.parse_args()
    recipes["tiny"] = tiny.RECIPE.changed(epochs=EPOCHS)
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        data = tiny.make_pictures(place / "pictures")
        train = ["train", str(data), "--recipe", "tiny", "--quiet", "--out"]
        seconds, reasons, silent = stopped(place, train, args.trials)
        again = twice(place, train, 10)
        late = [each for each in again if not each[0] or each[1] > 1.0 or each[2] == 0]
        lost = 0
        for number in range(5):
            run = place / f"deaf {number}"
            found = trial([*train, str(run)], run, signal.SIGTERM, 0.1, deaf)
            lost += found is not None and found["status"] != 130
    rows = [
        {
            "what": "signals at random moments: saved, ended within 5 s, resumed to the same bits",
            "trials": len(seconds),
            "failed": len(reasons),
            "at most (95 %)": at_most(len(reasons), len(seconds)),
        },
        {
            "what": "a second Ctrl-C while the first waits for the end of a step: ended within 1 s",
            "trials": len(again),
            "failed": len(late),
            "at most (95 %)": at_most(len(late), len(again)),
        },
        {"what": "control: no handler", "trials": 5, "failed": lost, "at most (95 %)": ""},
    ]
    seconds.sort()
    publish(
        20,
        "Ctrl-C and SIGTERM",
        rows,
        note=f"from the signal to the end: median {seconds[len(seconds) // 2]:.2f} s, slowest "
        f"{seconds[-1]:.2f} s; {silent} came behind the last step and were only told of it; "
        f"after the second, slowest {max(each[1] for each in again):.2f} s; no "
        "process of the group and nothing in /dev/shm may stay",
        reasons=reasons,
        twice=[list(each) for each in again],
    )
    sys.exit(bool(reasons or late) or not lost)


if __name__ == "__main__":
    main()
