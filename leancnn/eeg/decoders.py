"""Decoders: from a window of sub-bands to a score for each candidate frequency.

* FBCCA      untrained: canonical correlations of all sub-bands, weighted and added
* Logit      23 weights: a logistic regression whose weights the candidates share
* NetDecoder a network on the image of features (`network.py`), or several, averaged
* Ensemble   the mean of what two or more say

Scores are log-odds up to a constant and a temperature; `probabilities` calibrates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.features import CENTRE, FLOOR, OFFSETS, Floats, correlations, squared_correlations
from leancnn.eeg.filters import Bank, bank_for
from leancnn.errors import DataError

Scores = NDArray[np.float32]

BACKGROUND = [place for place, step in enumerate(OFFSETS) if abs(step) >= 0.75]
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the logit's l2 penalty, tried on other people
UNTRAINED_TEMPERATURE = 0.15  # of FBCCA's sums of r²; near what fits twelve people at 2 s


class Decoder(Protocol):
    """What live decoding and scoring need of a decoder."""

    @property
    def name(self) -> str: ...

    @property
    def bank(self) -> Bank: ...

    @property
    def frequencies(self) -> tuple[float, ...]:
        """The candidates in Hz, ascending; the order of the scores."""
        ...

    @property
    def temperature(self) -> float: ...

    def scores(self, window: Floats, fs: float) -> Scores:
        """A window (bands, channels, samples) of the bank at `fs` Hz to float32 (candidates,)."""
        ...


class TrainedDecoder(Decoder, Protocol):
    """A decoder that can be given the features it was trained on, computed before."""

    def scores_from_features(self, image: NDArray[np.float32]) -> Scores: ...


def weights_of(kind: tuple[float, float], bands: int) -> Floats:
    """FBCCA's weights n^-a + b of the sub-bands n = 1, 2, …; `kind` is (a, b)."""
    return np.arange(1, bands + 1, dtype=np.float64) ** -kind[0] + kind[1]


@dataclass(frozen=True, slots=True)
class FBCCA:
    """Filter-bank canonical correlation analysis: the sum of r² over sub-bands, weighted.

    Nothing is trained, so any frequencies will do. Source: Chen et al. 2015; the weights there are
    n^-1.25 + 0.25.

    >>> FBCCA((7.5, 10.0)).bank.lows[0]
    8.0
    """

    frequencies: tuple[float, ...]
    bank: Bank = field(default_factory=Bank)
    harmonics: int = 2
    weighting: tuple[float, float] = (0.5, 0.0)
    temperature: float = UNTRAINED_TEMPERATURE
    name: str = "fbcca"

    def scores(self, window: Floats, fs: float) -> Scores:
        squares = squared_correlations(window, self.frequencies, fs, (self.harmonics,))[0]
        found = weights_of(self.weighting, len(squares)) @ squares
        return np.asarray(found, np.float32)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "fbcca",
            "frequencies": list(self.frequencies),
            "bank": self.bank.to_json(),
            "harmonics": self.harmonics,
            "weighting": list(self.weighting),
            "temperature": self.temperature,
        }


TEXTBOOK = Bank((11.0, 22.0, 34.0), 90.0)  # with 3 harmonics and the weights of Chen et al. 2015


def fbcca(frequencies: Sequence[float]) -> FBCCA:
    """FBCCA with the bank that follows the frequencies."""
    chosen = tuple(sorted(map(float, frequencies)))
    if len(set(chosen)) < 2:
        raise DataError("a decision needs two or more different frequencies")
    return FBCCA(chosen, bank_for(chosen))


def textbook(frequencies: Sequence[float]) -> FBCCA:
    """FBCCA with a bank as textbooks have it: what most comparisons are made against."""
    return FBCCA(tuple(frequencies), TEXTBOOK, 3, (1.25, 0.25), name="fbcca-textbook")


@dataclass(frozen=True, slots=True)
class Logit:
    """A logistic regression over candidates: each candidate's score is weights · its features.

    `weights` (20,): ten planes at the candidate, ten of its background, shared by all candidates,
    on features standardised by `mean` and `std`; `bias` (K,) one per candidate.
    """

    frequencies: tuple[float, ...]
    bank: Bank
    weights: Floats
    bias: Floats
    mean: Floats
    std: Floats
    temperature: float = 1.0
    name: str = "logit"

    def scores(self, window: Floats, fs: float) -> Scores:
        return self.scores_from_features(correlations(window, self.frequencies, fs))

    def scores_from_features(self, image: NDArray[np.float32]) -> Scores:
        """Features (planes, K, offsets) to scores (K,)."""
        found = (summary(image) - self.mean) / self.std
        return np.asarray(found @ self.weights + self.bias, np.float32)


def summary(image: NDArray[np.float32]) -> Floats:
    """An image (…, planes, K, offsets) as (…, K, 2 · planes): each plane, and its background.

    The background is the mean of r² at 0.75 and 1 Hz to both sides, then its logarithm.
    """
    logs = image.astype(np.float64)
    around = np.log((np.exp(logs[..., BACKGROUND]) - FLOOR).mean(-1) + FLOOR)
    return np.concatenate([logs[..., CENTRE], around], -2).swapaxes(-1, -2)


def fit_logit(
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[Any],
    frequencies: tuple[float, ...],
    bank: Bank,
    *,
    folds: int = 12,
    strength: float | None = None,
) -> Logit:
    """Fit on features (N, planes, K, offsets); the penalty is the one best across `groups`.

    `groups` say whose each trial is: people are dealt into at most `folds`, and no one stands on
    both sides. The temperature comes from the same held-out scores; both fall away when `strength`
    is given. Deterministic. Raises `DataError` for fewer than two groups.
    """
    features = summary(images)
    if strength is not None:
        mean, std, weights, bias = _solve(features, labels, strength)
        return Logit(frequencies, bank, weights, bias, mean, std)
    sides = group_folds(groups, folds)
    if len(np.unique(sides)) < 2:
        raise DataError("training needs trials of two or more people or sessions")
    tried = []
    for strength in STRENGTHS:
        scores = np.zeros((len(labels), len(frequencies)))
        for fold in np.unique(sides):
            mean, std, weights, bias = _solve(
                features[sides != fold], labels[sides != fold], strength
            )
            scores[sides == fold] = (features[sides == fold] - mean) / std @ weights + bias
        tried.append((log_loss(scores, labels), strength, scores))
    _, strength, scores = min(tried, key=lambda found: found[0])
    mean, std, weights, bias = _solve(features, labels, strength)
    return Logit(frequencies, bank, weights, bias, mean, std, temperature_for(scores, labels))


def _solve(
    features: Floats, labels: NDArray[np.int64], strength: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, std, weights and bias of the penalised maximum of likelihood, by L-BFGS."""
    from scipy.optimize import minimize

    count, candidates, width = features.shape
    mean, std = features.mean((0, 1)), features.std((0, 1)) + 1e-9
    x = (features - mean) / std
    hot = np.eye(candidates)[labels]

    def loss(theta: Floats) -> tuple[float, Floats]:
        weights, bias = theta[:width], theta[width:]
        logs = log_softmax(x @ weights + bias)
        pull = (np.exp(logs) - hot) / count
        gradient = np.concatenate([np.einsum("nk,nkf->f", pull, x), pull.sum(0)])
        return (
            float(-(logs * hot).sum() / count + strength * theta @ theta / 2),
            gradient + strength * theta,
        )

    found = minimize(loss, np.zeros(width + candidates), jac=True, method="L-BFGS-B")
    return mean, std, found.x[:width], found.x[width:]


def group_folds(groups: NDArray[Any], folds: int) -> NDArray[np.int64]:
    """The fold of each trial: groups are dealt in turn, so none stands in two folds."""
    _, place = np.unique(groups, return_inverse=True)
    return (place % folds).astype(np.int64)


def log_softmax(scores: NDArray[Any]) -> Floats:
    """Scores (…, K) as logarithms of probabilities."""
    x = np.asarray(scores, np.float64)
    x = x - x.max(-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)), np.float64)


def log_loss(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The mean of −log of the probability of what was true, in nats."""
    return float(-log_softmax(scores)[np.arange(len(labels)), labels].mean())


def temperature_for(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """The temperature whose probabilities fit held-out labels best.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: log_loss(scores / np.exp(log_t), labels), bounds=(-6, 4), method="bounded"
    )
    return float(np.exp(found.x))


def probabilities(decoder: Decoder, scores: NDArray[Any]) -> Floats:
    """Calibrated probabilities of the candidates from a decoder's scores (…, K)."""
    return np.exp(log_softmax(np.asarray(scores) / decoder.temperature))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The mean of the calibrated log-probabilities of decoders of the same candidates.

    All of them read correlations, which are computed once.
    """

    parts: tuple[TrainedDecoder, ...]
    temperature: float = 1.0
    name: str = "ensemble"

    @property
    def bank(self) -> Bank:
        return self.parts[0].bank

    @property
    def frequencies(self) -> tuple[float, ...]:
        return self.parts[0].frequencies

    def scores(self, window: Floats, fs: float) -> Scores:
        return self.scores_from_features(correlations(window, self.frequencies, fs))

    def scores_from_features(self, image: NDArray[np.float32]) -> Scores:
        """Features (planes, K, offsets) to scores (K,)."""
        logs = [
            log_softmax(part.scores_from_features(image) / part.temperature) for part in self.parts
        ]
        return np.asarray(np.mean(logs, 0), np.float32)
