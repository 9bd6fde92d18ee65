"""From a window of sub-bands to what decoders read: canonical correlations with sines.

A flicker of f Hz makes the visual cortex answer at f, 2f, … The largest canonical correlation r of
a window's channels with sines and cosines of those frequencies says how much of some mixture of
channels is such an answer; it does not change when channels are mixed or scaled. Sources: Lin et
al., Frequency recognition based on canonical correlation analysis for SSVEP-based BCIs, IEEE Trans.
Biomed. Eng. 2006; Chen et al. 2015 for the sub-bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import MismatchError

Floats = NDArray[np.float64]

OFFSETS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)  # Hz from a candidate
CENTRE = OFFSETS.index(0.0)
FLOOR = 0.02  # of r² under the logarithm: what noise reaches
RIDGE = (
    1e-12  # of the correlation matrix's diagonal: channels that are sums of others stay solvable
)


@lru_cache(maxsize=64)
def references(
    frequencies: tuple[float, ...], harmonics: int, samples: int, fs: float
) -> tuple[Floats, ...]:
    """For each frequency an orthonormal base (samples, 2 · harmonics) of its sines, mean removed.

    The first 2h columns span the first h harmonics.
    """
    time = np.arange(samples) / fs
    bases = []
    for hz in frequencies:
        angles = 2 * np.pi * hz * time[:, None] * np.arange(1, harmonics + 1)
        waves = np.stack([np.sin(angles), np.cos(angles)], 2).reshape(samples, 2 * harmonics)
        bases.append(np.linalg.qr(waves - waves.mean(0))[0])
    return tuple(bases)


def whitened(window: Floats) -> tuple[Floats, Floats]:
    """Windows (bands, channels, samples), mean removed and scaled, and the Cholesky factors."""
    x = window - window.mean(2, keepdims=True)
    power = np.sqrt(np.einsum("bcs,bcs->bc", x, x))
    x = x / np.where(power > 0, power, 1)[:, :, None]
    gram = x @ x.transpose(0, 2, 1)
    silent = (power == 0).astype(np.float64)
    eye = np.eye(x.shape[1])
    return x, np.linalg.cholesky(gram + (RIDGE + silent)[:, :, None] * eye)


def squared_correlations(
    window: Floats, frequencies: Sequence[float], fs: float, harmonics: Sequence[int]
) -> Floats:
    """r² (harmonics, bands, frequencies) of a window (bands, channels, samples) at `fs` Hz.

    A channel of zeros counts as not there. Raises `MismatchError` for a window that is too short
    for its channels.

    >>> time = np.arange(256) / 256
    >>> x = np.sin(2 * np.pi * 10 * time)[None, None]
    >>> squared_correlations(x, (10.0, 13.0), 256.0, (1,)).round(3).tolist()
    [[[1.0, 0.0]]]
    """
    bands, channels, samples = window.shape
    most = 2 * max(harmonics)
    if samples < channels + most + 1:
        raise MismatchError(
            f"a window of {samples} samples is too short for {channels} channels; take a longer one"
        )
    bases = references(tuple(map(float, frequencies)), max(harmonics), samples, float(fs))
    x, factor = whitened(np.asarray(window, np.float64))
    cross = np.linalg.solve(factor, x @ np.concatenate(bases, 1))  # (B, C, F · 2H)
    cross = cross.reshape(bands, channels, len(bases), most).transpose(0, 2, 1, 3)
    found = []
    for h in harmonics:
        part = cross[..., : 2 * h]
        inner = part.swapaxes(2, 3) @ part  # (B, F, 2h, 2h)
        found.append(_largest(inner))
    return np.clip(np.stack(found), 0.0, 1.0)


def _largest(inner: Floats) -> Floats:
    """The largest eigenvalue of symmetric matrices; of 2 × 2 in closed form."""
    if inner.shape[-1] == 2:
        a, b, d = inner[..., 0, 0], inner[..., 0, 1], inner[..., 1, 1]
        return np.asarray((a + d) / 2 + np.hypot((a - d) / 2, b), np.float64)
    return np.asarray(np.linalg.eigvalsh(inner)[..., -1], np.float64)


def correlations(
    window: Floats,
    frequencies: Sequence[float],
    fs: float,
    *,
    offsets: Sequence[float] = OFFSETS,
    harmonics: Sequence[int] = (1, 2),
) -> NDArray[np.float32]:
    """log(r² + 0.02) as an image (planes, candidates, offsets): what the trained decoders read.

    A plane is a number of harmonics in a sub-band, band by band: (band 1, 1), (band 1, 2), (band 2,
    1) … The neighbours of a candidate, up to 1 Hz away, say what the background is.
    """
    around = [hz + step for hz in frequencies for step in offsets]
    squares = squared_correlations(window, around, fs, harmonics)  # (H, B, K · 9)
    planes = squares.transpose(1, 0, 2).reshape(-1, len(frequencies), len(offsets))
    return np.log(planes + FLOOR).astype(np.float32)
