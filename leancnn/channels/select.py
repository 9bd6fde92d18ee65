"""Which channels of a channel group stay: the most important, in a number that all splits allow.

A channel group without equal splits keeps its best. With them, or where layers share only some of
their channels, it is an integer program: as many channels as asked, then as much importance as
possible, while the blocks of each equal split keep equal numbers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.channels.dependencies import ChannelGroup, Dependencies, Row
from leancnn.errors import MismatchError

Importance = NDArray[np.float64]
NODES = 20_000  # of branch and bound for one program, no clock: the networks here need one
OPTIMAL, INFEASIBLE = 0, 2  # of the states that `milp` ends in


def best(
    channel_group: ChannelGroup,
    dependencies: Dependencies,
    importance: Importance,
    most: Mapping[str, int],
) -> NDArray[np.bool_]:
    """Of each coupled channel of the channel group, whether it stays.

    `importance` (coupled,): more is better; `most`: how many channels each layer may keep. Where
    that allows no number that the equal splits allow, the smallest such number above it is taken.
    Ties go to the lower channel. Raises `MismatchError` for rules so tangled that the best is not
    found.
    """
    rows = {
        path: _counts(channel_group, dependencies.writes[path]) for path in channel_group.layers
    }
    first = rows[channel_group.layers[0]]
    alike = all(np.array_equal(row, first) for row in rows.values())
    if not channel_group.equal_splits and alike and first.max() == first.min():
        number = max(1, min(most[path] for path in channel_group.layers) // int(first[0]))
        stay = np.zeros(len(channel_group.coupled), bool)
        stay[np.argsort(-importance, kind="stable")[:number]] = True
        return stay
    program = _Program(channel_group, rows, most)
    return program.solve(importance)


def divisible(channel_group: ChannelGroup, dependencies: Dependencies) -> bool:
    """Whether the channel group can lose any channel at all."""
    if not channel_group.equal_splits:
        return len(channel_group.coupled) > 1
    program, row = _free(channel_group, dependencies)
    return program.possible(row, 1, row.sum() - 1)


def legal(channel_group: ChannelGroup, dependencies: Dependencies) -> list[int]:
    """Every number of channels that the channel group's first layer can keep, ascending."""
    program, row = _free(channel_group, dependencies)
    total = int(row.sum())
    if not channel_group.equal_splits:
        return list(range(int(row.min()), total + 1, int(row.min())))
    return [number for number in range(1, total + 1) if program.possible(row, number, number)]


def _free(
    channel_group: ChannelGroup, dependencies: Dependencies
) -> "tuple[_Program, NDArray[np.float64]]":
    """The rules alone, and the first layer's row."""
    rows = {
        path: _counts(channel_group, dependencies.writes[path]) for path in channel_group.layers
    }
    most = {path: int(row.sum()) for path, row in rows.items()}
    return _Program(channel_group, rows, most), rows[channel_group.layers[0]]


def _counts(channel_group: ChannelGroup, row: Row) -> NDArray[np.float64]:
    """How often each coupled channel of the channel group stands in a row."""
    return np.bincount(row, minlength=int(channel_group.coupled[-1]) + 1)[
        channel_group.coupled
    ].astype(float)


class _Program:
    """The rules of a channel group: what `scipy.optimize.milp` is given."""

    def __init__(
        self,
        channel_group: ChannelGroup,
        rows: Mapping[str, NDArray[np.float64]],
        most: Mapping[str, int],
    ) -> None:
        self.name = channel_group.name
        self.number = np.sum([row / row.sum() for row in rows.values()], 0)
        lines, low, high = [], [], []
        for path, row in rows.items():
            lines.append(row)
            low.append(1.0)
            high.append(float(most[path]))
        equal = {
            tuple(_counts(channel_group, block) - _counts(channel_group, equal_split.blocks[0]))
            for equal_split in channel_group.equal_splits
            for block in equal_split.blocks[1:]
        }
        self.equal = np.array([line for line in sorted(equal) if any(line)])
        self.lines, self.low, self.high = np.array(lines), np.array(low), np.array(high)

    def solve(self, importance: Importance) -> NDArray[np.bool_]:
        """As many coupled channels as the rules allow, then the most important."""
        most = self._run(-self.number, self.high)
        if most is None:
            high = np.full(len(self.high), np.inf)
            least = self._run(self.number, high)
            assert least is not None, "a whole channel group respects its own equal splits"
            kept, ceiling = least, high
        else:
            kept, ceiling = most, self.high
        spread = float(np.ptp(importance))
        value = (importance - importance.min()) / spread if spread else np.ones(len(importance))
        value = value + 1e-6 * np.linspace(1, 0, len(value))  # ties: the lower channel
        number = self.number @ kept
        chosen = self._run(-value, ceiling, (self.number, number - 1e-6, number + 1e-6))
        assert chosen is not None, "what was kept is itself an answer"
        return chosen.astype(bool)

    def possible(self, row: NDArray[np.float64], low: int, high: int) -> bool:
        return self._run(np.zeros(len(row)), self.high, (row, low, high)) is not None

    def _run(
        self,
        cost: NDArray[np.float64],
        high: NDArray[np.float64],
        also: tuple[NDArray[np.float64], float, float] | None = None,
    ) -> NDArray[np.float64] | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        rules: list[Any] = [LinearConstraint(self.lines, self.low, high)]
        if len(self.equal):
            rules.append(LinearConstraint(self.equal, 0, 0))
        if also is not None:
            rules.append(LinearConstraint(also[0][None], also[1], also[2]))
        found = milp(
            cost,
            constraints=rules,
            integrality=np.ones(len(cost)),
            bounds=Bounds(0, 1),
            options={"node_limit": NODES, "mip_rel_gap": 0.0},
        )
        if found.status == INFEASIBLE:
            return None
        if found.status != OPTIMAL or found.x is None:
            raise MismatchError(
                f"which channels of {self.name} stay was not found in {NODES:,} nodes of branch "
                f"and bound ({found.message}); leave its channel group out (within) or cut less"
            )
        answer: NDArray[np.float64] = np.round(found.x)
        return answer
