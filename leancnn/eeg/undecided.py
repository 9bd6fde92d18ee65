"""No decision: what a threshold keeps of trials, and how many windows of rest pass it."""

from __future__ import annotations

from typing import Any

import numpy as np

from leancnn.eeg.decoders import fit_logit, probabilities
from leancnn.eeg.features import Floats
from leancnn.eeg.filters import bank_for
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import folds, undecided_curve
from leancnn.eeg.windows import images

WINDOWS = (2.0, 4.0)


def undecided_rows(epochs: Epochs) -> list[dict[str, Any]]:
    """A row for each window and threshold, of the logit on people it has not seen."""
    rows = []
    for window in WINDOWS:
        shares, resting = held_out_probabilities(epochs, window)
        for row in undecided_curve(shares, epochs.looking().labels, resting):
            rows.append(
                {
                    "window s": window,
                    "kept": round(row["kept"], 3),
                    "threshold": round(row["threshold"], 3),
                    "accuracy of the kept": round(row["accuracy"], 3),
                    "rest windows that fire": round(row["rest fires"], 3),
                }
            )
    return rows


def held_out_probabilities(epochs: Epochs, window: float) -> tuple[Floats, Floats]:
    """The logit's probabilities (N, K) of held-out people's trials, and (M, K) of their rest."""
    looking, rest = epochs.looking(), epochs.resting()
    bank, targets, labels = bank_for(looking.targets), looking.targets, looking.labels
    features, resting = images(looking, bank, window), images(rest, bank, window, targets)
    found = np.zeros((len(looking), len(targets)))
    idle = np.zeros((len(rest), len(targets)))
    for name, test in folds(looking, "subject"):
        made = fit_logit(features[~test], labels[~test], looking.subject[~test], targets, bank)
        mine = rest.subject.astype(str) == name
        for put, those, fed in ((found, test, features), (idle, mine, resting)):
            shares = [probabilities(made, made.scores_from_features(i)) for i in fed[those]]
            put[those] = np.reshape(shares, (-1, len(targets)))
    return found, idle
