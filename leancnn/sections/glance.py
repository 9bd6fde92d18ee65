"""The figures of every network beside each other: what somebody wants who reads one table."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.intervals import wilson
from leancnn.records import Record
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Options,
    Table,
    Text,
    bytes_text,
    percent,
    section,
)

HEAD = (
    "",
    "network",
    "test accuracy",
    "95 % interval",
    "validation",
    "weights",
    "size",
    "test uses",
)


@section("glance", "At a glance", place=0)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """A row for each run and saved network."""
    networks = [record for record in records if record.kind in ("run", "network")]
    if not networks:
        return []
    blocks: list[Block] = [Table("The networks", HEAD, [_row(record) for record in networks])]
    if len(networks) > 1:
        blocks.append(
            Text(
                "Accuracies whose intervals overlap do not tell two networks apart. Those of "
                "networks that were chosen by this very table are too high."
            )
        )
    return blocks


def _row(record: Record) -> list[Cell]:
    saved = record.saved()
    manifest: Mapping[str, Any] = {} if saved is None else saved[1]
    name = manifest.get("name") or record.value.get("plan", {}).get("model", "–")
    known, interval = tested(record)
    made = manifest.get("made", {})
    validation = made.get("val_accuracy")
    counts = manifest.get("counts", {})
    size = manifest["file"]["bytes"] if manifest else None
    words = f"{name}, 8-bit integers" if "quantized" in manifest else name
    trainable = counts.get("trainable") or counts.get("stored")
    return [
        record.name,
        words,
        known,
        interval,
        "–" if validation is None else percent(validation),
        "–" if trainable is None else f"{trainable:,}",
        "–" if size is None else bytes_text(size),
        len(record.test_uses()),
    ]


def tested(record: Record) -> tuple[Cell, str]:
    """The test accuracy of a record as a cell, and its interval; dashes without one."""
    found = record.evaluations()
    if found:
        _, one = found[0]
        share, low, high = one["accuracy"], one["low"], one["high"]
    elif uses := record.test_uses():
        last = uses[-1]
        share = last["accuracy"]
        low, high = wilson(round(share * last["images"]), last["images"])
    else:
        return "–", "–"
    return Bar(percent(share), share, low, high), f"{percent(low)} to {percent(high)}"
