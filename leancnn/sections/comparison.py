"""Criteria beside baselines under one protocol, and whether pruning was worth it."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.records import Record
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Chart,
    Columns,
    Options,
    Table,
    Text,
    parts,
    section,
    value_text,
)
from leancnn.svg import Series, point_chart

MOST = 1e300  # of a number


@section("comparison", "Was pruning worth it", place=52)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each comparison: its conclusion, accuracy against cost, every network."""
    return parts([(r.name, _blocks(r.value)) for r in records if r.kind == "comparison"])


def _blocks(value: Mapping[str, Any]) -> list[Block]:
    rows = value["means"]
    charts = [_chart(rows, "MACs", "multiply-accumulates")]
    if all(_number(row, "µs") is not None for row in rows):
        charts.append(_chart(rows, "µs", "µs an image, compiled, one core"))
    return [
        Text(f"{value['conclusion']}."),
        Text(
            f"Goal: {value_text(value['goal'])}; accuracy on {value['images']:,} images of the "
            "test part after the last epoch, of the whole network as it was cut."
        ),
        *([Columns(charts)] if rows else []),
        Table("All networks", HEAD, [_cells(row) for row in rows]),
        *(Text(f"Left out: {why}") for why in value["left_out"]),
    ]


HEAD = (
    *("network", "kind", "runs", "before %", "after", "± %"),
    *("weights", "MACs", "µs", "epochs"),
)


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    """One network's cells, below `HEAD`."""
    return [
        row["network"],
        row["kind"],
        row["runs"],
        value_text(_number(row, "before %")),
        Bar(f"{row['after %']:.2f} %", min(max(row["after %"] / 100, 0.0), 1.0)),
        value_text(_number(row, "± %")),
        f"{row['trainable']:,}",
        f"{row['MACs']:,}",
        value_text(_number(row, "µs")),
        f"{row['epochs']:g}",
    ]


def _chart(rows: Sequence[Mapping[str, Any]], key: str, unit: str) -> Block:
    series = []
    for row in rows:
        error = abs(_number(row, "± %") or 0.0)
        cost = _number(row, key) or 0.0
        series.append(Series(row["network"], [cost], [row["after %"]], [(error, error)]))
    caption = f"Accuracy against {key}"
    return Chart(point_chart(caption, series, unit, "accuracy, %"), caption)


def _number(row: Mapping[str, Any], key: str) -> float | None:
    """A number of a row, which stands empty where there is none."""
    value = row.get(key)
    return value if isinstance(value, int | float) and abs(value) < MOST else None
