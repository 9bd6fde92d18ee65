"""What a comparison found: its rows, their means over the seeds, and whether pruning was worth it.

A difference counts from twice its standard error, which is that of the runs and never less than
that of so many test images.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leancnn.tables import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network that was trained, or one that was given."""

    label: str
    kind: str
    """whole, criterion or baseline."""
    seed: int
    before: float | None
    """Accuracy before it was trained again, 0..1; None for a baseline."""
    after: float
    macs: int
    trainable: int
    microseconds: float | None
    epochs: float
    """In all, those of the whole network included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare` found; the same stands in `folder`/comparison.json."""

    folder: str
    goal: Mapping[str, float]
    images: int
    """In the test part."""
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    """Criteria and baselines that this network cannot have, and why."""
    conclusion: str
    picture: str

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, and the means."""
        return {**asdict(self), "means": means(self.rows)}

    def text(self) -> str:
        """The table and the conclusion for people."""
        rows = [
            {key: f"{v:,.2f}" if isinstance(v, float) else v for key, v in row.items()}
            for row in means(self.rows)
        ]
        lines = [table(rows), "", *(f"left out: {why}" for why in self.left_out)]
        where = (
            f"accuracy on {self.images:,} images of the test part, "
            "after the last epoch; whole: as it was cut"
        )
        return "\n".join([*lines, where, self.conclusion, f"picture: {self.picture}"])


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each label: mean and standard deviation over the seeds, percent."""
    lines = []
    for label, found in _groups(rows):
        after = [100 * row.after for row in found]
        before = [100 * row.before for row in found if row.before is not None]
        times = [row.microseconds for row in found if row.microseconds is not None]
        lines.append(
            {
                "network": label,
                "runs": len(found),
                "before %": round(statistics.mean(before), 2) if before else "",
                "after %": round(statistics.mean(after), 2),
                "± %": round(statistics.stdev(after), 2) if len(after) > 1 else "",
                "trainable": found[0].trainable,
                "MACs": found[0].macs,
                "µs": round(statistics.median(times), 1) if times else "",
                "epochs": found[0].epochs,
                "kind": found[0].kind,
            }
        )
    return lines


def conclusion(rows: Sequence[Row], images: int) -> str:
    """Whether the first criterion did better than the rest, in a sentence."""
    groups = dict(_groups(rows))
    names = [label for label, found in groups.items() if found[0].kind == "criterion"]
    if not names:
        return "nothing was pruned"
    mine = groups.pop(names[0])
    sentences = []
    for label, found in groups.items():
        gap = statistics.mean(r.after for r in mine) - statistics.mean(r.after for r in found)
        noise = 2 * math.sqrt(_error(mine, images) ** 2 + _error(found, images) ** 2)
        word = "better than" if gap > noise else "worse than" if gap < -noise else "level with"
        sentences.append(f"{word} {label} ({100 * gap:+.2f} ± {100 * noise:.2f} points)")
    return f"{names[0]} is {', '.join(sentences)}"


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for label in dict.fromkeys(row.label for row in rows):
        yield label, [row for row in rows if row.label == label]


def _error(rows: Sequence[Row], images: int) -> float:
    """The standard error of a mean accuracy, 0..1."""
    share = statistics.mean(row.after for row in rows)
    drawn = math.sqrt(max(share * (1 - share), 0.25 / images) / images)  # the same for all runs
    if len(rows) < 2:
        return drawn
    return max(statistics.stdev(row.after for row in rows) / math.sqrt(len(rows)), drawn)
