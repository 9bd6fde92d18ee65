"""Write the tables of README.md from results/*.json: `make readme`.

A result is {"title", "command", "machine", "rows": [{column: value}], "note"}; its rows are shown
as they stand, in the order of the files' names.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SECTION = re.compile(r"(<!-- tables -->\n).*?(<!-- /tables -->)", re.S)


def tables(results: Path) -> str:
    """All results in a folder as Markdown."""
    return "".join(
        f"{table(json.loads(path.read_text(encoding='utf-8')))}\n"
        for path in sorted(results.glob("*.json"))
        if "rows" in json.loads(path.read_text(encoding="utf-8"))
    )


def table(result: dict[str, Any]) -> str:
    """One result as Markdown."""
    columns = list(result["rows"][0])
    lines = [f"**{result['title']}**", "", _line(columns)]
    numbers = [all(isinstance(row[key], int | float) for row in result["rows"]) for key in columns]
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
    return f"{value:,}" if isinstance(value, int | float) else str(value).replace("|", "\\|")


def written(readme: str, results: Path) -> str:
    """The README with its tables as the results say."""
    return SECTION.sub(lambda found: f"{found[1]}{tables(results)}{found[2]}", readme)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = written(before, ROOT / "results")
    readme.write_text(after, encoding="utf-8")
    print("README.md", "as it was" if after == before else "written", file=sys.stderr)
