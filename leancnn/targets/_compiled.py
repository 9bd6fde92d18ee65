"""A compiled library as every target's artifact is used."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiled import CompiledNetwork
from leancnn.normalisation import planes
from leancnn.targets._base import EngineSession, Logits


def loaded(native: CompiledNetwork) -> EngineSession:
    """Stored images in, logits out; what is timed is the call that users make."""
    mean, std = native.about.get("mean", [0.0]), native.about.get("std", [1.0])
    full = 255.0 if native.dtype == np.uint8 else 1.0

    def logits(images: NDArray[Any]) -> Logits:
        return native.logits(planes(images, mean, std, full))

    return EngineSession(
        logits,
        native.classes,
        native.bare,
        native,
        {**native.about, "name": native.name},
        ("c", native.path),
    )
