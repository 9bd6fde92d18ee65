"""How well a decoder does on people it has not seen: folds, tests, intervals and rates.

Folds are made of whole people, or of whole sessions, before any window is cut. A random split of
trials is not offered: neighbours in time would stand on both sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.decoders import FBCCA, log_softmax, textbook, weights_of
from leancnn.eeg.features import Floats, squared_correlations
from leancnn.eeg.filters import Bank
from leancnn.eeg.recording import Epochs
from leancnn.eeg.windows import windows
from leancnn.errors import DataError

Split = Literal["subject", "session"]
RESAMPLES = 10_000  # of people, for an interval
LOWS = (  # of the sub-bands that the grid of untrained decoders tries
    (8.0, 16.0, 24.0, 32.0, 40.0),
    (6.0, 14.0, 22.0, 30.0, 38.0),
    (10.0, 18.0, 26.0, 34.0, 42.0),
    (12.0, 20.0, 28.0, 36.0, 44.0),
    (11.0, 22.0, 34.0),
    (11.0, 22.0, 34.0, 45.0),
    (12.0, 24.0, 36.0),
)
HIGHS = (70.0, 90.0)
ORDERS = (3, 4)
HARMONICS = (2, 3)
WEIGHTINGS = ((1.25, 0.25), (0.5, 0.0), (1.0, 0.0), (0.0, 0.0))


def folds(epochs: Epochs, split: Split) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each fold's name and the mask of the trials that it holds out.

    By subject: one person at a time. By session: the first session of everyone, then the second,
    and so on for as many as everyone has. Raises `DataError` when there are not two of them.
    """
    people = np.unique(epochs.subject)
    if split == "subject":
        if len(people) < 2:
            raise DataError("a split by subject needs two or more people; try --split session")
        for person in people:
            yield str(person), epochs.subject == person
        return
    sessions = [list(np.unique(epochs.session[epochs.subject == person])) for person in people]
    everyone = min(map(len, sessions))
    if everyone < 2:
        raise DataError("a split by session needs two or more sessions of each person")
    for number in range(everyone):
        held = {own[number] for own in sessions}
        yield f"session {number + 1}", np.isin(epochs.session, list(held))


def held_out(
    epochs: Epochs,
    split: Split,
    predict: Callable[[NDArray[np.bool_], NDArray[np.bool_]], Floats],
) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores (N, K) of each trial by a decoder that has not seen its fold, and which have one.

    `predict(train, test)` is given masks and returns the scores of the test trials.
    """
    scores = np.zeros((len(epochs), len(epochs.targets)))
    tested = np.zeros(len(epochs), bool)
    for _, test in folds(epochs, split):
        scores[test] = predict(~test, test)
        tested |= test
    return scores, tested


@dataclass(frozen=True, slots=True)
class Variant:
    """One FBCCA of the grid."""

    bank: Bank
    harmonics: int
    weighting: tuple[float, float]

    def decoder(self, frequencies: tuple[float, ...]) -> FBCCA:
        return FBCCA(frequencies, self.bank, self.harmonics, self.weighting, name="fbcca-chosen")


def grid(fs: float) -> list[Variant]:
    """The untrained variants: 7 banks × 2 upper edges × 2 orders × 2 harmonics × 4 weightings.

    Upper edges that the rate does not have fall away.
    """
    highs = [high for high in HIGHS if high < 0.45 * fs] or [0.45 * fs]
    return [
        Variant(Bank(lows, high, order), harmonics, weighting)
        for lows, high, order in itertools.product(LOWS, highs, ORDERS)
        if max(lows) < 0.9 * high
        for harmonics, weighting in itertools.product(HARMONICS, WEIGHTINGS)
    ]


def grid_scores(
    epochs: Epochs, seconds: float, progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Variant], NDArray[np.float32]]:
    """Every variant of the grid and its scores (variants, N, K)."""
    variants = grid(epochs.fs)
    found: dict[Variant, NDArray[np.float32]] = {}
    for bank in dict.fromkeys(variant.bank for variant in variants):
        squares = np.stack(
            [
                squared_correlations(window, epochs.targets, epochs.fs, HARMONICS)
                for window in windows(epochs, bank, seconds)
            ]
        )  # (N, H, B, K)
        for variant in variants:
            if variant.bank == bank:
                one = squares[:, HARMONICS.index(variant.harmonics)]
                weights = weights_of(variant.weighting, one.shape[1])
                found[variant] = np.einsum("b,nbk->nk", weights, one).astype(np.float32)
        progress(len(found))
    return variants, np.stack([found[variant] for variant in variants])


def chosen(
    epochs: Epochs, split: Split, scores: NDArray[np.float32]
) -> tuple[Floats, NDArray[np.bool_], list[int]]:
    """FBCCA *chosen*: for each fold the variant that is best on the trials outside of it.

    `scores` (variants, N, K) are those of `grid_scores`. Returns the scores of held-out trials,
    which trials have one, and each fold's variant; of equals the first of the grid.
    """
    correct = scores.argmax(2) == epochs.labels  # (variants, N)
    picks: list[int] = []

    def predict(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Floats:
        picks.append(int(correct[:, train].mean(1).argmax()))
        return np.asarray(scores[picks[-1]][test], np.float64)

    found, tested = held_out(epochs, split, predict)
    return found, tested, picks


def chosen_range(epochs: Epochs, split: Split, scores: NDArray[np.float32]) -> tuple[float, float]:
    """The least and the most accuracy of FBCCA *chosen*, over what its equals would have given.

    In a fold several variants of `scores` (variants, N, K) may be equally best on the trials
    outside of it; which of them is taken, the order of the grid says and nothing else.
    """
    correct = scores.argmax(2) == epochs.labels
    least, most, trials = 0, 0, 0
    for _, test in folds(epochs, split):
        outside = correct[:, ~test].sum(1)
        inside = correct[outside == outside.max()][:, test].sum(1)
        least, most, trials = least + inside.min(), most + inside.max(), trials + test.sum()
    return float(least / trials), float(most / trials)


def textbook_scores(epochs: Epochs, seconds: float) -> Floats:
    """Scores (N, K) of the textbook's FBCCA."""
    decoder = textbook(epochs.targets)
    return np.stack(
        [decoder.scores(window, epochs.fs) for window in windows(epochs, decoder.bank, seconds)]
    ).astype(np.float64)


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Trials that only ours has correct, those that only theirs has, and the exact two-sided p.

    Source: McNemar 1947; the exact binomial form, uncorrected for the number of comparisons.

    >>> mcnemar(np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool))
    (2, 0, 0.5)
    """
    from scipy.stats import binomtest

    won, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    return won, lost, float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def interval(
    correct: NDArray[Any], people: NDArray[Any], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % interval of a mean over trials when people, not trials, are drawn again."""
    names = np.unique(people)
    sums = np.array([float(correct[people == name].sum()) for name in names])
    counts = np.array([float((people == name).sum()) for name in names])
    drawn = np.random.default_rng(0).integers(0, len(names), (resamples, len(names)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)


def bits_per_minute(accuracy: float, targets: int, seconds: float) -> float:
    """The information rate of decisions that take `seconds` each, the wait for the answer included.

    Source: Wolpaw et al., EEG-based communication: improved accuracy by response verification, IEEE
    Trans. Rehab. Eng. 1998. Below chance it is 0.

    >>> round(bits_per_minute(1.0, 4, 2.0), 1)
    60.0
    """
    if accuracy <= 1 / targets:
        return 0.0
    bits = np.log2(targets) + accuracy * np.log2(accuracy)
    if accuracy < 1:
        bits += (1 - accuracy) * np.log2((1 - accuracy) / (targets - 1))
    return float(bits * 60 / seconds)


def undecided_curve(
    looking: Floats,
    labels: NDArray[np.int64],
    resting: Floats,
    kept: Sequence[float] = (1.0, 0.95, 0.9, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3),
) -> list[dict[str, float]]:
    """For thresholds that keep a share of trials: their accuracy, and the rest windows that fire.

    `looking` and `resting` are calibrated probabilities (N, K).
    """
    sure, rest = looking.max(1), resting.max(1) if len(resting) else np.zeros(0)
    rows = []
    for share in kept:
        threshold = float(np.quantile(sure, 1 - share)) if share < 1 else 0.0
        keep = sure >= threshold
        rows.append(
            {
                "kept": float(keep.mean()),
                "threshold": threshold,
                "accuracy": float((looking.argmax(1) == labels)[keep].mean()),
                "rest fires": float((rest >= threshold).mean()) if len(rest) else float("nan"),
            }
        )
    return rows


def calibration_error(logits: Floats, labels: NDArray[np.int64], bins: int = 10) -> float:
    """The mean distance of confidence from accuracy over bins of equal width, 0..1."""
    sure = np.exp(log_softmax(logits))
    correct, most = sure.argmax(1) == labels, sure.max(1)
    place = np.minimum((most * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(correct[place == b].mean() - most[place == b].mean()) * (place == b).mean()
            for b in np.unique(place)
        )
    )
