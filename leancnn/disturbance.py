"""Signs that a core did other work, or changed its speed, while programs were timed on it.

Three of them: the calls of one program differ by more than its own work does; the hypervisor gave
the core to another guest; a loop whose cycles are always the same took longer than before. Each is
a sentence with its figure, so that a reader can judge; with one of them no engine is called the
winner.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

FAR = 1.5  # times the median: where the 95th percentile of calls is a disturbance; quiet: 1.03-1.3
SLOWER = 1.15  # times its fastest round: where the loop's core has changed its frequency
STOLEN = 0.01  # of the time, by the hypervisor
STEAL = 8  # column of /proc/stat behind the core's name, counted from 1

Turns = Sequence[Sequence[float]]
"""Seconds of each call, turn by turn."""


def read_steal(core: int, stat: Path = Path("/proc/stat")) -> tuple[int, int] | None:
    """Ticks that the hypervisor took from a core, and all ticks, since start; None if unknown."""
    try:
        lines = stat.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    for line in lines:
        name, *ticks = line.split()
        if name == f"cpu{core}" and len(ticks) >= STEAL:
            # guest time, behind steal, is counted in user time already
            return int(ticks[STEAL - 1]), sum(map(int, ticks[:STEAL]))
    return None


def stolen_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float:
    """Of the time between two answers of `read_steal`; 0 where it is unknown."""
    if before is None or after is None or after[1] <= before[1]:
        return 0.0
    return (after[0] - before[0]) / (after[1] - before[1])


def disturbances(
    programs: Mapping[str, Turns], loop: Turns = (), stolen: float = 0.0
) -> tuple[str, ...]:
    """What shows that the timed calls of `programs` were disturbed; empty for a quiet core.

    `loop` holds the calls of a loop of fixed cycles that had a turn in each round.
    """
    return tuple(_signs(programs, loop, stolen))


def _signs(programs: Mapping[str, Turns], loop: Turns, stolen: float) -> Iterator[str]:
    for name, turns in programs.items():
        calls = np.concatenate([np.asarray(turn) for turn in turns])
        far = float(np.percentile(calls, 95) / np.median(calls))
        if far > FAR:
            yield f"the 95th percentile of {name} is {far:.2f} times its median"
    if loop:
        fastest = [min(turn) for turn in loop]
        slower = max(fastest) / min(fastest)
        if slower > SLOWER:
            yield f"the core's frequency fell: the same loop took {slower:.2f} times its best round"
    if stolen > STOLEN:
        yield f"the hypervisor gave {stolen:.1%} of the core to others"
