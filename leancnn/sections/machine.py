"""The machines and versions behind the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn import manifests
from leancnn.records import Record
from leancnn.sections._base import Block, Options, section, side_by_side

OF_PLAN = ("backend", "precision", "threads", "processes", "seed", "backend_why")


@section("machine", "Machine and versions", place=90)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """A column for each run, and each result that names its machine."""
    told = [(record.name, machine) for record in records if (machine := _machine(record))]
    if not told:
        return []
    names, machines = zip(*told, strict=True)
    return [side_by_side("Where the figures were made", names, machines)]


def _machine(record: Record) -> Mapping[str, Any]:
    if record.kind in ("rows", "search"):
        return dict(record.told["machine"])
    if record.kind == "eeg":
        return {"leancnn": record.told["leancnn"]}
    if record.kind != "run":
        return {}
    plan = manifests.renamed(record.told["plan"])
    own = {key: plan[key] for key in OF_PLAN if plan.get(key) not in (None, "")}
    when = {key: record.told[key] for key in ("began", "at") if record.told.get(key)}
    return {**record.told.get("machine", {}), **own, **when}
