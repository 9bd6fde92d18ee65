"""A search: what was asked, what came of it, the front, and every trial that was compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancnn import manifests
from leancnn.errors import RunError
from leancnn.records import Record
from leancnn.runs import read_run
from leancnn.safe_files import read_json
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Chart,
    Columns,
    Details,
    Missing,
    Options,
    Table,
    Text,
    bytes_text,
    command,
    parts,
    percent,
    section,
    value_text,
)
from leancnn.svg import Series, point_chart

COSTS = (
    ("microseconds", "--time", "us"),
    ("bytes", "--bytes", ""),
    ("macs", "--macs", ""),
    ("accuracy", "--accuracy", ""),
)
FORMS = {"int8": ", in 8-bit integers", "pruned": ", pruned"}
LIMITS = {"microseconds": "µs an image", "bytes": "bytes", "macs": "multiply-accumulates"}


@section("search", "The search", place=5)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each search: its sentence, the front against time and bytes, the trials."""
    return parts([(r.name, _blocks(r)) for r in records if r.kind == "search"])


def _blocks(record: Record) -> list[Block]:
    asked = record.value
    blocks: list[Block] = [
        Text(
            f"Asked: {_limits(asked['budget'])}; on {asked['data']}, {asked['images']:,} images to "
            f"train, {asked['val_images']:,} to validate, {_many(len(asked['classes']), 'class')}; "
            f"{_found(asked['found'])} could meet it; compared after {_rungs(asked)}; "
            f"seed {asked['seed']}."
        )
    ]
    front = record.holds("front")
    if front is None:
        words = "The search has not ended; the same command goes on."
        blocks.append(Missing(words, again(asked, record.path)))
    else:
        blocks += _front(front, asked["budget"])
    trials = _trials(record.path)
    if trials:
        many = f"{len(trials)} trials, as far as each was trained"
        head = ("trial", "network", "epochs", "validation")
        blocks.append(Details(many, [Table("Trials, the most accurate first", head, trials)]))
    return [*blocks, *_latency_model(asked.get("latency_model", asked.get("clock", {})))]


def _found(found: Sequence[Mapping[str, Any]]) -> str:
    """How many architectures met the budget, and how many of them by a cut alone."""
    pruned = sum(one.get("form") == "pruned" for one in found)
    also = f", {pruned:,} of them when pruned," if pruned else ""
    return _many(len(found), "architecture") + also


def _limits(budget: Mapping[str, Any]) -> str:
    """The budget in words, as whoever asked would say it."""
    limits = [(LIMITS[key], budget.get(key)) for key in LIMITS]
    words = [f"at most {limit:,.10g} {unit}" for unit, limit in limits if limit is not None]
    if budget.get("accuracy") is not None:
        words.append(f"at least {percent(budget['accuracy'])} correct")
    return ", ".join(words) or "the most accurate, at any cost"


def _many(count: float, word: str) -> str:
    """1 class, 10 classes, 0.5 hours."""
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count:,.10g} {word if count == 1 else plural}"


def again(asked: Mapping[str, Any], folder: Path) -> str:
    """The command line that goes on with a search."""
    budget, narrowed = asked["budget"], asked["asked"]
    words: list[object] = ["leancnn", "search", asked["data"]]
    for name, option, unit in COSTS:
        if budget.get(name) is not None:
            words += [option, f"{budget[name]:.12g}{unit}"]
    if isinstance(networks := narrowed.get("networks"), list) and networks:
        words += ["--networks", ",".join(map(str, networks))]
    for size in narrowed.get("sizes") or () if isinstance(narrowed.get("sizes"), list) else ():
        words += ["--size", "x".join(map(str, size)) if isinstance(size, list) else size]
    if narrowed.get("epochs") is not None:
        words += ["--epochs", narrowed["epochs"]]
    if isinstance(narrowed.get("clock_on"), str):
        words += ["--clock-on", narrowed["clock_on"]]
    for key, option in (("integers", "--floats-only"), ("pruning", "--no-pruning")):
        words += [option] if narrowed.get(key) is False else []
    if asked["val_share"] is not None:
        words += ["--val-share", asked["val_share"]]
    return command(*words, "--seed", asked["seed"], "--hours", "HOURS", "--out", folder)


def _front(front: Mapping[str, Any], budget: Mapping[str, Any]) -> list[Block]:
    members, winner = front["members"], front["winner"]
    kind = "good" if front["reached"] else "warning"
    blocks: list[Block] = [Text(f"{front['sentence']}.", "good" if kind == "good" else "warning")]
    blocks.append(Text(_compared(front)))
    if members:
        charts = [_chart(members, budget, key) for key in ("microseconds", "bytes")]
        blocks += [Columns(charts), Table("The front", HEAD, [_row(m, winner) for m in members])]
    for one in members:
        blocks += [Text(f"Trial {one['trial']}: {sign}", "warning") for sign in one["disturbed"]]
    return blocks


def _compared(front: Mapping[str, Any]) -> str:
    """How many were compared, and by how much the winner's validation promised too much."""
    words = f"{front['trials']:,} trials were compared, {front['failed']:,} failed"
    again = sum(one.get("predicted_us") is None for one in front["members"])
    words += f"; {_many(again, 'network')} of the front in integers, too" if again else ""
    words += f"; {_many(round(front['spent'] / 3600, 2), 'hour')} of training."
    winner = front["winner"]
    if winner is None or winner["test_accuracy"] is None:
        return words
    gap = 100 * (winner["val_accuracy"] - winner["test_accuracy"])
    return (
        f"{words} The winner's optimism, validation minus test, is {gap:+.2f} percentage points: "
        "it was chosen by validation, so its test accuracy is the figure to trust."
    )


HEAD = ("trial", "network", "recipe", "epochs", "validation", "test", "µs", "bytes", "MACs")


def _row(one: Mapping[str, Any], winner: Mapping[str, Any] | None) -> list[Cell]:
    mine = one["trial"], one.get("form")
    won = winner is not None and mine == (winner["trial"], winner.get("form"))
    tested: Cell = "–"
    if one["test_accuracy"] is not None:
        share = one["test_accuracy"]
        tested = Bar(percent(share), share, one["test_low"], one["test_high"])
    return [
        f"{one['trial']}, the winner" if won else str(one["trial"]),
        one["network"],
        one["change"] or "its own",
        one["epochs"],
        Bar(percent(one["val_accuracy"]), one["val_accuracy"]),
        tested,
        f"{one['microseconds']:,.1f} ({one['low_us']:,.1f} to {one['high_us']:,.1f})",
        bytes_text(one["bytes"]),
        f"{one['macs']:,}",
    ]


def _chart(members: Sequence[Mapping[str, Any]], budget: Mapping[str, Any], key: str) -> Block:
    unit = LIMITS[key]
    x = [one[key] for one in members]
    series = [Series("validation", x, [100 * one["val_accuracy"] for one in members])]
    tested = [one for one in members if one["test_accuracy"] is not None]
    if tested:
        spread = [
            (
                100 * max(one["test_accuracy"] - (one["test_low"] or 0.0), 0.0),
                100 * max((one["test_high"] or 1.0) - one["test_accuracy"], 0.0),
            )
            for one in tested
        ]
        y = [100 * one["test_accuracy"] for one in tested]
        series.append(Series("test", [one[key] for one in tested], y, spread))
    limit = budget.get(key)
    caption = f"Accuracy against {unit}" + (f"; the budget is {limit:,.10g}" if limit else "")
    return Chart(point_chart(caption, series, unit, "accuracy, %", limit=limit), caption)


def _rungs(asked: Mapping[str, Any]) -> str:
    """When networks were compared, for people."""
    *parts, whole = asked["rungs"]
    if not asked.get("pace"):  # an older search, of the same epochs for all
        return f"{', '.join(map(str, asked['rungs']))} epochs"
    return ", ".join([*(f"1/{whole // part}" for part in parts), "all of a training"])


def _trials(folder: Path) -> list[list[Cell]]:
    found: list[tuple[float, list[Cell]]] = []
    for trial in sorted((folder / "trials").glob("*/")):
        rungs = [read_json(path, manifests.Rung) for path in trial.glob("rung-*.json")]
        if not rungs:
            continue
        last = max(rungs, key=lambda rung: rung["epochs"])
        share, error = last["accuracy"], last["error"]
        shown: Cell = error if error else Bar(percent(share), share)
        network = f"{_network(trial)}{FORMS.get(last.get('form', ''), '')}"
        number = trial.name.lstrip("0") or "0"
        found.append((share, [number, network, last["epochs"], shown]))
    return [row for _, row in sorted(found, key=lambda item: -item[0])]


def _network(trial: Path) -> str:
    try:
        plan = read_run(trial, manifests.RunFile).get("plan", {})
    except RunError:
        return "–"
    words = value_text(plan.get("arguments", {}))
    return f"{plan.get('model', '–')}{'' if words == '–' else f' ({words})'}"


def _latency_model(model: Mapping[str, Any]) -> list[Block]:
    """How well the times were foreseen by which architectures were chosen."""
    factors = model.get("factors")
    blocks: list[Block] = [Text(f"The latency model by which they were chosen: {_fitted(model)}.")]
    if isinstance(factors, dict) and factors:
        rows: list[list[Cell]] = [[kind, value_text(us)] for kind, us in factors.items()]
        table = Table("µs for a cycle of the cost model", ("kernel", "µs"), rows)
        blocks.append(Details("What it was fitted to", [table]))
    return blocks


def _fitted(model: Mapping[str, Any]) -> str:
    """Programs and errors of a latency model in words; what an older one kept as it is."""
    try:
        return (
            f"fitted to {model['programs']:,} programs; on one that it had not seen it erred by "
            f"{percent(model['median_error'])}, the median, and {percent(model['worst_error'])} "
            "at worst"
        )
    except (KeyError, TypeError, ValueError):
        return value_text({key: value for key, value in model.items() if key != "factors"})
