"""What a target is: a way to write a network, and to load back what was written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.registry import Registry

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An artifact as a function: uint8 (N, H, W, C) in, logits (N, classes) out."""

    logits: Callable[[NDArray[np.uint8]], Logits]
    classes: tuple[str, ...]
    prepare: Callable[[NDArray[np.uint8]], Callable[[], Any]]
    """One image (1, H, W, C) to the bare call that is timed; it answers for that image."""
    probabilities: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
    """The entry that users call where that is another than `logits`, and is what is timed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A format on disk. Every engine runs on one thread."""

    name: str
    summary: str
    suffix: str
    """Of the file that is loaded; a target without one stays in the process."""
    write: Callable[..., list[Path]]
    """Write into a folder; the files written, that which is loaded first."""
    load: Callable[[Path], Loaded]
    options: tuple[str, ...] = ()
    """What `write` takes beside the network and the folder, by name."""


targets: Registry[Target] = Registry("target")


def register(target: Target) -> None:
    """Put a target on the shelf."""
    targets.register(target.name, target)
