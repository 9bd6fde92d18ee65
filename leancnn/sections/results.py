"""Tables of results/: each with the command and the machine it was made with."""

from collections.abc import Sequence

from leancnn.records import Record
from leancnn.sections._base import Block, Cell, Options, Table, Text, parts, section, value_text


@section("results", "Benchmarks", place=70)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each file as its own table."""
    return parts([(record.name, _blocks(record)) for record in records if record.kind == "rows"])


def _blocks(record: Record) -> list[Block]:
    told = record.told
    keys = list(dict.fromkeys(key for row in told["rows"] for key in row))
    rows: list[list[Cell]] = [[_cell(row.get(key)) for key in keys] for row in told["rows"]]
    return [
        Table(told["title"], keys, rows),
        Text(f"{told['command']} · {value_text(told['machine'])}"),
    ]


def _cell(value: object) -> Cell:
    return (
        f"{value:,}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value_text(value)
    )
