"""The second kind of a network's input: features of a window of signal, where images are the first.

A network of images is fed uint8 (N, H, W, C) by `preprocess.Preprocessing`; one of signals is fed
float32 of the same order, H candidates, W offsets, C planes. What differs is said here and nowhere
else: the type, what counts as 1 (a pixel of 255, a feature of 1.0), and what a file of it looks
like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import MismatchError, UsageError

KIND = "signal window"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalWindow:
    """Features (H, W, C) = (candidates, offsets, planes) of a window of signal.

    Raises `MismatchError` for sizes below 1.

    >>> SignalWindow(size=(3, 9), channels=10).shape
    (3, 9, 10)
    """

    dtype: ClassVar[type[np.float32]] = np.float32
    full_scale: ClassVar[float] = 1.0

    size: tuple[int, int]
    """(H, W): candidate frequencies, and offsets around each."""
    channels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(map(int, self.size)))
        if min(*self.size, self.channels) < 1:
            raise MismatchError(f"a window has sizes of 1 or more, not {self.size}")

    @property
    def scale(self) -> tuple[int, int]:
        """(H, W) as stored; a window of signal is stored as it is used."""
        return self.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.size, self.channels)

    def to_json(self) -> dict[str, Any]:
        return {"kind": KIND, "size": list(self.size), "channels": self.channels}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SignalWindow:
        """The window that `to_json` wrote. Raises `MismatchError`."""
        try:
            return cls(size=tuple(values["size"]), channels=values["channels"])
        except (KeyError, TypeError) as error:
            raise MismatchError(f"not a window of signal: {values}") from error

    def made(self, count: int) -> NDArray[np.float32]:
        """Made inputs (N, H, W, C) for a comparison of answers."""
        made = np.random.default_rng(0).standard_normal((count, *self.shape))
        made[0], made[-1] = 0, 1
        return made.astype(np.float32)

    def read(self, source: object, *, name: str = "") -> Any:
        """Refuse a file: signals are read as recordings. Raises `UsageError`."""
        raise UsageError(
            f"{name or source}: this network decodes signals, no pictures; see leancnn eeg --help"
        )

    def window(self, stored: NDArray[Any]) -> NDArray[Any]:
        return stored
