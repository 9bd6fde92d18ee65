"""Windows of trials: filtered as a stream would be, then cut, one trial after another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.features import Floats, correlations
from leancnn.eeg.filters import Bank
from leancnn.eeg.recording import Epochs
from leancnn.errors import DataError

AFTER_CUE = 1.0  # seconds until the answer to a flicker stands; windows begin there


def span(epochs: Epochs, seconds: float, start: float = AFTER_CUE) -> tuple[int, int]:
    """First sample and length of a window. Raises `DataError` when trials are too short for it."""
    first, samples = epochs.sample(start), round(seconds * epochs.fs)
    if samples < 1 or first < 0 or first + samples > epochs.x.shape[2]:
        longest = epochs.x.shape[2] / epochs.fs + epochs.t0 - start
        raise DataError(
            f"{epochs.source}: a window of {seconds:g} s from {start:g} s after the cue does not "
            f"fit into its trials; at most {max(longest, 0):g} s do"
        )
    return first, samples


def windows(
    epochs: Epochs, bank: Bank, seconds: float, start: float = AFTER_CUE
) -> Iterator[Floats]:
    """For each trial its window (bands, channels, samples), filtered from the trial's start on."""
    first, samples = span(epochs, seconds, start)
    bands = bank.filters(epochs.fs, len(epochs.channels))
    for trial in epochs.x:
        bands.reset()
        yield np.ascontiguousarray(bands(trial[:, : first + samples])[:, :, first:])


def images(
    epochs: Epochs,
    bank: Bank,
    seconds: float,
    frequencies: tuple[float, ...] | None = None,
    start: float = AFTER_CUE,
) -> NDArray[np.float32]:
    """The features of all trials, (N, planes, candidates, offsets); see `features.correlations`."""
    targets = epochs.targets if frequencies is None else frequencies
    found = [
        correlations(window, targets, epochs.fs) for window in windows(epochs, bank, seconds, start)
    ]
    if not found:
        raise DataError(f"{epochs.source}: no trials")
    return np.stack(found)
