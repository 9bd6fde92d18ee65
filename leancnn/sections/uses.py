"""How often the test part was used: a figure means the less, the more often it was looked at."""

from collections import Counter
from collections.abc import Sequence

from leancnn.records import Record
from leancnn.sections._base import (
    Block,
    Cell,
    Details,
    Options,
    Table,
    Text,
    parts,
    percent,
    section,
)


@section("test-uses", "How often the test part was used", place=35)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each record's uses of it, counted by the images that were seen."""
    return parts(
        [(r.name, _blocks(r)) for r in records if r.is_folder and r.kind in ("run", "network")]
    )


def _blocks(record: Record) -> list[Block]:
    found = record.test_uses()
    if not found:
        return [Text("Never, by this record.", "good")]
    images = Counter(one.get("sha256") for one in found)
    often = "once" if len(found) == 1 else f"{len(found)} times"
    words = f"Used {often}"
    if len(images) > 1:
        words += f", on {len(images)} different sets of images"
    rows: list[list[Cell]] = [
        [
            one.get("when", "–"),
            one.get("which") or "–",
            one.get("data", "–"),
            one["images"],
            percent(one["accuracy"]),
            (one.get("sha256") or "–")[:12],
        ]
        for one in found
    ]
    head = ("when, UTC", "network", "images of", "images", "accuracy", "sha256")
    table = Table("Uses, oldest first", head, rows)
    known = Text(f"{words}.", "warning" if max(images.values()) > 1 else "plain")
    return [known, table if len(found) <= 10 else Details("All of them", [table])]
