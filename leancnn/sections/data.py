"""The images behind the networks: how many of each class, and what the data doctor says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancnn.records import Record
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Details,
    Missing,
    Options,
    Table,
    Text,
    command,
    parts,
    section,
)

MOST_OPEN = 20  # classes whose table is shown unasked
MOST_NAMED = 12  # of a kind
UNEVEN = 10  # largest class over smallest, from which on it is said


@section("data", "Data", place=10)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Once for each place of images, whoever used it."""
    found = []
    for place in dict.fromkeys(_place(record) for record in records if record.data):
        users = [record for record in records if record.data and _place(record) == place]
        found.append((str(users[0].data), _blocks(users)))
    return parts(found)


def _place(record: Record) -> str:
    data = str(record.data)
    return str(Path(data).resolve()) if Path(data).exists() else data


def _blocks(users: Sequence[Record]) -> list[Block]:
    checks = [check for user in users if (check := user.holds("check")) is not None]
    runs = [user for user in users if user.kind == "run"]
    counts = next((run.value["data"]["counts"] for run in runs if _counted(run)), None)
    if checks:
        counts = checks[0]["counts"]
    if counts is None and not checks:
        return []
    blocks: list[Block] = [Text(_summary(users, counts or {}))]
    if counts:
        table = _classes(counts)
        many = len(table.rows) > MOST_OPEN
        blocks.append(Details(f"{len(table.rows)} classes", [table]) if many else table)
    for run in runs[:1]:
        skipped = run.value.get("data", {}).get("skipped", [])
        if skipped:
            files = [[one.get("file", "?"), one.get("reason", "")] for one in skipped]
            blocks.append(Text(f"{len(skipped)} unreadable files were left out.", "warning"))
            blocks.append(Details("Which", [Table("Left out", ("file", "why"), files)]))
    blocks += [block for check in checks[:1] for block in doctor(check)]
    if not checks:
        user = users[0]
        into = user.path / "check.json" if user.is_folder else "check.json"
        blocks.append(
            Missing(
                "What the data doctor found is not on disk.",
                command("leancnn", "check", user.data, "--json", into=into),
            )
        )
    return blocks


def _counted(run: Record) -> bool:
    return bool(run.value.get("data", {}).get("counts"))


def _summary(users: Sequence[Record], counts: Mapping[str, Mapping[str, int]]) -> str:
    names = {name for own in counts.values() for name in own}
    words = [f"{sum(own.values()):,} to {_verb(part)}" for part, own in counts.items() if own]
    by = ", ".join(dict.fromkeys(user.name for user in users))
    return f"{len(names)} classes; images: {', '.join(words) or 'not counted'}. Used by {by}."


def _verb(part: str) -> str:
    return {"train": "train", "val": "validate", "test": "test"}.get(part, part)


def _classes(counts: Mapping[str, Mapping[str, int]]) -> Table:
    names = list(dict.fromkeys(name for own in counts.values() for name in own))
    most = max((count for own in counts.values() for count in own.values()), default=0)
    rows: list[list[Cell]] = []
    for name in names:
        cells: list[Cell] = [name]
        for own in counts.values():
            count = own.get(name, 0)
            cells.append(Bar(f"{count:,}", count / max(most, 1)))
        rows.append(cells)
    return Table("Images of each class", ("class", *counts), rows)


def doctor(check: Mapping[str, Any]) -> list[Block]:
    """What the doctor said, problems first."""
    problems, warnings = check["problems"], check["warnings"]
    blocks: list[Block] = []
    if problems:
        blocks.append(Text(f"The data doctor: no go, {len(problems)} problems.", "warning"))
    else:
        known = f"{len(warnings)} warnings" if warnings else "no warnings"
        blocks.append(Text(f"The data doctor: go, {known}.", "good"))
    rows: list[list[Cell]] = []
    for what, findings in (("problem", problems), ("warning", warnings)):
        for kind, count in Counter(one["kind"] for one in findings).items():
            own = [one["text"] for one in findings if one["kind"] == kind]
            rows += [[f"{what}: {kind}", text] for text in own[:MOST_NAMED]]
            if count > MOST_NAMED:
                rows.append([f"{what}: {kind}", f"and {count - MOST_NAMED:,} more"])
    if rows:
        blocks.append(Table("Problems and warnings", ("what", "which"), rows))
    stored = ", ".join(f"{name} {count:,}" for name, count in list(check["modes"].items())[:6])
    sizes = sorted(check["sizes"].items(), key=lambda item: -item[1])[:6]
    shapes = ", ".join(f"{name} {count:,}" for name, count in sizes)
    if stored:
        blocks.append(Text(f"Stored as {stored}; height × width {shapes}."))
    return blocks
