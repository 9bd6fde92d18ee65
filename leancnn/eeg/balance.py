"""Scores of a session balanced by its own windows, without a label of them.

In a session nobody prefers a target for long, so a decoder that answers one too often there is
likely wrong about it: each session's scores get a number a candidate that evens out what is said.
How far, between not at all and wholly, is chosen on the people of training alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.decoders import fit_logit, log_loss, log_softmax
from leancnn.eeg.features import Floats
from leancnn.eeg.filters import bank_for
from leancnn.eeg.recording import Epochs

SHARES = (0.0, 0.5, 1.0)
STRENGTH = 0.03  # of the l2 penalty of the logits by which the share is chosen
STEPS, NEAR = 500, 1e-9


def balancing_offsets(logs: NDArray[Any]) -> Floats:
    """The numbers (K,) that added to log-probabilities (N, K) make their mean shares equal."""
    added = np.zeros(logs.shape[1])
    for _ in range(STEPS):
        shares = np.exp(log_softmax(logs + added)).mean(0)
        step = np.log(shares * logs.shape[1])
        added -= step
        if np.abs(step).max() < NEAR:
            break
    return np.asarray(added - added.mean(), np.float64)


def balanced(logs: NDArray[Any], session: NDArray[Any], share: float) -> Floats:
    """Log-probabilities (N, K) moved by `share` of what evens out each session."""
    found = np.array(logs, np.float64)
    for name in np.unique(session):
        here = session == name
        found[here] += share * balancing_offsets(found[here])
    return log_softmax(found)


def share_for(looking: Epochs, features: NDArray[np.float32], train: NDArray[np.bool_]) -> float:
    """Of `SHARES` that with the least log loss of logits on people of `train` held out in turn."""
    labels, people, session = looking.labels, looking.subject, looking.session
    targets, bank = looking.targets, bank_for(looking.targets)
    scores = np.zeros((len(looking), len(targets)))
    for name in np.unique(people[train]):
        test = train & (people == name)
        rest = train & ~test
        made = fit_logit(
            features[rest], labels[rest], people[rest], targets, bank, strength=STRENGTH
        )
        scores[test] = np.stack([made.scores_from_features(image) for image in features[test]])
    logs = log_softmax(scores[train])
    losses = [log_loss(balanced(logs, session[train], share), labels[train]) for share in SHARES]
    return SHARES[int(np.argmin(losses))]
