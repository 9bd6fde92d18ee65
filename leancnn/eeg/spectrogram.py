"""A window as a picture that any network of images takes: log power, a plane for each electrode.

Rows are frequencies from below the lowest candidate to above the second harmonic of the highest,
columns moments; its size is the one that the network is made for. What is learnt of such a picture
holds for one mixing of electrodes, where correlations hold for any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.features import Floats
from leancnn.eeg.filters import Bank
from leancnn.eeg.recording import Epochs
from leancnn.eeg.windows import windows

SEGMENT = 0.5  # of the window: each column's share of it
MARGIN = 2.0  # Hz below the lowest candidate and above the highest harmonic
FLOOR = 1e-3  # of a plane's mean power, under the logarithm


def spectrogram(
    window: Floats, frequencies: Sequence[float], fs: float, size: tuple[int, int]
) -> NDArray[np.float32]:
    """A window (bands, channels, samples) of a bank to (channels, *size), from its widest band.

    The logarithm of the power, each plane with a mean of 0: no unit and no gain matters.

    >>> time = np.arange(500) / 250
    >>> sine = np.sin(2 * np.pi * 10 * time)[None, None]
    >>> picture = spectrogram(sine, (10.0, 12.0), 250.0, (32, 8))
    >>> picture.shape, int(picture[0].mean(1).argmax())
    ((1, 32, 8), 3)
    """
    x, samples = window[0], window.shape[2]
    length = max(round(SEGMENT * samples), 2)
    starts = np.linspace(0, samples - length, size[1]).round().astype(int)
    waves = _waves(tuple(frequencies), fs, length, size[0])  # (H, length)
    pieces = np.stack([x[:, start : start + length] for start in starts], 2)  # (C, length, W)
    power = np.abs(np.einsum("hl,clw->chw", waves, pieces, optimize=True)) ** 2
    mean = power.mean((1, 2), keepdims=True)
    logs = np.log(power / np.where(mean > 0, mean, 1) + FLOOR)
    return np.asarray(logs - logs.mean((1, 2), keepdims=True), np.float32)


@lru_cache(maxsize=16)
def _waves(
    frequencies: tuple[float, ...], fs: float, length: int, rows: int
) -> NDArray[np.complex128]:
    """Windowed waves (rows, length) of the frequencies that the rows stand for."""
    low = max(min(frequencies) - MARGIN, 1.0)
    high = min(2 * max(frequencies) + MARGIN, 0.45 * fs)
    hz, time = np.linspace(low, high, rows), np.arange(length) / fs
    return np.asarray(np.exp(-2j * np.pi * hz[:, None] * time) * np.hanning(length))


def spectrograms(
    epochs: Epochs, bank: Bank, seconds: float, size: tuple[int, int]
) -> NDArray[np.float32]:
    """The pictures of all trials, (N, channels, *size)."""
    targets = epochs.targets
    return np.stack(
        [spectrogram(w, targets, epochs.fs, size) for w in windows(epochs, bank, seconds)]
    )
