"""Scores of trials by decoders that had not seen them, and which trials those are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.features import Floats
from leancnn.eeg.recording import Epochs
from leancnn.errors import DataError, RunError
from leancnn.safe_files import Tensors, load_pair, save_pair


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutScores:
    """Scores of trials by decoders that have not seen their fold.

    `scores` (N, K) are calibrated log-probabilities up to a constant; `tested` says which trials
    have one. Rest trials carry the label −1. `digests` (N, 32) are the trials' own; runs
    of before have none (0, 32).
    """

    scores: Floats
    labels: NDArray[np.int64]
    subject: NDArray[Any]
    session: NDArray[Any]
    tested: NDArray[np.bool_]
    digests: NDArray[np.uint8]

    def check_trials(self, epochs: Epochs) -> None:
        """Raises `DataError` for trials that are not those of the scores, and says what differs."""
        what = self._difference(epochs)
        if what:
            raise DataError(
                f"{epochs.source}: not the trials that this run was trained on ({what}); bring "
                "those back, or train again"
            )

    def _difference(self, epochs: Epochs) -> str:
        count = len(self.labels)
        if len(epochs) != count:
            return f"{len(epochs)} for {count}"
        pairs = {
            "frequencies": (self.labels, epochs.labels),
            "people": (self.subject.astype(str), epochs.subject.astype(str)),
            "sessions": (self.session.astype(str), epochs.session.astype(str)),
        }
        for what, (before, now) in pairs.items():
            if not np.array_equal(before, now):
                return f"the {what} of {(before != now).sum()} of {count} are others"
        if not len(self.digests):
            return ""
        other = (self.digests != epochs.digests_with_facts()).any(1)
        what = "signals, rate or frequencies"
        return f"the {what} of {other.sum()} of {count} are others" if other.any() else ""


def save_held_out(held: HeldOutScores, folder: Path, about: dict[str, Any]) -> None:
    """Keep held-out scores beside the decoder."""
    tensors: Tensors = {
        "scores": held.scores,
        "labels": held.labels,
        "tested": held.tested.astype(np.uint8),
        "digests": held.digests,
    }
    manifest = {
        **about,
        "subject": [str(one) for one in held.subject],
        "session": [str(one) for one in held.session],
    }
    save_pair(folder / "held_out.json", folder / "held_out.safetensors", manifest, tensors)


def load_held_out(folder: str | Path) -> tuple[HeldOutScores, dict[str, Any]]:
    """The held-out scores of a run. Raises `RunError`, `DamagedError`."""
    folder = Path(folder)
    if not (folder / "held_out.json").exists():
        raise RunError(f"{folder} holds no held-out scores; leancnn eeg train makes them")
    about, tensors = load_pair(folder / "held_out.json", folder / "held_out.safetensors")
    held = HeldOutScores(
        tensors["scores"],
        tensors["labels"],
        np.array(about["subject"]),
        np.array(about["session"]),
        tensors["tested"].astype(bool),
        tensors.get("digests", np.zeros((0, 32), np.uint8)),
    )
    return held, about
