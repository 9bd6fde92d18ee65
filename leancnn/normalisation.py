"""From stored values to what a network computes on, by channel: (value / full − mean) / std.

Torch, C, the integers and every target take the two numbers of a channel from here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[Any]


def scale_and_shift(
    mean: Numbers, std: Numbers, full_scale: float = 255.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each channel, what a stored value is multiplied by and what is added then: (C,), (C,).

    `mean` and `std` are those of values in which 1 is full: 255 of pixels, 1 of signals' features.

    >>> scale, shift = scale_and_shift([0.5], [0.25])
    >>> float(255 * scale[0] + shift[0])
    2.0
    """
    means, stds = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    return 1 / (full_scale * stds), -means / stds


def planes(
    images: NDArray[Any], mean: Numbers, std: Numbers, full_scale: float = 255.0
) -> NDArray[np.float32]:
    """Stored images (N, H, W, C) as normalised float32 (N, C, H, W), in numpy."""
    scale, shift = (part.astype(np.float32) for part in scale_and_shift(mean, std, full_scale))
    return np.ascontiguousarray((images.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2))
