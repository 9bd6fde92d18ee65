"""What a section of a report is: a name, a place, and a function from records to blocks.

A block is a value: text, a table, a chart, pictures. The page (`page/report.html`) draws each kind
and escapes every word of it; a section never writes HTML.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from markupsafe import Markup

from leancnn.records import Record
from leancnn.registry import Registry

NUMBER = re.compile(r"[−+-]?[0-9][0-9,.]*(e[+-]?[0-9]+)?( (%|[kMG]?B|bytes|s))?")
DEEPEST = 4  # levels of a JSON value that are told
MOST_ROWS = 200  # of a table; a page is read by people


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence."""

    shape: ClassVar = "text"
    text: str
    kind: Literal["plain", "warning", "good"] = "plain"


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not on disk, in one sentence, and the command that puts it there."""

    shape: ClassVar = "missing"
    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A number as text with a bar beside it; `low` and `high` are the ends of its interval."""

    text: str
    share: float
    """Of the bar's full length, 0..1."""
    low: float | None = None
    high: float | None = None


Cell = str | int | float | Bar | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading; the first cell of each row is what the row is about."""

    shape: ClassVar = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[int] = (0,)
    """Columns that hold words, also where all of them look like numbers."""

    @property
    def shown(self) -> Sequence[Sequence[Cell]]:
        """The rows that stand on the page."""
        return self.rows[:MOST_ROWS]

    @property
    def left_out(self) -> int:
        """How many rows do not."""
        return max(0, len(self.rows) - MOST_ROWS)

    @property
    def numbers(self) -> list[bool]:
        """Of each column, whether its cells are numbers, which stand to the right."""
        return [
            place not in self.words and all(_is_number(row[place]) for row in self.rows)
            for place in range(len(self.head))
        ]


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, str):
        return cell == "–" or NUMBER.fullmatch(cell) is not None
    return cell is None or isinstance(cell, int | float)


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing in the page's colours, and the numbers in it for who cannot see it."""

    shape: ClassVar = "chart"
    svg: Markup
    caption: str
    numbers: Table | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data: address."""

    shape: ClassVar = "picture"
    src: Markup
    alt: str
    caption: str = ""
    mask: bool = False
    """Whether it is black of varying opacity, which a dark page inverts."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Small pictures under one heading."""

    shape: ClassVar = "gallery"
    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix: images by true class (row) and answer (column)."""

    shape: ClassVar = "matrix"
    caption: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]

    def share(self, row: int, column: int) -> float:
        """Of the images of a true class, those with this answer."""
        return self.counts[row][column] / max(1, sum(self.counts[row]))


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that are shown when asked for."""

    shape: ClassVar = "details"
    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks about one record, under its name."""

    shape: ClassVar = "part"
    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Blocks side by side where the page is wide enough."""

    shape: ClassVar = "columns"
    blocks: Sequence["Block"]


Block = Text | Missing | Table | Chart | Picture | Gallery | Matrix | Details | Part | Columns


@dataclass(slots=True)
class Options:
    """What the reader wants, and what may still go onto the page."""

    pictures: int = 240
    """How many pictures of the data may still be embedded; 0: none."""

    def take(self, wanted: int) -> int:
        """How many of so many pictures may be embedded now."""
        taken = min(wanted, self.pictures)
        self.pictures -= taken
        return taken


Made = Callable[[Sequence[Record], Options], list[Block]]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; without blocks it is left out."""

    name: str
    title: str
    place: int
    """Sections stand in this order."""
    make: Made = field(compare=False)


sections: Registry[Section] = Registry("section")


def section(name: str, title: str, *, place: int) -> Callable[[Made], Made]:
    """Put a function among the sections."""

    def put(make: Made) -> Made:
        sections.register(name, Section(name, title, place, make))
        return make

    return put


def parts(found: Sequence[tuple[str, list[Block]]]) -> list[Block]:
    """Blocks by record, each under its name; those of a single one stand alone."""
    filled = [(name, blocks) for name, blocks in found if blocks]
    if len(filled) == 1:
        return filled[0][1]
    return [Part(name, blocks) for name, blocks in filled]


def command(*words: object, into: object = None) -> str:
    """A command line as a shell takes it, `into` a file."""
    line = shlex.join(map(str, words))
    return line if into is None else f"{line} > {shlex.quote(str(into))}"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def bytes_text(count: float) -> str:
    """123456 as `123 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return (
                f"{count / size:,.3g} {unit}"
                if count < 1000 * size
                else f"{count / size:,.0f} {unit}"
            )
    return f"{count:,.0f} bytes"


def value_text(value: object, depth: int = 0) -> str:
    """A JSON value as a word or two; what lies deeper than a table can show is an ellipsis."""
    if depth > DEEPEST:
        return "…"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        pairs = (f"{key} {value_text(one, depth + 1)}" for key, one in value.items())
        return ", ".join(pairs) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(one, depth + 1) for one in value) or "–"
    return str(value)


def side_by_side(
    caption: str, titles: Sequence[str], fields: Sequence[Mapping[str, Any]], *, what: str = ""
) -> Table:
    """A row for each field of any of the mappings, a column for each mapping."""
    keys = list(dict.fromkeys(key for one in fields for key in one))
    rows = [[key, *(value_text(one.get(key)) for one in fields)] for key in keys]
    return Table(caption, (what, *titles), rows)
