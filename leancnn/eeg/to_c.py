"""A logit with its filters and features as one C file: samples in, scores of the candidates out."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.decoders import Logit
from leancnn.eeg.features import OFFSETS
from leancnn.version import __version__


def pipeline_c(logit: Logit, fs: float, channels: int, window: float, name: str = "eeg") -> str:
    """C11 text with `NAME_reset`, `NAME_push` of a sample, and `NAME_scores` of the last window.

    It computes what the stream does in Python, to rounding; `struct eeg` is the state.
    """
    samples = round(window * fs)
    bands = logit.bank.filters(fs, channels).bands
    sections = np.stack([band.sections for band in bands])
    lines = [hz + step for hz in logit.frequencies for step in OFFSETS]
    angles = 2 * np.pi * np.array(lines) / fs
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
        "STEP": braced(np.stack([np.cos(angles), np.sin(angles)], 1)),
        "UNMIX": braced(np.stack([unmixing(angle, samples) for angle in angles])),
        "MEAN": braced(logit.mean),
        "SCALE": braced(1 / logit.std),
        "WEIGHT": braced(logit.weights),
        "BIAS": braced(logit.bias),
    }
    text = files("leancnn.eeg").joinpath("pipeline.c").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def unmixing(angle: float, samples: int) -> NDArray[np.float64]:
    """What makes sine, cosine and their second harmonic orthonormal over a window, mean removed."""
    at = angle * np.arange(samples)
    waves = np.stack([np.sin(at), np.cos(at), np.sin(2 * at), np.cos(2 * at)], 1)
    waves -= waves.mean(0)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(waves.T @ waves)).T, np.float64)


def braced(values: NDArray[Any]) -> str:
    """Numbers of any shape as C writes them, without the outer braces."""
    if values.ndim == 1:
        return ", ".join(f"{value:.17g}" for value in values)
    return ", ".join("{" + braced(row) + "}" for row in values)
