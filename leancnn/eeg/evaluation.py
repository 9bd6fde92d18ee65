"""What a trained decoder is worth on those it has not seen, beside decoders that nobody trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.decoders import fit_logit, log_loss, log_softmax
from leancnn.eeg.features import Floats
from leancnn.eeg.filters import bank_for
from leancnn.eeg.held_out import HeldOutScores
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import (
    Split,
    bits_per_minute,
    calibration_error,
    chosen,
    folds,
    grid_scores,
    interval,
    mcnemar,
    textbook_scores,
    undecided_curve,
)
from leancnn.eeg.training import KINDS, DecoderConfig
from leancnn.eeg.windows import AFTER_CUE

SHUFFLES = 20
CONTROL_STRENGTH = 0.03  # of a logit on shuffled labels: nothing to choose it by
CONTROL_FOLDS = 2  # of a network on shuffled labels, for the time it takes


@dataclass(frozen=True, slots=True)
class Baseline:
    """One other decoder on the same trials."""

    name: str
    accuracy: float
    won: int
    lost: int
    p: float


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A decoder's figures on held-out people or sessions; shares are 0..1."""

    decoder: str
    split: Split
    window: float
    targets: tuple[float, ...]
    trials: int
    accuracy: float
    low: float
    high: float
    per_person: dict[str, float]
    baselines: tuple[Baseline, ...]
    bits_per_minute: float
    log_loss: float
    calibration_error: float
    undecided: list[dict[str, float]]
    shuffled: tuple[float, ...] = ()
    """Accuracies when the labels of training were dealt anew within each session."""

    def to_json(self) -> dict[str, Any]:
        shuffled = [float(one) for one in self.shuffled]
        return {
            "decoder": self.decoder,
            "split": self.split,
            "window": self.window,
            "targets": list(self.targets),
            "trials": self.trials,
            "chance": 1 / len(self.targets),
            "accuracy": self.accuracy,
            "interval": [self.low, self.high],
            "per person": self.per_person,
            "baselines": [
                {"name": a.name, "accuracy": a.accuracy, "won": a.won, "lost": a.lost, "p": a.p}
                for a in self.baselines
            ],
            "bits per minute": self.bits_per_minute,
            "log loss": self.log_loss,
            "calibration error": self.calibration_error,
            "undecided": [
                {key: (None if np.isnan(value) else value) for key, value in row.items()}
                for row in self.undecided
            ],
            "shuffled": {
                "repeats": len(shuffled),
                "mean": float(np.mean(shuffled)) if shuffled else None,
                "least": min(shuffled, default=None),
                "most": max(shuffled, default=None),
            },
        }

    def text(self) -> str:
        from leancnn.tables import table

        lines = [
            f"{self.decoder} on held-out {self.split}s, {self.window:g} s windows from "
            f"{AFTER_CUE:g} s after the cue, {self.trials} trials of {len(self.targets)} targets",
            f"accuracy {self.accuracy:.3f}, 95 % interval over people {self.low:.3f} to "
            f"{self.high:.3f}; chance {1 / len(self.targets):.3f}; "
            f"{self.bits_per_minute:.1f} bits a minute, the first second included",
        ]
        for a in self.baselines:
            lines.append(
                f"against {a.name} {a.accuracy:.3f}: {a.won} trials won, {a.lost} lost, exact "
                f"McNemar p {a.p:.2g}"
            )
        if self.shuffled:
            lines.append(
                f"labels shuffled, {len(self.shuffled)} repeats: mean "
                f"{np.mean(self.shuffled):.3f}, {min(self.shuffled):.3f} to "
                f"{max(self.shuffled):.3f}"
            )
        lines.append(
            f"log loss {self.log_loss:.3f} nats, calibration error {self.calibration_error:.3f}"
        )
        people = [{"person": name, "accuracy": round(a, 3)} for name, a in self.per_person.items()]
        return "\n".join([*lines, "", table(people), "", table(self.undecided)])


def evaluate(
    held: HeldOutScores,
    epochs: Epochs,
    *,
    split: Split,
    window: float,
    decoder: str,
    shuffles: int = 0,
    grid: tuple[Any, NDArray[np.float32]] | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Report:
    """Figures of held-out scores, beside FBCCA as chosen on the other folds and as in textbooks.

    `epochs` are the trials that the scores are of, `grid` the scores of `grid_scores` where they
    are known already, `shuffles` the repeats of the control. Raises `DataError` for other trials.

    >>> from leancnn.eeg import load_epochs, train
    >>> trials = load_epochs(["trials.npz"])
    >>> _, held = train(trials, "runs/eeg", split="session", window=1.0)
    >>> report = evaluate(held, trials, split="session", window=1.0, decoder="logit")
    >>> report.accuracy > 0.5
    True
    """
    held.check_trials(epochs)
    looking = epochs.looking()
    here = held.labels >= 0
    labels, tested = held.labels[here], held.tested[here]
    people = looking.subject[tested]
    correct = (held.scores[here].argmax(1) == labels)[tested]
    baselines = _baselines(looking, labels, tested, correct, split, window, grid, progress)
    logs, rest = log_softmax(held.scores[here][tested]), held.scores[~here & held.tested]
    low, high = interval(correct, people)
    accuracy = float(correct.mean())
    return Report(
        decoder=decoder,
        split=split,
        window=window,
        targets=looking.targets,
        trials=int(tested.sum()),
        accuracy=accuracy,
        low=low,
        high=high,
        per_person={str(name): float(correct[people == name].mean()) for name in np.unique(people)},
        baselines=baselines,
        bits_per_minute=bits_per_minute(accuracy, len(looking.targets), window + AFTER_CUE),
        log_loss=log_loss(logs, labels[tested]),
        calibration_error=calibration_error(logs, labels[tested]),
        undecided=undecided_curve(np.exp(logs), labels[tested], np.exp(log_softmax(rest))),
        shuffled=_control_runs(looking, split, window, decoder, shuffles, progress),
    )


def _control_runs(
    looking: Epochs,
    split: Split,
    window: float,
    decoder: str,
    repeats: int,
    progress: Callable[[str, int, int], None],
) -> tuple[float, ...]:
    if not repeats:
        return ()
    features = DecoderConfig(decoder).features(looking, bank_for(looking.targets), window)
    found = []
    for repeat in range(repeats):
        progress("shuffled labels", repeat, repeats)
        found.append(shuffled(looking, split, window, decoder, repeat, features))
    return tuple(found)


def _baselines(
    looking: Epochs,
    labels: NDArray[np.int64],
    tested: NDArray[np.bool_],
    correct: NDArray[np.bool_],
    split: Split,
    window: float,
    grid: tuple[Any, NDArray[np.float32]] | None,
    progress: Callable[[str, int, int], None],
) -> tuple[Baseline, ...]:
    if grid is None:
        grid = grid_scores(looking, window, lambda done: progress("untrained grid", done, 224))
    best, _, _ = chosen(looking, split, grid[1])
    others = {"FBCCA chosen": best, "FBCCA textbook": textbook_scores(looking, window)}
    found = []
    for name, scores in others.items():
        theirs = (scores.argmax(1) == labels)[tested]
        found.append(Baseline(name, float(theirs.mean()), *mcnemar(correct, theirs)))
    return tuple(found)


def shuffled(
    looking: Epochs,
    split: Split,
    window: float,
    decoder: str,
    repeat: int,
    features: NDArray[np.float32] | None = None,
) -> float:
    """The accuracy of a decoder whose training labels were dealt anew within each session.

    It must lie at chance, on average over many repeats; one alone proves nothing. A network begins
    with random weights here: one that starts as FBCCA stays above chance untaught.
    """
    if features is None:
        features = DecoderConfig(decoder).features(looking, bank_for(looking.targets), window)
    labels = looking.labels
    random = np.random.default_rng(repeat)
    dealt = labels.copy()
    for session in np.unique(looking.session):
        places = np.flatnonzero(looking.session == session)
        dealt[places] = random.permutation(labels[places])
    scores = np.zeros((len(labels), len(looking.targets)))
    tested = np.zeros(len(labels), bool)
    for test in _control_folds(looking, split, decoder):
        scores[test] = _control(decoder, features, dealt, ~test, test, looking, repeat)
        tested |= test
    return float((scores.argmax(1) == labels)[tested].mean())


def _control_folds(looking: Epochs, split: Split, decoder: str) -> list[NDArray[np.bool_]]:
    whole = [test for _, test in folds(looking, split)]
    if decoder == "logit" or len(whole) <= CONTROL_FOLDS:
        return whole
    return [np.logical_or.reduce(whole[number::CONTROL_FOLDS]) for number in range(CONTROL_FOLDS)]


def _control(
    decoder: str,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    looking: Epochs,
    repeat: int,
) -> Floats:
    targets, bank = looking.targets, bank_for(looking.targets)
    if decoder == "logit":
        logit = fit_logit(
            features[train],
            labels[train],
            looking.subject[train],
            targets,
            bank,
            strength=CONTROL_STRENGTH,
        )
        return np.stack([logit.scores_from_features(image) for image in features[test]]).astype(
            np.float64
        )
    from leancnn.eeg.network import decoder_of, fit_network

    name = "ssvepnet" if decoder in KINDS else decoder
    network = fit_network(
        features[train], labels[train], targets, seed=repeat, name=name, fbcca_start=False
    )
    made = decoder_of([network], targets, bank)
    return np.stack([made.scores_from_features(image) for image in features[test]]).astype(
        np.float64
    )
