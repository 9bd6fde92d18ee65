"""What a live source hands out, and what a source is.

A source is iterated and yields chunks; `None` says that it waited a while and nothing came. Whoever
reads it decides how long silence may last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.recording import Event

POLL_S = 0.002  # how long a source waits before it says that nothing came


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Samples (channels, n) that came together.

    `first` is the number of the first as the source counts, lost ones included; `due` the moment on
    `time.monotonic` at which the last one was measured, or None when the source does not say.
    """

    x: NDArray[np.float32]
    first: int
    due: float | None = None
    events: tuple[Event, ...] = ()
    """Their `sample` counts as `first` does."""
    fresh: bool = False
    """Another stretch of signal begins: what came before has nothing to do with it."""
    back: int = 0
    """Samples that were taken for lost before, by their stamps, and were only late."""


class Source(Protocol):
    """What live decoding needs of a source."""

    @property
    def name(self) -> str: ...

    @property
    def fs(self) -> float: ...

    @property
    def channels(self) -> tuple[str, ...]: ...

    @property
    def unit(self) -> str: ...

    def __iter__(self) -> Iterator[Chunk | None]: ...

    def close(self) -> None:
        """Let go of whatever is held; may be called twice."""
        ...
