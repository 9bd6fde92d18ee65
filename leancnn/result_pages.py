"""Result files as tables of a page, in Markdown.

A result is {"title", "command", "machine", "rows": [{column: value}], "note"}; its rows are shown
as they stand, in the order of the files' stems. They go between <!-- tables --> and
<!-- /tables -->; a page that says <!-- tables pruning --> has those of results/pruning-*.json, and
README.md all that no such page has.
"""

import json
import re
from pathlib import Path
from typing import Any

SECTION = re.compile(r"(<!-- tables ?(\w*) -->\n).*?(<!-- /tables -->)", re.S)
ELSEWHERE = (
    "pruning",
    "boards",
    "onnx",
    "eeg",
    "reliability",
    "serve",
    "int8",
    "two",
    "search",
    "training",
)  # have a page in docs/


def tables(results: Path, of: str = "") -> str:
    """The results in a folder as Markdown: those `of` a page, or all that have none."""
    found = []
    for path in sorted(results.glob("*.json"), key=lambda path: path.stem):
        family = path.name.split("-")[0]
        result = json.loads(path.read_text(encoding="utf-8"))
        if "rows" in result and (family == of if of else family not in ELSEWHERE):
            found.append(f"{table(result)}\n")
    return "".join(found) or "Nothing yet.\n"


def table(result: dict[str, Any]) -> str:
    """One result as Markdown."""
    columns = list(result["rows"][0])
    lines = [f"**{result['title']}**", "", _line(columns)]
    numbers = [
        all(isinstance(row[key], int | float | None) for row in result["rows"]) for key in columns
    ]
    lines.append(_line(["--:" if number else "---" for number in numbers]))
    lines += [_line([_cell(row[key]) for key in columns]) for row in result["rows"]]
    about = [result["note"]] if result.get("note") else []
    about += [f"`{result['command']}`", _machine(result["machine"])]
    return "\n".join([*lines, "", f"<sub>{' · '.join(about)}</sub>", ""])


def _machine(facts: dict[str, Any]) -> str:
    """Names speak for themselves; a number is told with what it counts."""
    bare = ("system", "processor", "device")
    return ", ".join(str(v) if k in bare else f"{k} {v}" for k, v in facts.items())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int | float) else str(value).replace("|", "\\|")


def written(page: str, results: Path) -> str:
    """A page with its tables as the results say."""
    return SECTION.sub(lambda found: f"{found[1]}{tables(results, found[2])}{found[3]}", page)
