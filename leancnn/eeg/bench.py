"""The tables of docs/eeg.md, each a file in results/ with its command, machine and versions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn import runs
from leancnn.eeg.decoders import fbcca, fit_logit, log_softmax, probabilities
from leancnn.eeg.evaluation import shuffled
from leancnn.eeg.features import Floats
from leancnn.eeg.filters import bank_for
from leancnn.eeg.pictures import draw
from leancnn.eeg.read import load_epochs
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import (
    Split,
    bits_per_minute,
    chosen,
    folds,
    grid_scores,
    interval,
    mcnemar,
    textbook_scores,
    undecided_curve,
)
from leancnn.eeg.synthetic import synthetic_trials
from leancnn.eeg.windows import AFTER_CUE, images, windows
from leancnn.progress import Progress

CELLS: tuple[tuple[Split, float], ...] = (
    ("subject", 2.0),
    ("session", 2.0),
    ("subject", 4.0),
    ("session", 4.0),
    ("subject", 1.0),
    ("session", 1.0),
)
SYNTHETIC_DB = (-30, -22, -18, -14, -10, -6)
SYNTHETIC_TARGETS = (7.5, 60 / 7, 10.0, 12.0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    shuffles: int = 20
    """Repeats with shuffled labels."""
    networks: int = 4
    """Seeds of SSVEPNet in the yardstick; 0 leaves it out."""
    minutes: float = 1.0
    """Of each live session."""


def bench(data: str, out: Path, names: Sequence[str], *, sizes: Sizes) -> list[Path]:
    """Write the tables called `names` from the trials in `data`; the files written."""
    epochs = load_epochs([data])
    written = []
    for name in names:
        made = TABLES[name](epochs, out, sizes)
        written.append(keep(out, name, Path(data).name, sizes, **made))
    runs.atomic_write(out / "eeg.png", draw(out))
    return [*written, out / "eeg.png"]


def keep(out: Path, name: str, data: str, sizes: Sizes, **result: Any) -> Path:
    """One table as a result file."""
    path = out / f"eeg-{name}.json"
    command = f"leancnn eeg bench {data} --out results --only {name}"
    if name == "shuffled":
        command += f" --shuffles {sizes.shuffles}"
    if name == "live":
        command += f" --minutes {sizes.minutes:g}"
    if name == "yardstick":
        command += f" --networks {sizes.networks}"
    machine = runs.machine()
    for package in ("scipy", "torch", "pylsl", "brainflow"):
        with contextlib.suppress(PackageNotFoundError):
            machine[package] = version(package)
    runs.write_json(path, {"command": command, "machine": machine, "made": runs.now(), **result})
    return path


# Recorded people


def scores_by_part(
    epochs: Epochs, split: Split, window: float, networks: int
) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
    """Held-out scores of the logit, of each network, of their mean and of the blend."""
    looking = epochs.looking()
    bank, targets = bank_for(looking.targets), looking.targets
    features, labels = images(looking, bank, window), looking.labels
    names = ["logit", *(f"ssvepnet {n + 1}" for n in range(networks))]
    logs = {name: np.zeros((len(labels), len(targets))) for name in names}
    tested = np.zeros(len(labels), bool)
    for _, test in folds(looking, split):
        train = ~test
        tested |= test
        logit = fit_logit(features[train], labels[train], looking.subject[train], targets, bank)
        parts: dict[str, Any] = {"logit": logit}
        for number in range(networks):
            from leancnn.eeg.network import decoder_of, fit_network

            net = fit_network(features[train], labels[train], targets, seed=number)
            parts[names[1 + number]] = decoder_of([net], targets, bank)
        for name, part in parts.items():
            found = np.stack([part.of_image(image) for image in features[test]])
            logs[name][test] = log_softmax(found / part.temperature)
    if not networks:
        return logs, tested
    nets: Floats = np.mean([logs[name] for name in names[1:]], 0)
    return {
        **logs,
        f"mean of {networks} ssvepnet": nets,
        f"logit + {networks} ssvepnet": (logs["logit"] + nets) / 2,
    }, tested


def _yardstick(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Every decoder on held-out people and sessions; the file is written after each cell."""
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    looking, result = epochs.looking(), {}
    grids = {}
    with Progress("folds", len(CELLS)) as bar:
        for done, (split, window) in enumerate(CELLS):
            bar.to(done, cell=f"{split} {window:g} s")
            if window not in grids:
                grids[window] = grid_scores(looking, window)[1]
            parts, tested = scores_by_part(epochs, split, window, sizes.networks)
            best, _, picks = chosen(looking, split, grids[window])
            parts = {
                "FBCCA textbook": textbook_scores(looking, window),
                "FBCCA chosen": best,
                **parts,
            }
            rows += _cell(looking, parts, tested, split, window)
            details[f"{split} {window:g}"] = {
                "grid": _spread(grids[window], looking.labels),
                "chosen variants": sorted(set(picks)),
                "missed by all": int(_missed(parts, looking.labels, tested)),
            }
            result = {
                "title": "Recorded people: decoders on those they have not seen",
                "rows": rows,
                "details": details,
                "note": (
                    f"windows from {AFTER_CUE:g} s after the cue, causal filters, 3 targets, "
                    "chance 0.333; won, lost: trials that only this, only FBCCA chosen has right; "
                    "p: exact McNemar, uncorrected; interval: 95 %, people drawn again"
                ),
            }
            keep(out, "yardstick", epochs.source, sizes, **result)
    return result


def _cell(
    looking: Epochs,
    parts: dict[str, Floats],
    tested: NDArray[np.bool_],
    split: Split,
    window: float,
) -> list[dict[str, Any]]:
    labels, people = looking.labels, looking.subject[tested]
    right = {name: (s.argmax(1) == labels)[tested] for name, s in parts.items()}
    rows = []
    for name, mine in right.items():
        won, lost, p = mcnemar(mine, right["FBCCA chosen"])
        low, high = interval(mine, people)
        rows.append(
            {
                "held out": f"{split}s",
                "window s": window,
                "decoder": name,
                "trials": int(tested.sum()),
                "accuracy": round(float(mine.mean()), 4),
                "interval": f"{low:.3f} to {high:.3f}",
                "won": "" if name == "FBCCA chosen" else won,
                "lost": "" if name == "FBCCA chosen" else lost,
                "p": "" if name == "FBCCA chosen" else float(f"{p:.2g}"),
                "bits/min": round(
                    bits_per_minute(float(mine.mean()), len(looking.targets), window + AFTER_CUE),
                    1,
                ),
            }
        )
    return rows


def _spread(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    accuracies = (scores.argmax(2) == labels).mean(1)
    return {
        "variants": len(accuracies),
        "least": round(float(accuracies.min()), 4),
        "median": round(float(np.median(accuracies)), 4),
        "most": round(float(accuracies.max()), 4),
    }


def _missed(parts: dict[str, Floats], labels: NDArray[np.int64], tested: NDArray[np.bool_]) -> int:
    right = [(scores.argmax(1) == labels)[tested] for scores in parts.values()]
    return int((~np.logical_or.reduce(right)).sum())


def _people(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Accuracy by person at 2 s, untrained and logit."""
    looking, labels = epochs.looking(), epochs.looking().labels
    best, _, _ = chosen(looking, "subject", grid_scores(looking, 2.0)[1])
    logit, _ = _logit(looking, 2.0)
    rows = []
    for name in np.unique(looking.subject):
        here = looking.subject == name
        rows.append(
            {
                "person": str(name),
                "trials": int(here.sum()),
                "FBCCA chosen": round(float((best.argmax(1) == labels)[here].mean()), 3),
                "logit": round(float((logit.argmax(1) == labels)[here].mean()), 3),
            }
        )
    return {"title": "By person, windows of 2 s, held-out people", "rows": rows, "note": ""}


def _logit(looking: Epochs, window: float, rest: Epochs | None = None) -> tuple[Floats, Floats]:
    """Held-out log-probabilities of the logit, of trials and of rest windows of the same people."""
    bank, targets, labels = bank_for(looking.targets), looking.targets, looking.labels
    features = images(looking, bank, window)
    resting = None if rest is None else images(rest, bank, window, targets)
    scores = np.zeros((len(labels), len(targets)))
    idle = np.zeros((0 if rest is None else len(rest), len(targets)))
    for name, test in folds(looking, "subject"):
        made = fit_logit(features[~test], labels[~test], looking.subject[~test], targets, bank)
        scores[test] = [np.log(probabilities(made, made.of_image(i))) for i in features[test]]
        if rest is not None and resting is not None:
            mine = rest.subject.astype(str) == name
            idle[mine] = [np.log(probabilities(made, made.of_image(i))) for i in resting[mine]]
    return scores, idle


def _rest(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    rows = []
    for window in (2.0, 4.0):
        scores, idle = _logit(epochs.looking(), window, epochs.resting())
        for row in undecided_curve(np.exp(scores), epochs.looking().labels, np.exp(idle)):
            rows.append(
                {
                    "window s": window,
                    "kept": round(row["kept"], 3),
                    "threshold": round(row["threshold"], 3),
                    "accuracy of the kept": round(row["accuracy"], 3),
                    "rest windows that fire": round(row["rest fires"], 3),
                }
            )
    return {
        "title": "No decision: what a threshold keeps, and the rest windows that pass it",
        "rows": rows,
        "note": "logit, held-out people; rest: trials without a flicker, one window each",
    }


def _shuffled(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    looking = epochs.looking()
    rows = []
    for decoder in ("logit", "ssvepnet"):
        found = [
            shuffled(looking, "subject", 2.0, decoder, repeat) for repeat in range(sizes.shuffles)
        ]
        rows.append(
            {
                "decoder": decoder,
                "repeats": sizes.shuffles,
                "mean": round(float(np.mean(found)), 4),
                "least": round(min(found), 4),
                "most": round(max(found), 4),
            }
        )
    return {
        "title": "Labels of training shuffled within sessions, 2 s",
        "rows": rows,
        "note": "chance 0.333; a network with random weights at its start, people in four folds",
    }


def _synthetic(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    decoder = fbcca(SYNTHETIC_TARGETS)
    rows = []
    for decibels in SYNTHETIC_DB:
        made = synthetic_trials(SYNTHETIC_TARGETS, decibels, trials=200)
        row: dict[str, Any] = {"SNR dB": decibels, "trials": len(made)}
        for window in (2.0, 4.0):
            answers = [
                decoder.scores(w, made.fs).argmax() for w in windows(made, decoder.bank, window)
            ]
            row[f"{window:g} s"] = round(float((np.array(answers) == made.labels).mean()), 3)
        rows.append(row)
    return {
        "title": "Made EEG: FBCCA against the stated signal-to-noise ratio",
        "rows": rows,
        "note": (
            "targets 7.5, 8.57, 10, 12 Hz, chance 0.25; bank from 6 Hz; ratio: power of the answer "
            "over that of the rest from 1 to 70 Hz on the best electrode"
        ),
    }


def _cost(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Microseconds of the parts of a decision, in numpy, in torch and in C."""
    from leancnn.eeg.cost import cost_rows

    return {
        "title": "What a decision costs, 2 s windows of 8 channels, one core",
        "rows": cost_rows(epochs),
        "note": "processor time, median of 5 rounds; a decision each 0.25 s filters 64 samples",
    }


def _live(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.loopback import live_rows

    return {
        "title": "Live: samples lost, and time from the window's last sample to the decision",
        "rows": live_rows(sizes.minutes),
        "note": "FBCCA, 2 s windows, a decision each 0.25 s; ms",
    }


def _faults(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.faults import fault_rows

    return {
        "title": "Bad signals: what was counted, and the accuracy with and without",
        "rows": fault_rows(),
        "note": "made EEG at -14 dB, 4 targets, 40 cues, FBCCA, 2 s; the same trials in every row",
    }


TABLES: dict[str, Callable[[Epochs, Path, Sizes], dict[str, Any]]] = {
    "yardstick": _yardstick,
    "people": _people,
    "rest": _rest,
    "shuffled": _shuffled,
    "synthetic": _synthetic,
    "faults": _faults,
    "live": _live,
    "cost": _cost,
}
