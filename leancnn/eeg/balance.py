"""Scores of a session corrected by the session itself, without a label of its trials.

Two ways. *Balanced*: in a session nobody prefers a target for long, so a decoder that answers one
too often there is likely wrong about it; each candidate gets a number that evens out what is said.
*Less rest*: what a decoder says of a candidate while nobody looks at any is no answer to a flicker;
the mean of that over the rest in front of a session is taken away. It asks nothing of how often
each target is wanted, and is known before the first decision. How far, between not at all and
wholly, is chosen on the people of training alone.
"""

from __future__ import annotations

from collections.abc import Callable
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


def less_rest(
    logs: NDArray[Any],
    session: NDArray[Any],
    resting: NDArray[Any],
    rest_session: NDArray[Any],
    share: float,
) -> Floats:
    """Log-probabilities (N, K) less `share` of the mean of their session's rest windows (M, K).

    A session without rest stays as it is.
    """
    found = np.array(logs, np.float64)
    for name in np.unique(session):
        idle = resting[rest_session == name]
        if len(idle):
            found[session == name] -= share * idle.mean(0)
    return log_softmax(found)


def share_for(looking: Epochs, features: NDArray[np.float32], train: NDArray[np.bool_]) -> float:
    """Of `SHARES` of balance that with the least log loss on people of `train` held out in turn."""
    logs, _ = _inner(looking, features, train, features[:0], looking.subject[:0])
    session, labels = looking.session[train], looking.labels[train]
    return _best(labels, lambda share: balanced(logs, session, share))


def rest_share_for(
    looking: Epochs,
    features: NDArray[np.float32],
    train: NDArray[np.bool_],
    rest_features: NDArray[np.float32],
    rest_subject: NDArray[Any],
    rest_session: NDArray[Any],
) -> float:
    """Of `SHARES` of rest that with the least log loss on people of `train` held out in turn."""
    logs, idle = _inner(looking, features, train, rest_features, rest_subject)
    session, labels = looking.session[train], looking.labels[train]
    return _best(labels, lambda share: less_rest(logs, session, idle, rest_session, share))


def _best(labels: NDArray[np.int64], corrected: Callable[[float], Floats]) -> float:
    losses = [log_loss(corrected(share), labels) for share in SHARES]
    return SHARES[int(np.argmin(losses))]


def _inner(
    looking: Epochs,
    features: NDArray[np.float32],
    train: NDArray[np.bool_],
    rest_features: NDArray[np.float32],
    rest_subject: NDArray[Any],
) -> tuple[Floats, Floats]:
    """Log-probabilities of a logit, of each person of `train` by one of the others: of the trials
    of `train`, and of rest windows (zeros of people who are not in it)."""
    labels, people = looking.labels, looking.subject
    targets, bank = looking.targets, bank_for(looking.targets)
    scores = np.zeros((len(looking), len(targets)))
    idle = np.zeros((len(rest_features), len(targets)))
    for name in np.unique(people[train]):
        test = train & (people == name)
        rest = train & ~test
        made = fit_logit(
            features[rest], labels[rest], people[rest], targets, bank, strength=STRENGTH
        )
        scores[test] = np.stack([made.scores_from_features(image) for image in features[test]])
        for place in np.flatnonzero(rest_subject == name):
            idle[place] = made.scores_from_features(rest_features[place])
    return log_softmax(scores[train]), log_softmax(idle)
