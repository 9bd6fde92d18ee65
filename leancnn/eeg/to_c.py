"""A logit with its filters and features as one C file: samples in, scores of the candidates out."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.decoders import Logit
from leancnn.eeg.features import OFFSETS, Floats
from leancnn.version import __version__

LANES = 8  # lines are filled up to a multiple of it


def pipeline_c(logit: Logit, fs: float, channels: int, window: float, name: str = "eeg") -> str:
    """C11 text with `NAME_reset`, `NAME_push` of a sample, and `NAME_scores` of the last window.

    It computes what the stream does in Python, to rounding; `struct eeg` is the state.
    """
    samples = round(window * fs)
    bands = logit.bank.filters(fs, channels).bands
    sections = np.stack([band.sections for band in bands])
    lines = [hz + step for hz in logit.frequencies for step in OFFSETS]
    angles = np.zeros(-(-len(lines) // LANES) * LANES)
    angles[: len(lines)] = 2 * np.pi * np.array(lines) / fs
    behind = angles * (1 - (samples % 2 == 0) / 2)  # from the window's middle to the next sample
    unmix = np.zeros((6, len(angles)))
    unmix[:, : len(lines)] = np.stack([unmixing(a, samples) for a in angles[: len(lines)]], 1)
    values: dict[str, object] = {
        "VERSION": __version__,
        "NAME": name,
        "CHANNELS": channels,
        "BANDS": len(bands),
        "SECTIONS": sections.shape[1],
        "SAMPLES": samples,
        "CANDIDATES": len(logit.frequencies),
        "SOS": braced(sections[:, :, (0, 1, 2, 4, 5)]),
        "REST": braced(np.stack([band.at_rest for band in bands])),
        "LANES": LANES,
        "STEP": braced(np.stack([np.cos(angles), np.sin(angles)])),
        "FIRST": braced(np.stack([np.cos(behind), np.sin(behind)])),
        "UNMIX": braced(unmix),
        "MEAN": braced(logit.mean),
        "SCALE": braced(1 / logit.std),
        "WEIGHT": braced(logit.weights),
        "BIAS": braced(logit.bias),
    }
    text = files("leancnn.eeg").joinpath("pipeline.c").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def unmixing(angle: float, samples: int) -> Floats:
    """Six numbers that make waves of `angle` and twice it orthonormal over a window, mean removed.

    Waves are counted from the window's middle: sines are odd, cosines even, the two orthogonal. Of
    each kind: the first's, then the two of the second.
    """
    at = angle * (np.arange(samples) - (samples - 1) / 2)
    found = []
    for wave in (np.sin, np.cos):
        pair = np.stack([wave(at), wave(2 * at)], 1)
        pair -= pair.mean(0)
        found.append(np.linalg.inv(np.linalg.cholesky(pair.T @ pair)).T)
    sine, cosine = found
    return np.array([sine[0, 0], cosine[0, 0], *sine[:, 1], *cosine[:, 1]])


def braced(values: NDArray[Any]) -> str:
    """Numbers of any shape as C writes them, without the outer braces."""
    if values.ndim == 1:
        return ", ".join(f"{value:.17g}" for value in values)
    return ", ".join("{" + braced(row) + "}" for row in values)
