"""Small made signals for the tests of leancnn.eeg, and where the recorded ones lie."""

import os
from functools import cache
from pathlib import Path

import numpy as np

from leancnn.eeg import Recording
from leancnn.eeg.synthetic import synthetic_trials

TARGETS = (7.5, 60 / 7, 10.0, 12.0)
RECORDED = Path(os.environ.get("LEANCNN_SSVEP", "shared/data/ssvep_exo_epochs.npz"))
"""Trials of twelve people; tests that want them skip where they are not."""


@cache
def people(count=4, trials=16, snr_db=-8.0, rest=0):
    """Made trials of several people, two sessions each; do not write into them."""
    return synthetic_trials(TARGETS, snr_db, trials=trials, people=count, rest=rest, seconds=3.5)


def save_trials(path, epochs, **changes):
    """Trials as the .npz that `load` reads."""
    arrays = {
        "X": epochs.x,
        "hz": epochs.hz,
        "subject": epochs.subject,
        "session": epochs.session,
        "fs": epochs.fs,
        "t0": epochs.t0,
        "channels": np.array(epochs.channels),
        "unit": epochs.unit,
    }
    np.savez(path, **{**arrays, **changes})
    return path


def noise(channels=3, samples=700, fs=250.0, **more):
    """A recording of nothing."""
    x = np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32)
    names = tuple(f"E{number}" for number in range(channels))
    return Recording(x=x, fs=fs, channels=names, unit="uV", source="noise", **more)
