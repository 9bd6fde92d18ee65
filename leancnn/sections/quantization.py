"""What 8-bit integers cost and brought."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.records import Record
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Missing,
    Options,
    Table,
    Text,
    bytes_text,
    command,
    parts,
    percent,
    section,
)


@section("quantization", "8-bit integers", place=55)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each quantized network: accuracy, bytes and time before and after."""
    return parts([(record.name, _blocks(record)) for record in records])


def _blocks(record: Record) -> list[Block]:
    value = record.holds("quantization")
    if value is not None:
        return _figures(value)
    if record.kind != "network" or "quantized" not in record.value:
        return []
    made = record.value["made"].get("quantized", {})
    words = (
        f"Quantized with ranges from {made.get('images', '?')} images, seed {made.get('seed', '?')}"
    )
    line = command("leancnn", "quantize", "RUN", "--out", "FOLDER")
    return [Missing(f"{words}; what that cost is kept by quantizing anew.", line)]


def _figures(value: Mapping[str, Any]) -> list[Block]:
    rows: list[list[Cell]] = []
    if value["accuracy"] is not None and value["accuracy_int8"] is not None:
        both = [Bar(percent(value[key]), value[key]) for key in ("accuracy", "accuracy_int8")]
        rows.append([f"accuracy, {value['val_images']:,} validation images", *both])
    rows.append(["weights", bytes_text(value["bytes"]), bytes_text(value["bytes_int8"])])
    if value["us"] is not None and value["us_int8"] is not None:
        rows.append(["µs an image, compiled", *(f"{value[k]:,.1f}" for k in ("us", "us_int8"))])
    blocks: list[Block] = [
        Text(
            f"{value['network']}: ranges from {value['images']:,} images of the train part, seed "
            f"{value['seed']}. The test part was not used for it."
        ),
        Table("Before and after", ("", "float32", "int8"), rows),
    ]
    if value["points_lost"] is not None:
        blocks.append(Text(f"{value['points_lost']:+.2f} percentage points of accuracy lost."))
    layers: list[list[Cell]] = [
        [name, Bar(percent(error), min(abs(error), 1.0))] for name, error in value["layers"]
    ]
    if layers:
        head = ("layer", "difference from the floats, of their spread")
        blocks.append(Table("Layers furthest from the floats", head, layers))
    clipped: list[list[Cell]] = [[name, percent(share)] for name, share in value["clipped"]]
    if clipped:
        blocks.append(Table("Values beyond the range of their bytes", ("value", "share"), clipped))
    return blocks
