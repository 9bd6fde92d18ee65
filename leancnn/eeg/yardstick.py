"""Recorded people: every decoder on those it has not seen, beside decoders that nobody trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.balance import balanced, less_rest, rest_share_for, share_for
from leancnn.eeg.decoders import STRENGTHS, fit_logit, log_softmax
from leancnn.eeg.evaluation import shuffled
from leancnn.eeg.features import Floats
from leancnn.eeg.filters import bank_for
from leancnn.eeg.recording import Epochs
from leancnn.eeg.score_cache import cached
from leancnn.eeg.scoring import (
    Split,
    bits_per_minute,
    chosen,
    chosen_range,
    folds,
    grid_scores,
    interval,
    mcnemar,
    textbook_scores,
)
from leancnn.eeg.windows import AFTER_CUE, images

CELLS: tuple[tuple[Split, float], ...] = (
    ("subject", 2.0),
    ("session", 2.0),
    ("subject", 4.0),
    ("session", 4.0),
    ("subject", 1.0),
    ("session", 1.0),
)
EEGNET_S = 2.0  # the windows that EEGNet is trained on: an hour of one core

Parts = dict[str, Floats]
Mask = NDArray[np.bool_]


def grid_of(looking: Epochs, window: float) -> NDArray[np.float32]:
    """Scores (variants, N, K) of the untrained grid."""
    return cached(
        lambda: grid_scores(looking, window)[1],
        looking.x[:, 0, ::16],
        looking.labels,
        what="grid",
        window=window,
        form=GRID_FORM,
    )


GRID_FORM = 1  # raised when the grid or its filters change


def over_folds(
    looking: Epochs,
    split: Split,
    predict: Callable[[Mask], NDArray[Any]],
    fed: NDArray[np.float32],
    **facts: Any,
) -> Floats:
    """Held-out scores (N, K), fold by fold, each kept as soon as it is known.

    `predict(test)` trains on what is not held out and scores what is.
    """
    scores = np.zeros((len(looking), len(looking.targets)))
    for _, test in folds(looking, split):
        scores[test] = cached(partial(predict, test), fed, looking.labels, test, **facts)
    return scores


def logit_scores(looking: Epochs, split: Split, window: float) -> Floats:
    """Held-out log-probabilities of the logit."""
    bank, targets, labels = bank_for(looking.targets), looking.targets, looking.labels
    features = images(looking, bank, window)

    def predict(test: Mask) -> Floats:
        made = fit_logit(features[~test], labels[~test], looking.subject[~test], targets, bank)
        found = np.stack([made.scores_from_features(image) for image in features[test]])
        return log_softmax(found / made.temperature)

    return over_folds(looking, split, predict, features, what="logit", strengths=STRENGTHS)


def network_scores(looking: Epochs, split: Split, window: float, seed: int) -> Floats:
    """Held-out log-probabilities of one SSVEPNet."""
    from leancnn.eeg import network as n

    bank, targets, labels = bank_for(looking.targets), looking.targets, looking.labels
    features = images(looking, bank, window)

    def predict(test: Mask) -> Floats:
        made = n.fit_network(features[~test], labels[~test], targets, seed=seed)
        decoder = n.decoder_of([made], targets, bank)
        return log_softmax(
            np.stack([decoder.scores_from_features(image) for image in features[test]])
        )

    recipe = [n.EPOCHS, n.BATCH, n.LR, n.WEIGHT_DECAY, n.NOISE, n.WARM_UP]
    return over_folds(looking, split, predict, features, what="ssvepnet", seed=seed, recipe=recipe)


def rest_windows(
    resting: Epochs, targets: tuple[float, ...], window: float
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    """Features of all windows of rest trials, one behind the other, their people and sessions."""
    bank, end = bank_for(targets), resting.t0 + resting.x.shape[2] / resting.fs
    starts = [AFTER_CUE + n * window for n in range(int((end - AFTER_CUE) / window + 1e-9))]
    features = [images(resting, bank, window, targets, start) for start in starts]
    count = len(starts)
    return (
        np.concatenate(features),
        np.tile(resting.subject, count),
        np.tile(resting.session, count),
    )


def rest_subtracted(
    looking: Epochs, resting: Epochs, split: Split, window: float, networks: int, logs: Floats
) -> Floats:
    """Held-out log-probabilities of logit and networks, less what they say of the session's rest.

    How much of it, training people say; see `balance.less_rest`.
    """
    features = images(looking, bank_for(looking.targets), window)
    fed, people, sessions = rest_windows(resting, looking.targets, window)
    found = np.array(logs)
    for _, test in folds(looking, split):
        held = np.isin(sessions, looking.session[test])
        idle = rest_logs(looking, features, test, fed[held], networks)
        share = rest_share_for(looking, features, ~test, fed, people, sessions)
        session = looking.session[test]
        found[test] = less_rest(logs[test], session, idle, sessions[held], share)
    return found


def rest_logs(
    looking: Epochs,
    features: NDArray[np.float32],
    test: Mask,
    fed: NDArray[np.float32],
    networks: int,
) -> Floats:
    """Log-probabilities (M, K) of features `fed` by logit and networks that never saw `test`."""
    from leancnn.eeg import network as n

    bank, targets, labels = bank_for(looking.targets), looking.targets, looking.labels

    def logit() -> Floats:
        made = fit_logit(features[~test], labels[~test], looking.subject[~test], targets, bank)
        return log_softmax(
            np.stack([made.scores_from_features(image) for image in fed]) / made.temperature
        )

    def one(seed: int) -> Floats:
        made = n.fit_network(features[~test], labels[~test], targets, seed=seed)
        decoder = n.decoder_of([made], targets, bank)
        return log_softmax(np.stack([decoder.scores_from_features(image) for image in fed]))

    arrays = features, labels, test, fed
    recipe = [n.EPOCHS, n.BATCH, n.LR, n.WEIGHT_DECAY, n.NOISE, n.WARM_UP]
    mean = np.mean(
        [
            cached(partial(one, seed), *arrays, what="ssvepnet at rest", seed=seed, recipe=recipe)
            for seed in range(networks)
        ],
        0,
    )
    found: Floats = (cached(logit, *arrays, what="logit at rest", strengths=STRENGTHS) + mean) / 2
    return found


def eegnet_parts(looking: Epochs, split: Split, window: float) -> Iterator[Parts]:
    """Held-out scores of EEGNet, one seed, and of its halves beside the logit; then aligned."""
    from leancnn.eeg import eegnet as e
    from leancnn.eeg import network as n

    logit = logit_scores(looking, split, window)
    for name, aligned in (("EEGNet", False), ("EEGNet, sessions aligned", True)):
        x = e.signals(looking, bank_for(looking.targets), window, aligned=aligned)
        recipe = [e.EPOCHS, e.BATCH, n.LR, n.WEIGHT_DECAY, e.KERNEL, e.RATE, e.HIGH, e.DROPOUT]

        def predict(test: Mask, x: NDArray[np.float32] = x) -> Floats:
            return log_softmax(e.eegnet_scores(x, looking.labels, ~test, test, seed=0))

        found = over_folds(looking, split, predict, x, what="eegnet", recipe=recipe)
        yield {name: found} if aligned else {name: found, "logit + half EEGNet": logit + found / 2}


def averaged(looking: Epochs, split: Split, window: float, networks: int) -> Parts:
    """Held-out log-probabilities of each network, of their mean, and of that beside the logit."""
    names = [f"ssvepnet {number + 1}" for number in range(networks)]
    logs = [network_scores(looking, split, window, number) for number in range(networks)]
    mean: Floats = np.mean(logs, 0)
    both = (logit_scores(looking, split, window) + mean) / 2
    return {
        **dict(zip(names, logs, strict=True)),
        f"mean of {networks} ssvepnet": mean,
        f"logit + {networks} ssvepnet": both,
    }


def balance(looking: Epochs, split: Split, window: float, logs: Floats) -> Floats:
    """Held-out log-probabilities with each session balanced, by a share chosen in training."""
    features = images(looking, bank_for(looking.targets), window)
    found = np.array(logs)
    for _, test in folds(looking, split):
        share = share_for(looking, features, ~test)
        found[test] = balanced(logs[test], looking.session[test], share)
    return found


def uneven_rows(looking: Epochs, window: float, networks: int) -> list[dict[str, Any]]:
    """Logit and networks with and without balance, where sessions ask for one target less often.

    Which one goes round with the sessions; the share of balance is chosen on whole ones.
    """
    logs = list(averaged(looking, "subject", window, networks).values())[-1]
    features = images(looking, bank_for(looking.targets), window)
    labels, sessions, rows = looking.labels, np.unique(looking.session), []
    for asked, kept_share in (("as often as others", 1.0), ("half as often", 0.5), ("never", 0.0)):
        stays = np.ones(len(labels), bool)
        for number, name in enumerate(sessions):
            those = np.flatnonzero(
                (looking.session == name) & (labels == number % len(looking.targets))
            )
            stays[those[round(kept_share * len(those)) :]] = False
        found = np.array(logs)
        for _, test in folds(looking, "subject"):
            here = test & stays
            share = share_for(looking, features, ~test)
            found[here] = balanced(logs[here], looking.session[here], share)
        correct = [(scores.argmax(1) == labels)[stays].mean() for scores in (logs, found)]
        won, lost, p = mcnemar(*((s.argmax(1) == labels)[stays] for s in (found, logs)))
        rows.append(
            {
                "one target is asked for": asked,
                "trials": int(stays.sum()),
                f"logit + {networks} ssvepnet": round(float(correct[0]), 4),
                "sessions balanced": round(float(correct[1]), 4),
                "won": won,
                "lost": lost,
                "p": float(f"{p:.2g}"),
            }
        )
    return rows


def control(looking: Epochs, decoder: str, repeat: int, features: NDArray[np.float32]) -> float:
    """The accuracy of a decoder of shuffled labels, windows of 2 s, kept when it is known."""
    from leancnn.eeg import network as n

    recipe = [n.EPOCHS, n.BATCH, n.LR, n.WEIGHT_DECAY, n.NOISE, n.WARM_UP]
    found = cached(
        lambda: np.array([shuffled(looking, "subject", 2.0, decoder, repeat, features)]),
        features,
        looking.labels,
        what="shuffled",
        decoder=decoder,
        repeat=repeat,
        recipe=recipe,
    )
    return float(found[0])


def parts_of(looking: Epochs, resting: Epochs, split: Split, window: float, networks: int) -> Parts:
    """Held-out scores of everything that is trained, by name."""
    logit = logit_scores(looking, split, window)
    parts: Parts = {"logit": logit}
    if not networks:
        return {**parts, "logit, sessions balanced": balance(looking, split, window, logit)}
    parts |= averaged(looking, split, window, networks)
    last = list(parts)[-1]
    return {
        **parts,
        f"{last}, sessions balanced": balance(looking, split, window, parts[last]),
        f"{last}, less rest": rest_subtracted(
            looking, resting, split, window, networks, parts[last]
        ),
    }


def eegnet_cell(looking: Epochs, split: Split) -> Iterator[list[dict[str, Any]]]:
    """The rows of EEGNet and of what is averaged with it, as far as they are known."""
    best, tested, _ = chosen(looking, split, grid_of(looking, EEGNET_S))
    parts = {"FBCCA chosen": best}
    for more in eegnet_parts(looking, split, EEGNET_S):
        parts |= more
        yield _rows(looking, split, EEGNET_S, parts, tested)[0][1:]


def cell(
    epochs: Epochs, split: Split, window: float, networks: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of one split and window, and details of the untrained grid."""
    looking, resting = epochs.looking(), epochs.resting()
    grid = grid_of(looking, window)
    best, tested, picks = chosen(looking, split, grid)
    parts = {
        "FBCCA textbook": textbook_scores(looking, window),
        "FBCCA chosen": best,
        **parts_of(looking, resting, split, window, networks),
    }
    rows, correct = _rows(looking, split, window, parts, tested)
    return rows, {
        "grid": _spread(grid, looking.labels),
        "chosen variants": sorted(set(picks)),
        "chosen, by which of equals": [round(one, 4) for one in chosen_range(looking, split, grid)],
        "missed by all": int((~np.logical_or.reduce(list(correct.values()))).sum()),
    }


def _rows(
    looking: Epochs, split: Split, window: float, parts: Parts, tested: Mask
) -> tuple[list[dict[str, Any]], dict[str, Mask]]:
    """A row for each decoder, and which tested trials it has right."""
    labels, people = looking.labels, looking.subject[tested]
    correct = {name: (s.argmax(1) == labels)[tested] for name, s in parts.items()}
    head = {"held out": f"{split}s", "window s": window}
    rows = [
        {**head, **_row(name, mine, correct["FBCCA chosen"], people, window, looking)}
        for name, mine in correct.items()
    ]
    return rows, correct


def _row(
    name: str, mine: Mask, yard: Mask, people: NDArray[Any], window: float, looking: Epochs
) -> dict[str, Any]:
    won, lost, p = mcnemar(mine, yard)
    low, high = interval(mine, people)
    accuracy, itself = float(mine.mean()), name == "FBCCA chosen"
    bits = bits_per_minute(accuracy, len(looking.targets), window + AFTER_CUE)
    return {
        "decoder": name,
        "trials": len(mine),
        "accuracy": round(accuracy, 4),
        "interval": f"{low:.3f} to {high:.3f}",
        "won": "" if itself else won,
        "lost": "" if itself else lost,
        "p": "" if itself else float(f"{p:.2g}"),
        "bits/min": round(bits, 1),
    }


def _spread(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    accuracies = (scores.argmax(2) == labels).mean(1)
    return {
        "variants": len(accuracies),
        "least": round(float(accuracies.min()), 4),
        "median": round(float(np.median(accuracies)), 4),
        "most": round(float(accuracies.max()), 4),
    }
