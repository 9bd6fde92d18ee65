"""The machines and versions behind the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.records import Record
from leancnn.renamed_keys import renamed
from leancnn.sections._base import Block, Options, section, side_by_side

OF_PLAN = ("backend", "precision", "threads", "processes", "seed", "backend_why")


@section("machine", "Machine and versions", place=90)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """A column for each run, and each result that names its machine."""
    known = [(record.name, machine) for record in records if (machine := _machine(record))]
    if not known:
        return []
    names, machines = zip(*known, strict=True)
    return [side_by_side("Where the figures were made", names, machines)]


def _machine(record: Record) -> Mapping[str, Any]:
    if record.kind in ("rows", "search"):
        return dict(record.value["machine"])
    if record.kind == "eeg":
        return {"leancnn": record.value["leancnn"]}
    if record.kind != "run":
        return {}
    plan = renamed(record.value["plan"])
    own = {key: plan[key] for key in OF_PLAN if plan.get(key) not in (None, "")}
    when = {key: record.value[key] for key in ("began", "at") if record.value.get(key)}
    return {**record.value.get("machine", {}), **own, **when}
