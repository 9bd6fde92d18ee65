"""Train a decoder, and know what it does on people it has not seen.

`fit` is one decoder from trials. `train` is a run: for each fold a decoder that has not seen it,
whose scores are kept, and one of all trials, which is what lives on.

runs/e/
  decoder.json, decoder.safetensors   the decoder of all trials, checked in every byte
  decoder.c                           of a logit: filters, features and decoder in one file
  best/                               its first network, as `leancnn compile` takes it
  networks/2 …                        the others
  held_out.json, .safetensors         scores of each trial by a decoder that has not seen its fold
  evaluation.json                     what `evaluate` found
  data.json                           the files it was trained on
  integers.json                       of one in integers: what they cost
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.decoders import FBCCA, Ensemble, Logit, TrainedDecoder, fit_logit, temperature_for
from leancnn.eeg.filters import Bank, bank_for
from leancnn.eeg.held_out import HeldOutScores, save_held_out
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import Split, folds
from leancnn.eeg.windows import images
from leancnn.errors import DamagedError, DataError, RunError, UsageError
from leancnn.safe_files import Tensors, atomic_write, load_pair, save_pair
from leancnn.version import __version__

KINDS = ("logit", "ssvepnet", "ensemble")  # any other is a network of images, on spectrograms
NETWORKS = 4  # SSVEPNets of different seeds, averaged
FORMAT = 1


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What kind of decoder is trained. Raises `UsageError` for one that does not exist."""

    kind: str = "logit"
    """`logit`, `ssvepnet`, `ensemble`, or a network of images that is given spectrograms."""
    seed: int = 0
    keep_ratio: float | None = None
    """Of the channels of its networks, which are pruned to it and trained again."""

    def __post_init__(self) -> None:
        if self.kind == "blend":  # as 0.1 has it
            object.__setattr__(self, "kind", "ensemble")
        if self.kind == "logit" and self.keep_ratio is not None:
            raise UsageError("a logit has no channels to prune; leave --keep-ratio")
        if self.kind in KINDS:
            return
        from leancnn import models

        if self.kind not in models.names():
            raise UsageError(
                f"'{self.kind}' is no decoder that is trained; choose {', '.join(KINDS)}, or a "
                "network of leancnn models"
            )

    def features(self, epochs: Epochs, bank: Bank, window: float) -> NDArray[np.float32]:
        """What it reads of trials: correlations, or spectrograms of its network's own size."""
        if self.kind in KINDS:
            return images(epochs, bank, window)
        from leancnn import models
        from leancnn.eeg.spectrogram import spectrograms

        _, height, width = models.card(self.kind).image
        return spectrograms(epochs, bank, window, (height, width))


def fit(
    epochs: Epochs,
    *,
    window: float = 2.0,
    decoder: str = "logit",
    seed: int = 0,
    keep_ratio: float | None = None,
) -> TrainedDecoder:
    """One decoder from all trials of `epochs` that look at something; `window` in seconds.

    `decoder`, `seed` and `keep_ratio` as `DecoderConfig` takes them. Raises `DataError` for trials
    that are too short, or of fewer than two people or sessions.

    >>> from leancnn.eeg.read import load_epochs
    >>> decoder = fit(load_epochs(["trials.npz"]), window=1.0)
    >>> decoder.frequencies
    (10.0, 12.0)
    """
    looking = epochs.looking()
    _check(looking)
    bank = bank_for(looking.targets)
    config = DecoderConfig(decoder, seed, keep_ratio)
    features = config.features(looking, bank, window)
    return _fit(features, looking.labels, _groups(looking), looking.targets, bank, config)


def _check(looking: Epochs) -> None:
    if len(looking.targets) < 2:
        raise DataError(
            f"{looking.source}: a decoder needs trials of two or more frequencies; there are "
            f"{', '.join(f'{hz:g} Hz' for hz in looking.targets) or 'none'}"
        )
    if not np.isfinite(looking.x).all():
        raise DataError(f"{looking.source}: NaN in its signals; leancnn eeg check says where")


def _groups(looking: Epochs) -> NDArray[Any]:
    """Whose each trial is; where all are one person's, of which session."""
    return looking.subject if len(np.unique(looking.subject)) > 1 else looking.session


def _fit(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[Any],
    frequencies: tuple[float, ...],
    bank: Bank,
    config: DecoderConfig,
) -> TrainedDecoder:
    parts: list[TrainedDecoder] = []
    if config.kind in ("logit", "ensemble"):
        parts.append(fit_logit(features, labels, groups, frequencies, bank))
    if config.kind != "logit":
        from leancnn.eeg.network import decoder_of, fit_network

        usual = config.kind in KINDS
        count, name = (NETWORKS, "ssvepnet") if usual else (1, config.kind)
        networks = [
            fit_network(
                features,
                labels,
                frequencies,
                seed=count * config.seed + number,
                name=name,
                keep_ratio=config.keep_ratio,
            )
            for number in range(count)
        ]
        parts.append(decoder_of(networks, frequencies, bank))
    return parts[0] if len(parts) == 1 else Ensemble(tuple(parts))


def train(
    epochs: Epochs,
    out: str | Path,
    *,
    split: Split = "subject",
    window: float = 2.0,
    decoder: str = "logit",
    seed: int = 0,
    keep_ratio: float | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[TrainedDecoder, HeldOutScores]:
    """A run in the folder `out`: held-out scores by `split`, and the decoder of all trials.

    `progress` is told how many of how many trainings are done. Raises `RunError` for a folder that
    is taken, `DataError` as `fit` does, `UsageError` for another kind.

    >>> from leancnn.eeg.read import load_epochs
    >>> trials = load_epochs(["trials.npz"])
    >>> decoder, held = train(trials, "runs/eeg", split="session", window=1.0)
    >>> held.scores.shape
    (16, 2)
    """
    config = DecoderConfig(decoder, seed, keep_ratio)
    out = check_free(out)
    looking = epochs.looking()
    _check(looking)
    bank = bank_for(looking.targets)
    held = held_out_scores(epochs, split, window, config, progress)
    features = config.features(looking, bank, window)
    whole = _fit(features, looking.labels, _groups(looking), looking.targets, bank, config)
    seen = held.tested & (held.labels >= 0)
    if not isinstance(whole, Logit):
        # Of people not seen: a network is surer of those that it was trained on.
        whole = with_temperature(whole, temperature_for(held.scores[seen], held.labels[seen]))
    about = {
        "format": FORMAT,
        "leancnn": __version__,
        "data": epochs.source,
        "split": split,
        "window": window,
        "decoder": decoder,
        "seed": seed,
        "keep_ratio": keep_ratio,
        "fs": epochs.fs,
        "channels": list(epochs.channels),
        "trials": len(looking),
        "people": len(np.unique(looking.subject)),
    }
    save(whole, out, about)
    if isinstance(whole, Logit):
        from leancnn.eeg.to_c import pipeline_c

        text = pipeline_c(whole, epochs.fs, len(epochs.channels), window)
        atomic_write(out / "decoder.c", text.encode())
    save_held_out(held, out, about)
    return whole, held


def check_free(out: str | Path) -> Path:
    """The folder of a run to be written. Raises `RunError` where something is in it."""
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty; choose another folder")
    return out


Finish = Callable[[TrainedDecoder, NDArray[np.float32], NDArray[np.int64]], TrainedDecoder]


def held_out_scores(
    epochs: Epochs,
    split: Split,
    window: float,
    config: DecoderConfig,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> HeldOutScores:
    """Train once for each fold and score what it holds out, rest trials too."""
    return held_out_by_each(epochs, split, window, config, [as_trained], progress)[0]


def as_trained(
    made: TrainedDecoder, features: NDArray[np.float32], labels: NDArray[np.int64]
) -> TrainedDecoder:
    """The decoder of a fold as it is."""
    return made


def held_out_by_each(
    epochs: Epochs,
    split: Split,
    window: float,
    config: DecoderConfig,
    finishes: Sequence[Finish],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[HeldOutScores]:
    """Train once for each fold, and score what it holds out by what each of `finishes` makes of it.

    A finish is given the trained decoder and the features and labels that it was trained on.
    """
    bank = bank_for(epochs.targets)
    features, labels = config.features(epochs, bank, window), epochs.labels
    scores = np.zeros((len(finishes), len(epochs), len(epochs.targets)))
    tested = np.zeros(len(epochs), bool)
    parts = list(folds(epochs, split))
    for done, (_, test) in enumerate(parts):
        used = ~test & (labels >= 0)
        seen = features[used], labels[used]
        trained = _fit(*seen, _groups(epochs[used]), epochs.targets, bank, config)
        for number, finish in enumerate(finishes):
            made = finish(trained, *seen)
            for place in np.flatnonzero(test):
                scores[number, place] = (
                    made.scores_from_features(features[place]) / made.temperature
                )
        tested |= test
        progress(done + 1, len(parts))
    digests = epochs.digests_with_facts()
    return [
        HeldOutScores(one, labels, epochs.subject, epochs.session, tested, digests)
        for one in scores
    ]


def with_temperature(decoder: TrainedDecoder, temperature: float) -> TrainedDecoder:
    """The same decoder with another temperature."""
    changed: Any = replace(decoder, temperature=temperature)  # type: ignore[type-var]
    made: TrainedDecoder = changed
    return made


# On disk


def save(decoder: TrainedDecoder, folder: str | Path, about: dict[str, Any]) -> None:
    """Save a trained decoder. Raises `WriteError`."""
    folder = Path(folder)
    parts = decoder.parts if isinstance(decoder, Ensemble) else (decoder,)
    tensors: Tensors = {}
    saved: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Logit):
            for key in ("weights", "bias", "mean", "std"):
                tensors[key] = getattr(part, key)
            saved.append({"kind": "logit", "temperature": part.temperature})
        elif isinstance(part, FBCCA):
            saved.append(part.to_json())
        else:
            saved.append(_save_networks(part, folder))
    tensors["frequencies"] = np.array(decoder.frequencies)
    manifest = {
        **about,
        "bank": decoder.bank.to_json(),
        "parts": saved,
        "temperature": decoder.temperature,
        "name": decoder.name,
    }
    save_pair(folder / "decoder.json", folder / "decoder.safetensors", manifest, tensors)


def _save_networks(part: Any, folder: Path) -> dict[str, Any]:
    from leancnn.weights import save as save_network

    places = []
    for number, network in enumerate(part.networks):
        place = "best" if number == 0 else f"networks/{number + 1}"
        save_network(network, folder / place)
        places.append(place)
    return {"kind": part.name, "networks": places, "temperature": part.temperature}


def load(folder: str | Path) -> tuple[TrainedDecoder, dict[str, Any]]:
    """A saved decoder, and what was said of it. Raises `RunError`, `DamagedError`."""
    folder = Path(folder)
    if not (folder / "decoder.json").exists():
        raise RunError(f"{folder} holds no decoder of signals; leancnn eeg train makes one")
    about, tensors = load_pair(folder / "decoder.json", folder / "decoder.safetensors")
    try:
        if about["format"] > FORMAT:
            raise DamagedError(f"{folder} was saved by a newer leancnn; update this one")
        frequencies = tuple(map(float, tensors["frequencies"]))
        bank = Bank.from_json(about["bank"])
        parts = [_part(folder, saved, frequencies, bank, tensors) for saved in about["parts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{folder}: not a saved decoder ({error!r})") from error
    if len(parts) > 1:
        return Ensemble(tuple(parts), about["temperature"]), about
    return with_temperature(parts[0], about["temperature"]), about


def _part(
    folder: Path,
    saved: dict[str, Any],
    frequencies: tuple[float, ...],
    bank: Bank,
    tensors: Tensors,
) -> TrainedDecoder:
    if saved["kind"] == "logit":
        weights, bias, mean, std = (tensors[key] for key in ("weights", "bias", "mean", "std"))
        return Logit(frequencies, bank, weights, bias, mean, std, saved["temperature"])
    from leancnn.eeg.network import decoder_of
    from leancnn.weights import load as load_network

    networks = [load_network(folder / place) for place in saved["networks"]]
    return decoder_of(networks, frequencies, bank, saved["temperature"])
