"""What people read of a result: text that is safe to print, and tables.

Nothing here loads anything. Class names are never trusted: control characters are escaped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

LONGEST_NAME = 24  # characters of a class name beside a picture; the middle goes first


def printable(text: object) -> str:
    """`text` with everything that a terminal could obey written out: control and format characters.

    Tabs, line ends and lone surrogates are written out too, so one item stays on one line.
    """
    return "".join(
        char
        if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
        else _escape(char)
        for char in str(text)
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def short(text: object, longest: int = LONGEST_NAME) -> str:
    """`printable(text)`, with the middle left out where it is longer than `longest` characters."""
    safe = printable(text)
    if len(safe) <= longest:
        return safe
    tail = (longest - 1) // 2
    return f"{safe[: longest - 1 - tail]}…{safe[len(safe) - tail :]}"


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Rows as aligned text under a heading; numbers to the right, None as a dash.

    `columns` chooses and orders the keys; without it those of the first row stand as they are.
    """
    if not rows:
        return ""
    keys = list(rows[0]) if columns is None else list(columns)
    cells = [[_cell(row.get(key, "")) for key in keys] for row in rows]
    widths = [max(_width(line[i]) for line in [keys, *cells]) for i in range(len(keys))]
    right = [all(row.get(key) is None or _is_number(row[key]) for row in rows) for key in keys]
    lines = []
    for line in [keys, ["─" * width for width in widths], *cells]:
        padded = [
            " " * (width - _width(text)) + text if end else text + " " * (width - _width(text))
            for text, width, end in zip(line, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return printable(value)


def _width(text: str) -> int:
    """Columns that `text` takes in a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
