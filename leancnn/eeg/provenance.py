"""The files that a run was trained on, and how they were read: data.json beside the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancnn.eeg.read import load_epochs
from leancnn.eeg.recording import Epochs
from leancnn.errors import RunError
from leancnn.runs import now, read_json, write_json

DATA = "data.json"
HOW = ("unit", "fs", "board", "labels")


def save_provenance(run: str | Path, files: Sequence[str | Path], how: Mapping[str, Any]) -> None:
    """Write which files the run's trials came from, and the arguments they were read with."""
    whole = [str(Path(path).resolve()) for path in files]
    write_json(Path(run) / DATA, {"files": whole, **how, "made": now()})


def load_trials(run: str | Path) -> Epochs:
    """The trials that a run was trained on, read again. Raises `RunError` where it does not say,
    and as reading does."""
    path = Path(run) / DATA
    if not path.is_file():
        raise RunError(f"{run} does not say which files it was trained on ({DATA}); train it again")
    saved = read_json(path)
    return load_epochs(saved["files"], **{key: saved.get(key) for key in HOW})


def copy_provenance(run: str | Path, out: str | Path) -> None:
    """Let the run `out`, made of another, say the same files, where that one says any."""
    path = Path(run) / DATA
    if path.is_file():
        write_json(Path(out) / DATA, read_json(path))
