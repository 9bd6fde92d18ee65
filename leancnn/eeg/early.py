"""A window that grows until the decoder is sure: what is gained in time, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from leancnn.eeg.features import Floats
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import bits_per_minute
from leancnn.eeg.windows import AFTER_CUE
from leancnn.eeg.yardstick import logit_scores

LENGTHS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
SURE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


def early_rows(looking: Epochs) -> list[dict[str, Any]]:
    """A row for each probability that is enough; 1.0 waits for the longest window."""
    shares = np.stack([np.exp(logit_scores(looking, "subject", one)) for one in LENGTHS])
    rows = []
    for sure in SURE:
        place = stops(shares.max(2), sure)
        choice = shares[place, np.arange(len(looking))].argmax(1)
        accuracy = float((choice == looking.labels).mean())
        seconds = float(np.array(LENGTHS)[place].mean()) + AFTER_CUE
        bits = bits_per_minute(accuracy, len(looking.targets), seconds)
        rows.append(
            {
                "sure": sure,
                "seconds": round(seconds, 2),
                "accuracy": round(accuracy, 4),
                "decided in 1 s": round(float((place == 0).mean()), 3),
                "never sure": round(float((shares.max(2).max(0) < sure).mean()), 3),
                "bits/min": round(bits, 1),
            }
        )
    return rows


def stops(most: Floats, sure: float) -> Any:
    """For each trial the first of the lengths (lengths, N) that is sure enough, else the last."""
    enough = most >= sure
    enough[-1] = True
    return enough.argmax(0)
