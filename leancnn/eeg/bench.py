"""The tables of docs/eeg.md, each a file in results/ with its command, machine and versions."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from leancnn import result_pages, runs
from leancnn.eeg.decoders import fbcca
from leancnn.eeg.filters import bank_for
from leancnn.eeg.pictures import draw
from leancnn.eeg.read import load_epochs
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import Split, chosen
from leancnn.eeg.synthetic import synthetic_trials
from leancnn.eeg.windows import AFTER_CUE, images, windows
from leancnn.eeg.yardstick import (
    CELLS,
    averaged,
    cell,
    control,
    eegnet_cell,
    grid_of,
    logit_scores,
    uneven_rows,
)
from leancnn.progress import Progress

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
    windows: tuple[float, ...] = (2.0, 4.0, 1.0)
    """Seconds, of the yardstick."""


def bench(
    data: str, out: Path, names: Sequence[str], *, sizes: Sizes, page: Path | None = None
) -> list[Path]:
    """Write the tables called `names` from the trials in `data`; the files written.

    All results of `out` go into `page` too, where it says <!-- tables eeg -->, and their picture
    beside it.
    """
    epochs = load_epochs([data])
    written = []
    for name in names:
        made = TABLES[name](epochs, out, sizes)
        written.append(keep(out, name, Path(data).name, sizes, **made))
    picture = out / "eeg.png"
    if page is not None:
        text = result_pages.written(page.read_text(encoding="utf-8"), out)
        runs.atomic_write(page, text.encode())
        written.append(page)
        picture = page.with_name("eeg.png")
    runs.atomic_write(picture, draw(out))
    return [*written, picture]


def keep(out: Path, name: str, data: str, sizes: Sizes, **result: Any) -> Path:
    """One table as a result file."""
    path = out / f"eeg-{name}.json"
    command = f"leancnn eeg bench {data} --out results --only {name}"
    if name == "shuffled":
        command += f" --shuffles {sizes.shuffles}"
    if name in ("live", "latency", "stamps"):
        command += f" --minutes {sizes.minutes:g}"
    if name in ("yardstick", "people", "balance"):
        command += f" --networks {sizes.networks}"
    windows = sorted({row["window s"] for row in result["rows"]}) if name == "yardstick" else []
    if windows and windows != [1.0, 2.0, 4.0]:
        command += f" --windows {','.join(f'{one:g}' for one in windows)}"
    machine = runs.machine()
    for package in ("scipy", "torch", "pylsl", "brainflow"):
        with contextlib.suppress(PackageNotFoundError):
            machine[package] = version(package)
    runs.write_json(path, {"command": command, "machine": machine, "made": runs.now(), **result})
    return path


def _yardstick(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Every decoder on held-out people and sessions; the file is written after each cell.

    Windows that are not asked for stay as the file has them, where it is of as many networks.
    """
    rows, details = _other_windows(out, sizes)
    result: dict[str, Any] = {}
    cells = [(split, window) for split, window in CELLS if window in sizes.windows]
    with Progress("cells", len(cells)) as bar:
        for done, (split, window) in enumerate(cells):
            bar.to(done, cell=f"{split} {window:g} s")
            found, details[f"{split} {window:g}"] = cell(epochs, split, window, sizes.networks)
            rows = sorted([*rows, *found], key=_place)
            result = {
                "title": "Recorded people: decoders on those they have not seen",
                "rows": rows,
                "details": details,
                "note": (
                    f"windows from {AFTER_CUE:g} s after the cue, causal filters, 3 targets, "
                    "chance 0.333; won, lost: trials that only this, only FBCCA chosen has right; "
                    "p: exact McNemar, uncorrected; interval: 95 %, people drawn again; "
                    f"{_ties(details)}"
                ),
            }
            keep(out, "yardstick", epochs.source, sizes, **result)
    return result


def _ties(details: dict[str, Any]) -> str:
    """How far FBCCA chosen moves with which of a fold's equally good variants is taken."""
    found = []
    for split, window in sorted(CELLS, key=lambda one: one[1]):
        ends = details.get(f"{split} {window:g}", {}).get("chosen, by which of equals")
        if ends and ends[0] < ends[1]:
            found.append(f"{split}s {window:g} s {ends[0]:.4f} to {ends[1]:.4f}")
    return "FBCCA chosen, by which of equally good variants: " + (", ".join(found) or "no ties")


def _place(row: dict[str, Any]) -> int:
    """Where a row of the yardstick stands, by its cell."""
    order = sorted(CELLS, key=lambda one: one[1])
    return order.index((row["held out"][:-1], row["window s"]))


def _other_windows(out: Path, sizes: Sizes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and details of the yardstick's file for windows that are not asked for."""
    path = out / "eeg-yardstick.json"
    saved: dict[str, Any] = runs.read_json(path) if path.exists() else {"command": ""}
    if f"--networks {sizes.networks}" not in saved["command"]:
        return [], {}
    rows = [row for row in saved["rows"] if row["window s"] not in sizes.windows]
    kept = {f"{row['held out'][:-1]} {row['window s']:g}" for row in rows}
    return rows, {key: value for key, value in saved["details"].items() if key in kept}


def _eegnet(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """EEGNet at 2 s, sessions first; the file is written whenever a row is known."""
    whole: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    splits: tuple[Split, ...] = ("session", "subject")
    for split in splits:
        rows: list[dict[str, Any]] = []
        for rows in eegnet_cell(epochs.looking(), split):
            result = {
                "title": "EEGNet on the signal itself, windows of 2 s",
                "rows": [*whole, *rows],
                "note": (
                    "1,619 weights, 120 epochs, one seed; aligned: each session by its mean "
                    "covariance; won, lost and p against FBCCA chosen"
                ),
            }
            keep(out, "eegnet", epochs.source, sizes, **result)
        whole += rows
    return result


def _people(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Accuracy by person at 2 s."""
    looking, labels = epochs.looking(), epochs.looking().labels
    best, _, _ = chosen(looking, "subject", grid_of(looking, 2.0))
    scores = {"FBCCA chosen": best, "logit": logit_scores(looking, "subject", 2.0)}
    if sizes.networks:
        both = f"logit + {sizes.networks} ssvepnet"
        scores[both] = averaged(looking, "subject", 2.0, sizes.networks)[both]
    correct = {name: one.argmax(1) == labels for name, one in scores.items()}
    rows = []
    for name in np.unique(looking.subject):
        here = looking.subject == name
        shares = {key: round(float(one[here].mean()), 3) for key, one in correct.items()}
        rows.append({"person": str(name), "trials": int(here.sum()), **shares})
    return {"title": "By person, windows of 2 s, held-out people", "rows": rows, "note": ""}


def _balance(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    return {
        "title": "Sessions balanced by their own windows, 2 s, held-out people: where it helps",
        "rows": uneven_rows(epochs.looking(), 2.0, sizes.networks),
        "note": (
            "which target is asked for less often goes round with the sessions; how far a session "
            "is balanced was chosen on whole sessions of other people"
        ),
    }


def _rest(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.undecided import undecided_rows

    return {
        "title": "No decision: what a threshold keeps, and the rest windows that pass it",
        "rows": undecided_rows(epochs),
        "note": "logit, held-out people; rest: trials without a flicker, one window each",
    }


def _shuffled(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    looking = epochs.looking()
    features = images(looking, bank_for(looking.targets), 2.0)
    rows = []
    for decoder in ("logit", "ssvepnet"):
        found = [control(looking, decoder, repeat, features) for repeat in range(sizes.shuffles)]
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
        "note": "chance 0.333; a network with random weights at its start, people in two halves",
    }


def _early(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.early import early_rows

    return {
        "title": "Decide as soon as sure: time and accuracy, held-out people",
        "rows": early_rows(epochs.looking()),
        "note": (
            "logit of each length from 1 to 4 s; the first that is so sure decides, that of 4 s "
            "always; seconds from the cue; bits a minute at the mean time; every threshold is "
            "shown, none was chosen"
        ),
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
    return _sessions("samples lost, and time from the window's last sample to the decision", sizes)


def _latency(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """As `_live`, kept beside it: a short one for a machine that does nothing else."""
    return _sessions("time to the decision in a shorter session", sizes)


def _sessions(what: str, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.loopback import live_rows

    before, rows = load_average(), live_rows(sizes.minutes)
    return {
        "title": f"Live: {what}",
        "rows": rows,
        "note": (
            "FBCCA, 2 s windows, a decision each 0.25 s, chunks of 4 samples; ms; all sources at "
            "once, a process each, beside whatever else the machine does: processes that want to "
            f"run, of the last minute, {before} before and {load_average()} at the end"
        ),
    }


def load_average() -> str:
    """Processes that ran or waited in the last minute, on the mean, where the system counts them.

    >>> float(load_average()) >= 0
    True
    """
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _integers(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    """What 8-bit integers cost four ssvepnet on sessions that neither they nor their ranges saw."""
    from leancnn.eeg.integers import quantize
    from leancnn.eeg.training import train

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "e")
        train(epochs, run, split="session", window=2.0, decoder="ssvepnet")
        found = quantize(run, Path(folder, "e8"), epochs)
    pairs: dict[str, tuple[float, float]] = {
        "accuracy": (round(found.accuracy, 4), round(found.accuracy_int8, 4)),
        "bytes of weights": (found.bytes, found.bytes_int8),
    }
    if found.us is not None and found.us_int8 is not None:
        pairs["µs of one network, C"] = (round(found.us, 2), round(found.us_int8, 2))
    return {
        "title": "Networks in 8-bit integers, held-out sessions, windows of 2 s",
        "rows": [{"": key, "float32": old, "int8": new} for key, (old, new) in pairs.items()],
        "note": (
            f"{found.networks} ssvepnet averaged, {found.trials} trials, {found.agreement:.2%} of "
            f"them answered alike, exact McNemar p {found.p:.2g}; ranges from {found.windows} "
            "windows"
        ),
    }


def _stamps(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.loopback import stamp_rows

    return {
        "title": "LSL: what a sender withheld, and what was counted as lost",
        "rows": stamp_rows(sizes.minutes),
        "note": (
            "chunks of 4 samples at 250 Hz, stamped as they are pushed; a decision each 0.25 s; ms "
            "from the window's last sample to it, what waits for a late sender included"
        ),
    }


def _faults(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.faults import fault_rows

    return {
        "title": "Bad signals: what was counted, and the accuracy with and without",
        "rows": fault_rows(),
        "note": "made EEG at -14 dB, 4 targets, FBCCA, 2 s windows; the same trials in every row",
    }


def _refused(epochs: Epochs, out: Path, sizes: Sizes) -> dict[str, Any]:
    from leancnn.eeg.faults import refusal_rows

    return {
        "title": "What cannot be decoded: what is said, and when",
        "rows": refusal_rows(epochs),
        "note": "each was tried; seconds until it was said",
    }


TABLES: dict[str, Callable[[Epochs, Path, Sizes], dict[str, Any]]] = {
    "yardstick": _yardstick,
    "eegnet": _eegnet,
    "people": _people,
    "balance": _balance,
    "integers": _integers,
    "rest": _rest,
    "shuffled": _shuffled,
    "synthetic": _synthetic,
    "early": _early,
    "faults": _faults,
    "refused": _refused,
    "live": _live,
    "latency": _latency,
    "stamps": _stamps,
    "cost": _cost,
}
