"""Tables of results/: each with the command and the machine it was made with."""

from collections.abc import Sequence

from leancnn.records import Record
from leancnn.sections._base import Block, Cell, Options, Table, Text, parts, section, value_text


@section("results", "Benchmarks", place=70)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each file as its own table."""
    return parts([(record.name, _blocks(record)) for record in records if record.kind == "rows"])


def _blocks(record: Record) -> list[Block]:
    value = record.value
    keys = list(dict.fromkeys(key for row in value["rows"] for key in row))
    rows: list[list[Cell]] = [[_cell(row.get(key)) for key in keys] for row in value["rows"]]
    return [
        Table(value["title"], keys, rows),
        Text(f"{value['command']} · {value_text(value['machine'])}"),
    ]


def _cell(value: object) -> Cell:
    return (
        f"{value:,}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value_text(value)
    )
