"""Size on disk and time for an image, ours beside the engines."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.records import Record
from leancnn.sections._base import (
    Block,
    Cell,
    Chart,
    Details,
    Missing,
    Options,
    Table,
    Text,
    bytes_text,
    command,
    parts,
    section,
)
from leancnn.svg import Series, interval_chart


@section("speed", "Time and size", place=40)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Sizes of all networks in one table, then each bench."""
    sized = [(record, saved) for record in records if (saved := record.saved()) is not None]
    blocks: list[Block] = []
    if sized:
        rows = [_size(record, manifest) for record, (_, manifest) in sized]
        head = ("", "weights", "bytes on disk", "input")
        blocks.append(Table("Size of the saved networks", head, rows))
    benches = [(r, bench) for r in records if (bench := r.holds("bench")) is not None]
    blocks += parts([(record.name, _bench(bench)) for record, bench in benches])
    timed = {record.path for record, _ in benches}
    for record, (_, manifest) in sized:
        if timed or record.kind == "eeg" or manifest["preprocessing"].get("kind"):
            continue
        line = command("leancnn", "bench", record.path, "--json", into=record.path / "bench.json")
        blocks.append(Missing(f"{record.name} was not timed beside the engines.", line))
    return blocks


def _size(record: Record, manifest: Mapping[str, Any]) -> list[Cell]:
    counts, taken = manifest.get("counts", {}), manifest["preprocessing"]
    height, width = taken.get("size", (0, 0))
    count = counts.get("trainable") or counts.get("stored") or 0
    return [
        record.name,
        f"{count:,}",
        bytes_text(manifest["file"]["bytes"]),
        f"{taken.get('channels', '?')}×{height}×{width}",
    ]


def _bench(bench: Mapping[str, Any]) -> list[Block]:
    rows = sorted(bench["rows"], key=lambda row: (row["model"], row["median_us"]))
    blocks: list[Block] = []
    if rows:
        if all(row["low_us"] > 0 for row in rows):
            blocks.append(_chart(rows))
        blocks += [Details("The same as numbers", [_table(rows)])]
    blocks += [Text(f"Fastest of {name}: {value}.") for name, value in bench["summaries"].items()]
    if bench["missing"]:
        gaps = [[f"{one['model']} on {one['engine']}", one["reason"]] for one in bench["missing"]]
        blocks.append(Details("Not timed", [Table("Not timed", ("what", "why"), gaps)]))
    return blocks


def _chart(rows: Sequence[Mapping[str, Any]]) -> Block:
    names = list(dict.fromkeys(row["model"] for row in rows))
    series = []
    for engine in dict.fromkeys(row["engine"] for row in rows):
        own = [row for row in rows if row["engine"] == engine]
        series.append(
            Series(
                "leancnn's C" if engine == "c" else engine,
                [row["median_us"] for row in own],
                [names.index(row["model"]) for row in own],
                [
                    (
                        max(row["median_us"] - row["low_us"], 0.0),
                        max(row["high_us"] - row["median_us"], 0.0),
                    )
                    for row in own
                ],
            )
        )
    caption = "µs for one image on one core: median of the turns, and their quartiles"
    unit = "µs, to the left is faster"
    return Chart(interval_chart(caption, names, series, unit, log=True), caption)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    head = (
        "network",
        "engine",
        "median µs",
        "quartiles",
        "95 % below",
        "MB",
        "artifact",
        "start s",
    )
    return Table(
        "Engines",
        head,
        [
            [
                row["model"],
                row["engine"],
                f"{row['median_us']:,.1f}",
                f"{row['low_us']:,.1f} to {row['high_us']:,.1f}",
                f"{row['p95_us']:,.1f}",
                "–" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
                bytes_text(row["artifact_bytes"]),
                f"{row['startup_s']:.2f}",
            ]
            for row in rows
        ],
    )
