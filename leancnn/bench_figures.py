"""The figures of engines side by side: rows, who won, and why nobody did."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from leancnn.errors import MismatchError
from leancnn.timing import Ratio, times_faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine on one network."""

    model: str
    engine: str
    rounds_us: tuple[float, ...]
    """The median of each turn, in the order of the rounds."""
    p95_us: float
    """Of all calls."""
    share_of_peak: float | None
    """Multiply-accumulates a second over those of the loop's turn beside it; the median round."""
    macs: int
    """0: not known."""
    peak_mb: float | None
    """Most memory that the engine and its network took, in a process that held PyTorch before."""
    artifact_bytes: int
    startup_s: float
    """From nothing to the first answer, the interpreter's own start left out."""
    difference: float
    """Largest difference of logits from PyTorch's, relative to their scale."""
    agreement: float | None = None
    """Share of images of which PyTorch names the same class; None where floats have to agree."""
    accuracy: float | None = None
    """On the same images, of the validation part; None where they are not at hand."""
    disturbed: tuple[str, ...] = ()
    """What shows that the core did other work while the network's engines were timed."""

    @property
    def median_us(self) -> float:
        return float(np.median(self.rounds_us))

    @property
    def low_us(self) -> float:
        """The lower quartile of the rounds, as `high_us` the upper: overlap means no winner."""
        return float(np.percentile(self.rounds_us, 25))

    @property
    def high_us(self) -> float:
        return float(np.percentile(self.rounds_us, 75))

    def times_faster(self, other: "Row") -> Ratio:
        """How often this answers while `other`, of the same rounds, answers once.

        The median round and the quartiles around it. Raises `MismatchError` for other rounds.
        """
        if len(self.rounds_us) != len(other.rounds_us):
            raise MismatchError(
                f"{self.engine} has {len(self.rounds_us)} rounds, {other.engine} "
                f"{len(other.rounds_us)}: only turns of the same rounds are compared"
            )
        return times_faster(self.rounds_us, other.rounds_us)


@dataclass(frozen=True, slots=True)
class Missing:
    """An engine that was not timed on a network, and why."""

    model: str
    engine: str
    reason: str
    not_installed: bool = False

    def __str__(self) -> str:
        return f"{self.model} on {self.engine}: {self.reason}"


def rivals(rows: Sequence[Row]) -> list[Row]:
    """Of one network: the row of the least median, and those whose interval overlaps its own."""
    if not rows:
        return []
    first, *others = sorted(rows, key=lambda row: row.median_us)
    return [first, *(row for row in others if row.low_us <= first.high_us)]


def winner(rows: Sequence[Row]) -> str | None:
    """The fastest engine of one network; None when its interval overlaps another's, or when the
    core was disturbed meanwhile.
    """
    found = rivals(rows)
    if len(found) != 1 or any(row.disturbed for row in rows):
        return None
    return found[0].engine


def summary(rows: Sequence[Row]) -> str:
    """What `winner` finds of one network, as a sentence with the reason."""
    if signs := list(dict.fromkeys(sign for row in rows for sign in row.disturbed)):
        return f"no winner, the core was disturbed: {'; '.join(signs)}"
    if len(found := rivals(rows)) > 1:
        return f"no winner, intervals overlap: {', '.join(row.engine for row in found)}"
    return found[0].engine


def to_json(rows: Sequence[Row], missing: Sequence[Missing]) -> dict[str, Any]:
    """All rows, the winner of each network or null and why, and what is missing."""
    names = list(dict.fromkeys(row.model for row in rows))
    return {
        "rows": [
            {
                "median_us": row.median_us,
                "low_us": row.low_us,
                "high_us": row.high_us,
                **asdict(row),
            }
            for row in rows
        ],
        "winners": {name: winner([r for r in rows if r.model == name]) for name in names},
        "summaries": {name: summary([r for r in rows if r.model == name]) for name in names},
        "missing": [asdict(each) for each in missing],
    }
