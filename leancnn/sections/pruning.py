"""What was pruned and why: the goal, the cost before and after, and each layer's channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancnn import manifests
from leancnn.records import Record
from leancnn.renamed_keys import renamed
from leancnn.safe_files import read_json
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Details,
    Options,
    Table,
    Text,
    bytes_text,
    parts,
    percent,
    section,
    value_text,
)

MOST_OPEN = 24  # layers whose table is shown unasked
COSTS = {
    "trainable": "weights",
    "frozen": "frozen weights",
    "macs": "multiply-accumulates",
    "bytes": "bytes",
}


@section("pruning", "What was pruned, and why", place=50)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """The plans of each record, in the order in which they were cut."""
    return parts([(record.name, _blocks(record)) for record in records])


def _blocks(record: Record) -> list[Block]:
    plans = _plans(record)
    if not plans:
        return []
    blocks: list[Block] = []
    if len(plans) > 1:
        blocks.append(Text(f"{len(plans)} cuts, one after the other."))
    for number, plan in enumerate(plans, 1):
        own = _plan(plan)
        blocks += own if len(plans) == 1 else [Details(f"Cut {number}: {_goal(plan)}", own)]
    return blocks


def _plans(record: Record) -> list[Mapping[str, Any]]:
    if record.kind == "plans":
        return list(record.value["plans"])
    plan = record.holds("plan")
    if plan is None:
        return []
    names = ("iterations", "steps") if record.is_folder else ()  # the older name last
    found = [path for name in names for path in record.path.glob(f"{name}/*/plan.json")]
    return [*(read_json(path, manifests.Pruning) for path in sorted(found, key=_number)), plan]


def _number(path: Path) -> int:
    word = path.parent.name.split("-")[0]
    return int(word) if word.isdigit() else 0


def _goal(plan: Mapping[str, Any]) -> str:
    return value_text(plan["goal"])


def _plan(plan: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [
        Text(
            f"{plan['network']}, channels scored by {plan['criterion']}, goal: {_goal(plan)}; seed "
            f"{plan.get('seed', 0)}."
        )
    ]
    blocks.append(_costs(plan))
    layers = _layers(plan)
    many = len(layers.rows) > MOST_OPEN
    blocks.append(Details(f"{len(layers.rows)} layers", [layers]) if many else layers)
    if any(layer.get("importance") for layer in plan["layers"]):
        blocks.append(
            Text(
                "Importance is the criterion's score, coupled channels scored together. The share "
                "that went is that of the layer's whole importance: the nearer to 0, the less the "
                "cut took."
            )
        )
    else:
        blocks.append(Text("The plan was made before plans kept the importance of each channel."))
    warnings = renamed(plan)["warnings"]
    if warnings:
        rows: list[list[Cell]] = [[number, text] for number, text in enumerate(warnings, 1)]
        table = Table("Warnings", ("", "warning"), rows)
        blocks.append(Details(f"Warnings of the plan ({len(warnings)})", [table]))
    return blocks


def _costs(plan: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for key, name in COSTS.items():
        before, after = plan["before"].get(key, 0), plan["after"].get(key, 0)
        if before:
            form = bytes_text if key == "bytes" else "{:,}".format
            share = after / before
            rows.append([name, form(before), form(after), Bar(percent(share), min(share, 1.0))])
    if plan["microseconds"]:
        one, two = plan["microseconds"]
        share = two / one if one else 0.0
        cells = f"{one:,.0f}", f"{two:,.0f}", Bar(percent(share), min(share, 1.0))
        rows.append(["µs an image, compiled, one core", *cells])
    return Table("Cost before and after", ("", "before", "after", "what is left"), rows)


def _layers(plan: Mapping[str, Any]) -> Table:
    known = any(layer.get("importance") for layer in plan["layers"])
    head = ["layer", "channels", "kept", "share kept"]
    if known:
        head += ["least kept", "most cut", "importance that went"]
    rows: list[list[Cell]] = []
    for layer in plan["layers"]:
        before, kept = layer["before"], len(layer["kept"])
        share = kept / before if before else 1.0
        row: list[Cell] = [layer["path"], before, kept, Bar(percent(share), min(share, 1.0))]
        rows.append([*row, *_importance(layer)] if known else row)
    return Table("Layers that lost channels", head, rows)


def _importance(layer: Mapping[str, Any]) -> list[Cell]:
    """The least importance that stayed, the most that went, and the share of all that went."""
    scores, kept = layer.get("importance", []), set(layer["kept"])
    stay = [score for place, score in enumerate(scores) if place in kept]
    gone = [score for place, score in enumerate(scores) if place not in kept]
    if not stay or not gone:
        return ["–", "–", "–"]
    whole = sum(map(abs, scores))
    share = sum(map(abs, gone)) / whole if whole else 0.0
    return [f"{min(stay):.3g}", f"{max(gone):.3g}", Bar(percent(share), share)]
