"""How often networks answer correctly, how sure that is, what they confuse, and pictures of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancnn import manifests
from leancnn.errors import DamagedError
from leancnn.intervals import wilson
from leancnn.records import Record
from leancnn.safe_files import load_pair, read_bytes
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Chart,
    Columns,
    Details,
    Gallery,
    Matrix,
    Missing,
    Options,
    Picture,
    Table,
    Text,
    command,
    parts,
    percent,
    section,
)
from leancnn.sections._pictures import data_address, mask_of_shares, png_address
from leancnn.svg import Series, interval_chart

MOST_CELLS = 20  # classes whose confusion matrix is a table
MOST_PAIRS = 8
MOST_PNG = 4_000_000  # bytes of a picture that an older version drew


@section("accuracy", "Accuracy", place=30)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """All accuracies on one scale, then each record's own."""
    blocks = _together(records)
    return blocks + parts(
        [(record.name, _blocks(record, options)) for record in records if _measured(record)]
    )


def _measured(record: Record) -> bool:
    return record.kind in ("run", "network", "evaluation")


def _together(records: Sequence[Record]) -> list[Block]:
    """A chart when there are several accuracies."""
    found = [
        (f"{record.name} {one['which']}".strip(), one)
        for record in records
        for _, one in (record.evaluations() if _measured(record) else [])
    ]
    if len(found) < 2:
        return []
    series = Series(
        "accuracy",
        [100 * one["accuracy"] for _, one in found],
        list(range(len(found))),
        [
            (100 * (one["accuracy"] - one["low"]), 100 * (one["high"] - one["accuracy"]))
            for _, one in found
        ],
    )
    caption = "Test accuracy, % correct, with 95 % intervals"
    names = [name for name, _ in found]
    rows: list[list[Cell]] = [[name, *_figures(one)] for name, one in found]
    table = Table("Test accuracies", ("", "accuracy", "from", "to", "images"), rows)
    chart = Chart(interval_chart(caption, names, [series], "accuracy, %"), caption)
    return [chart, Details("The same as numbers", [table])]


def _figures(one: Mapping[str, Any]) -> list[Cell]:
    return [*(percent(one[key]) for key in ("accuracy", "low", "high")), one["images"]]


def _blocks(record: Record, options: Options) -> list[Block]:
    found = record.evaluations()
    blocks: list[Block] = []
    if not found:
        return _without(record, options)
    rows: list[list[Cell]] = [
        [
            one["which"] or "the network",
            Bar(percent(one["accuracy"]), one["accuracy"], one["low"], one["high"]),
            f"{percent(one['low'])} to {percent(one['high'])}",
            f"{one['correct']:,} of {one['images']:,}",
            f"{one['loss']:.4f}",
            one["data"],
        ]
        for _, one in found
    ]
    head = ("network", "accuracy", "95 % interval", "correct", "loss", "on the test part of")
    blocks.append(Table("Accuracy on test images", head, rows))
    for place, (path, one) in enumerate(found):
        own: list[Block] = [Text(doubt, "warning") for doubt in doubts(one)]
        own += [*_confusion(one), *_pictures(path, one, options), _per_class(one)]
        title = f"What {one['which'] or 'the network'} confuses on {one['data']}"
        blocks += own if place == 0 else [Details(title, own)]
    return blocks


def doubts(one: Mapping[str, Any]) -> list[str]:
    """What a reader of the accuracy should know beside it."""
    found = []
    if (uses := one.get("uses")) and uses > 1:
        found.append(
            f"It was use {uses} of these test images by this run; a network that was chosen by "
            "earlier ones looks better than it is."
        )
    if one["changed"]:
        found.append("The test images were not those of an earlier use of the same place.")
    if one["recut"]:
        found.append(
            "The folder had other files than when the run began, and no test part of its own: "
            "images that were trained on may be among those tested."
        )
    if copies := one.get("copies"):
        found.append(
            f"{len(copies):,} test images are copies of training images, such as {copies[0]}: the "
            "accuracy is too high."
        )
    if one["skipped"]:
        found.append(f"{one['skipped']:,} unreadable test files were left out.")
    if one.get("unfinished"):
        found.append(str(one["unfinished"]))
    return found


def _confusion(one: Mapping[str, Any]) -> list[Block]:
    names, counts = [each["name"] for each in one["classes"]], one["confusion"]
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        raise DamagedError(f"an evaluation of {one['network']} has a confusion matrix without form")
    blocks: list[Block] = []
    if len(names) <= MOST_CELLS:
        blocks.append(
            Matrix("Confusion matrix: true classes in rows, answers in columns", names, counts)
        )
    else:
        alt = f"Confusion matrix of {len(names)} classes; the pairs confused most stand below"
        text = "true classes from top to bottom, answers from left to right"
        blocks.append(Picture(mask_of_shares(counts), alt, text, mask=True))
    pairs = confused(names, counts)
    if not pairs:
        return [*blocks, Text("No class was taken for another.", "good")]
    rows: list[list[Cell]] = [
        [true, answer, f"{wrong:,} of {of:,}", Bar(percent(wrong / of), wrong / of)]
        for true, answer, wrong, of in pairs[:MOST_PAIRS]
    ]
    table = Table("Confused most", ("is", "was called", "images", "share"), rows, (0, 1))
    return [Columns([*blocks, table])]


def confused(
    names: Sequence[str], counts: Sequence[Sequence[int]]
) -> list[tuple[str, str, int, int]]:
    """(true, answer, images, of so many) of every pair that was confused, most images first."""
    found = [
        (names[row], names[column], count, sum(counts[row]))
        for row in range(len(names))
        for column, count in enumerate(counts[row])
        if count and row != column
    ]
    return sorted(found, key=lambda pair: -pair[2])


def _per_class(one: Mapping[str, Any]) -> Block:
    rows: list[list[Cell]] = [
        [
            each["name"],
            each["images"],
            *(
                "–" if each[key] is None else Bar(percent(each[key]), each[key])
                for key in ("precision", "recall", "f1")
            ),
        ]
        for each in one["classes"]
    ]
    head = ("class", "images", "precision", "recall", "F1")
    return Details("Precision, recall and F1 of each class", [Table("Classes", head, rows)])


def _pictures(path: Path, one: Mapping[str, Any], options: Options) -> list[Block]:
    """The surest mistakes of each pair, where the evaluation kept them and they are wanted."""
    known = one.get("pictures", [])
    if not known or not options.pictures or not path.with_suffix(".safetensors").exists():
        return []
    images = load_pair(path, path.with_suffix(".safetensors"), manifests.Pair)[1].get("pictures")
    if images is None or images.ndim != 4 or len(images) != len(known) or images.dtype != "uint8":
        raise DamagedError(f"{path}: its pictures are not those it names; evaluate again")
    taken = options.take(len(known))
    often = Counter((each["true"], each["answer"]) for each in known[:taken])
    galleries = [
        Gallery(
            f"is {true}, was called {answer}",
            [
                Picture(
                    data_address(image),
                    f"{each['file']}: is {each['true']}, was called {each['answer']}",
                    f"{each['probability']:.0%} sure",
                )
                for image, each in zip(images, known[:taken], strict=False)
                if (each["true"], each["answer"]) == (true, answer)
            ],
        )
        for true, answer in often
    ]
    return [Columns(galleries)]


def _without(record: Record, options: Options) -> list[Block]:
    """What stands there when no evaluation does: uses by an older version, or none at all."""
    blocks: list[Block] = []
    uses = record.test_uses()
    if uses:
        last = uses[-1]
        low, high = wilson(round(last["accuracy"] * last["images"]), last["images"])
        blocks.append(
            Text(
                f"{percent(last['accuracy'])} of {last['images']:,} test images correct, 95 % "
                f"interval {percent(low)} to {percent(high)}."
            )
        )
    for name, alt in (("confusion", "Confusion matrix"), ("mistakes", "Surest mistakes")):
        for path in sorted(record.path.glob(f"{name}-*.png"))[:1] if options.pictures else ():
            options.take(1)
            drawn = png_address(read_bytes(path, MOST_PNG), path)
            blocks.append(Picture(drawn, f"{alt}, drawn by leancnn evaluate", path.name))
    again = "; that is one more use of the test part" if uses else ""
    what = "What was confused stands in no file" if uses else "The test part was not used"
    made = record.value.get("made", {})
    words = ["leancnn", "evaluate", record.path]
    if record.kind == "network" and not re.search(r"'data'", str(dict(made))):
        words += ["--data", "DATA"]
    return [*blocks, Missing(f"{what}{again}.", command(*words))]
