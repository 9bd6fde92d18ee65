"""A network in an engine, whatever engine it is: what a target's file becomes when it is loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.classifier import check_images, softmax
from leancnn.errors import DamagedError
from leancnn.preprocess import Preprocessing

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EngineSession:
    """Stored images (N, H, W, C) in, logits (N, classes) out; a `Classifier`."""

    run: Callable[[NDArray[Any]], Logits]
    """Logits (N, classes) of images (N, H, W, C), on one thread."""
    classes: tuple[str, ...]
    prepare: Callable[[NDArray[Any]], Callable[[], Any]]
    """One image (1, H, W, C) to the bare call that is timed; it answers for that image."""
    call: Callable[[NDArray[Any]], NDArray[np.float32]] | None = None
    """Probabilities, where users call another entry than `run`; that is then what is timed."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the artifact says of itself: `name`, and `preprocessing`, of picture files."""
    made_of: tuple[str, Path] | None = None
    """The target's name and the file that was loaded, where one was."""
    lock: Any = field(default_factory=Lock, compare=False, repr=False)
    """Engines answer one question at a time."""

    @property
    def name(self) -> str:
        """That of the network."""
        return str(self.about.get("name") or "the artifact")

    def pictures(self) -> Preprocessing:
        """From picture files to its input. Raises `DamagedError` where it does not say."""
        written = self.about.get("preprocessing", self.about.get("road"))  # so it was called in 0.1
        if not isinstance(written, dict):
            raise DamagedError(f"{self.name} does not say how a picture becomes its input")
        return Preprocessing.from_json(written)

    def logits(self, images: NDArray[Any]) -> Logits:
        """(N, classes) of stored images (N, H, W, C)."""
        with self.lock:
            return self.run(images)

    def entry(self, images: NDArray[Any]) -> NDArray[np.float32] | None:
        """Probabilities by the call that users make, where that is another than `logits`."""
        with self.lock:
            return None if self.call is None else self.call(images)

    def probabilities(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """(N, classes) of uint8 images (N, H, W, C). Raises `MismatchError` for others."""
        images = check_images(images, self.name, self.pictures())
        if not len(images):
            return np.empty((0, len(self.classes)))
        found = self.entry(images)
        return softmax(self.logits(images)) if found is None else found.astype(np.float64)
