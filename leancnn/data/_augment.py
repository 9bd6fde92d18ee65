"""Augmentation of whole batches of uint8 images, each draw a pure function of (seed, epoch, index).

Nothing is remembered between batches: the position in an epoch is all that a resumed run needs, and
neither the batch size nor the number of processes changes what happens to an image.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Draws = NDArray[np.uint64]

# Streams of draws for one image in one epoch; the order is one draw too.
ORDER, ROW, COLUMN, FLIP, HOLE_ROW, HOLE_COLUMN, MIX, STEP = range(8)

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64: Steele, Lea, Flood, OOPSLA 2014


def draw(seed: int, epoch: int, stream: int, index: NDArray[np.int64]) -> Draws:
    """64 random bits for each index; equal arguments give equal bits on every machine."""
    bits = _mix(np.array([seed & (2**64 - 1)], np.uint64))
    for value in (epoch, stream):
        bits = _mix(bits ^ np.uint64(value))
    return _mix(bits ^ _mix(index.astype(np.uint64)))


def _mix(bits: Draws) -> Draws:
    """The finaliser of splitmix64: a bijection of 64 bits that leaves no visible pattern."""
    bits = bits + GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def below(bits: Draws, count: int) -> NDArray[np.int64]:
    """Whole numbers 0..count−1, each as likely to one part in 2³² / count."""
    return ((bits >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch sees its images: a permutation of 0..count−1."""
    return np.argsort(draw(seed, epoch, ORDER, np.arange(count)), kind="stable")


def step_seed(seed: int, step: int, process: int) -> int:
    """The seed of whatever else is random in a step, such as dropout."""
    return int(draw(seed, step, STEP, np.array([process]))[0])


def mix_share(seed: int, epoch: int, step: int, alpha: float) -> float:
    """How much of each image mixup keeps in a step: ½..1, from Beta(alpha, alpha)."""
    key = draw(seed, epoch, MIX, np.array([step]))[0]
    share = float(np.random.Generator(np.random.Philox(key=int(key))).beta(alpha, alpha))
    return max(share, 1 - share)


def partners(values: Tensor) -> Tensor:
    """Each item of a batch replaced by its neighbour, with which mixup mixes it: 1 0 3 2 5 4 …"""
    swapped = values.clone()
    even = len(values) // 2 * 2
    swapped[0:even:2], swapped[1:even:2] = values[1:even:2], values[0:even:2]
    return swapped


def augment(
    images: Tensor,
    index: NDArray[np.int64],
    *,
    size: tuple[int, int],
    seed: int,
    epoch: int,
    pad: int = 0,
    shift: int = 0,
    border: str = "black",
    flip: bool = False,
    cutout: int = 0,
) -> Tensor:
    """Cut a window of `size` out of each image: uint8 (N, h, w, C) → (N, H, W, C).

    `index` are the images' places in their split. With `pad` the window lies anywhere in the image
    with that border, else it is the centre one, moved by up to `shift` in each direction. Then half
    of the images are mirrored and a black square of `cutout` pixels is laid at a random place,
    which may hang over the edge. Sources: see the recipes; cutout: DeVries and Taylor, 2017.
    """
    n, h, w, channels = images.shape
    height, width = size
    rows = _window(seed, epoch, ROW, index, h, height, pad, shift)  # (N, H)
    columns = _window(seed, epoch, COLUMN, index, w, width, pad, shift)  # (N, W)
    if flip:
        mirrored = draw(seed, epoch, FLIP, index) >> np.uint64(63) == 1
        columns[mirrored] = columns[mirrored, ::-1]
    if border == "reflect":
        rows, columns = _reflect(rows, h), _reflect(columns, w)
    # One black row and column beside the image stand for everything outside it.
    rows = np.where((rows < 0) | (rows >= h), h, rows)
    columns = np.where((columns < 0) | (columns >= w), w, columns)
    source = images.new_zeros(n, h + 1, w + 1, channels)
    source[:, :h, :w] = images
    starts = np.arange(n)[:, None] * (h + 1) * (w + 1) + rows * (w + 1)
    place = _to(starts, images)[:, :, None] + _to(columns, images)[:, None, :]  # (N, H, W)
    if cutout:
        hole_rows = _hole(seed, epoch, HOLE_ROW, index, height, cutout)
        hole_columns = _hole(seed, epoch, HOLE_COLUMN, index, width, cutout)
        hole = _to(hole_rows, images)[:, :, None] & _to(hole_columns, images)[:, None, :]
        place = place.masked_fill(hole, h * (w + 1) + w)
    pixels = source.view(-1, channels).index_select(0, place.view(-1))
    return pixels.view(n, height, width, channels)


def _window(
    seed: int,
    epoch: int,
    stream: int,
    index: NDArray[np.int64],
    stored: int,
    cut: int,
    pad: int,
    shift: int,
) -> NDArray[np.int64]:
    """Positions (N, cut) along one axis, counted from the stored image's edge."""
    first, choices = (
        (-pad, stored + 2 * pad - cut + 1) if pad else ((stored - cut) // 2 - shift, 2 * shift + 1)
    )
    offset = first + below(draw(seed, epoch, stream, index), choices)
    return offset[:, None] + np.arange(cut)


def _hole(
    seed: int, epoch: int, stream: int, index: NDArray[np.int64], length: int, side: int
) -> NDArray[np.bool_]:
    """Which positions (N, length) along one axis the square covers."""
    first = below(draw(seed, epoch, stream, index), length) - side // 2
    place = np.arange(length) - first[:, None]
    return (place >= 0) & (place < side)


def _reflect(place: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions back at the edges: −1 → 1, length → length − 2."""
    period = max(2 * (length - 1), 1)
    folded = place % period
    return np.minimum(folded, period - folded) if length > 1 else np.zeros_like(place)


def _to(array: NDArray[np.int64] | NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
