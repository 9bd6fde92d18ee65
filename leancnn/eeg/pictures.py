"""Pictures of docs/eeg.md, drawn from the result files that `bench` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancnn import runs
from leancnn.plots import new_figure, own_style, png

Rows = Sequence[Mapping[str, Any]]


def draw(results: Path) -> bytes:
    """Accuracy by person, accuracy against the window, the rest curve and latencies, as PNG.

    A table that is not there leaves its place empty. Latencies are those of the shorter session,
    where there is one.
    """
    found = {
        name: runs.read_json(results / f"eeg-{name}.json")["rows"]
        for name in ("people", "yardstick", "rest", "live", "latency")
        if (results / f"eeg-{name}.json").exists()
    }
    if "latency" in found:
        found["live"] = found["latency"]
    with own_style():
        sheet = new_figure(10, 7)
        axes = [sheet.add_subplot(2, 2, place + 1) for place in range(4)]
        for part, (name, paint) in zip(axes, PAINTERS.items(), strict=True):
            if name in found:
                paint(part, found[name])
            else:
                part.set_axis_off()
        made: bytes = png(sheet)
    return made


def _people(axes: Any, rows: Rows) -> None:
    names = [row["person"] for row in rows]
    blends = [key for key in rows[0] if key.startswith("logit +")]
    keys = ["FBCCA chosen", "logit", *blends[:1]]
    width = 0.84 / len(keys)
    for place, key in enumerate(keys):
        shift = (place - (len(keys) - 1) / 2) * width
        places = [n + shift for n in range(len(names))]
        axes.bar(places, [row[key] for row in rows], width, label=key)
    axes.axhline(1 / 3, color="black", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("person, windows of 2 s")
    axes.set_ylabel("accuracy; dotted: chance")
    axes.set_ylim(0, 1.2)
    axes.legend(frameon=False, loc="upper center", ncols=3, fontsize=8)


def _windows(axes: Any, rows: Rows) -> None:
    mine = [row for row in rows if row["held out"] == "subjects"]
    for name in dict.fromkeys(row["decoder"] for row in mine):
        if name[-1].isdigit():
            continue  # single seeds
        points = sorted(
            (row["window s"], row["accuracy"]) for row in mine if row["decoder"] == name
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xticks(sorted({row["window s"] for row in mine}))
    axes.set_xlabel("window, s; held-out people")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.5 * (high - low), high)  # room for the legend
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="lower center")


def _rest(axes: Any, rows: Rows) -> None:
    for window in sorted({row["window s"] for row in rows}):
        points = [row for row in rows if row["window s"] == window]
        axes.plot(
            [row["kept"] for row in points],
            [row["rest windows that fire"] for row in points],
            marker=".",
            label=f"{window:g} s: rest windows that fire",
        )
        axes.plot(
            [row["kept"] for row in points],
            [1 - row["accuracy of the kept"] for row in points],
            marker=".",
            linestyle="--",
            label=f"{window:g} s: errors among the kept",
        )
    axes.set_xlabel("share of trials that a threshold keeps")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def _latency(axes: Any, rows: Rows) -> None:
    kept = [row for row in rows if isinstance(row["p50"], int | float)]
    for shift, key in ((-0.25, "p50"), (0, "p95"), (0.25, "p99")):
        axes.barh(
            [n + shift for n in range(len(kept))], [row[key] for row in kept], 0.24, label=key
        )
    axes.set_yticks(range(len(kept)), [row["source"] for row in kept])
    axes.set_xlim(0, 1.3 * max((row["p99"] for row in kept), default=1.0))  # room for the legend
    axes.set_xlabel("ms from the window's last sample to the decision")
    axes.legend(frameon=False)


PAINTERS = {"people": _people, "yardstick": _windows, "rest": _rest, "live": _latency}
