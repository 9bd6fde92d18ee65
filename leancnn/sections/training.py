"""How training went: loss and accuracy over the epochs, how it ended, and what was noted."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.records import Record
from leancnn.renamed_keys import renamed
from leancnn.sections._base import (
    Block,
    Chart,
    Columns,
    Details,
    Missing,
    Options,
    Table,
    Text,
    command,
    parts,
    percent,
    section,
    value_text,
)
from leancnn.svg import Series, line_chart

MOST_POINTS = 1000  # of a line
KINDS = (("loss", "loss"), ("accuracy", "accuracy, %"))


@section("training", "Training", place=20)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Curves of all runs together, then each run's own."""
    runs = [(record, record.metrics()) for record in records if record.kind == "run"]
    trained = [(run, epochs) for run, epochs in runs if epochs]
    blocks: list[Block] = []
    if len(trained) > 1:
        blocks.append(_together(trained))
    return blocks + parts([(run.name, _blocks(run, epochs)) for run, epochs in runs])


def _together(trained: Sequence[tuple[Record, list[dict[str, Any]]]]) -> Block:
    series = []
    for run, epochs in trained:
        validated = any(row.get("val_accuracy") is not None for row in epochs)
        x, y = _points(epochs, "val_accuracy" if validated else "train_accuracy", 100)
        series.append(Series(run.name if validated else f"{run.name} (train)", x, y))
    caption = "Validation accuracy of all runs over the epochs"
    return Chart(line_chart(caption, series, "epoch", "accuracy, %"), caption)


def _blocks(run: Record, epochs: list[dict[str, Any]]) -> list[Block]:
    blocks: list[Block] = [Text(_summary(run, epochs))]
    if (diverged := run.value.get("diverged")) and run.value.get("state") == "diverged":
        blocks.append(
            Text(f"The loss was not finite at step {diverged.get('step', '?')}.", "warning")
        )
    if epochs:
        charts = [_chart(run, epochs, kind, unit) for kind, unit in KINDS]
        blocks += [Columns(charts), Details("The epochs as numbers", [_numbers(epochs)])]
    if run.value.get("state", "finished") not in ("finished", "diverged"):
        blocks.append(
            Missing(
                "The run has epochs ahead of it.", command("leancnn", "train", "--resume", run.path)
            )
        )
    warnings = renamed(run.value).get("warnings", [])
    if warnings:
        rows = [[number, text] for number, text in enumerate(warnings, 1)]
        table = Table("Warnings", ("", "warning"), rows)
        blocks.append(Details(f"Warnings of the run ({len(warnings)})", [table]))
    return blocks


def _summary(run: Record, epochs: Sequence[Mapping[str, Any]]) -> str:
    plan, state = run.value["plan"], run.value.get("state", "finished")
    asked = value_text(plan["recipe"].get("epochs"))
    words = [f"{plan['model']} on {plan['data']}: {len(epochs)} of {asked} epochs ({state})"]
    if epochs:
        seconds = sum(row.get("seconds", 0) for row in epochs)
        words.append(f"{_span(seconds)} of computing")
        best = max((r for r in epochs if r.get("val_accuracy") is not None), key=_val, default=None)
        if best is not None:
            words.append(
                f"best validation accuracy {percent(best['val_accuracy'])}, epoch {best['epoch']}"
            )
    if plan.get("epochs_before"):
        words.append(f"begun with weights that had {plan['epochs_before']:g} epochs behind them")
    return "; ".join(words) + "."


def _val(row: Mapping[str, Any]) -> float:
    return float(row["val_accuracy"])


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _points(
    epochs: Sequence[Mapping[str, Any]], key: str, factor: float = 1
) -> tuple[list[float], list[float]]:
    rows = [row for row in epochs if row.get(key) is not None]
    step = -(-len(rows) // MOST_POINTS) or 1
    rows = [*rows[:-1:step], *rows[-1:]]
    return [row["epoch"] for row in rows], [factor * row[key] for row in rows]


def _chart(run: Record, epochs: Sequence[Mapping[str, Any]], kind: str, unit: str) -> Block:
    factor = 100 if kind == "accuracy" else 1
    series = [
        Series(name, *_points(epochs, f"{part}_{kind}", factor), dash=dash)
        for dash, (part, name) in enumerate((("train", "train"), ("val", "validation")))
    ]
    caption = f"{kind.capitalize()} over the epochs"
    drawn = [one for one in series if one.x]
    return Chart(line_chart(f"{caption}, {run.name}", drawn, "epoch", unit), caption)


def _numbers(epochs: Sequence[Mapping[str, Any]]) -> Table:
    head = ("epoch", "rate", "train loss", "train %", "val loss", "val %", "s")
    keys = ("lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
    forms = ("{:.4g}", "{:.4f}", "{:.2%}", "{:.4f}", "{:.2%}", "{:.1f}")
    rows = [
        [
            row.get("epoch"),
            *(
                "–" if row.get(key) is None else form.format(row[key])
                for key, form in zip(keys, forms, strict=True)
            ),
        ]
        for row in epochs
    ]
    return Table("Epochs", head, rows)
