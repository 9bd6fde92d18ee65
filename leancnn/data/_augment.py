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
TURN, ZOOM, BRIGHT, CONTRAST, SATURATION, CLASS, PLACE = range(8, 15)
FINE = 256  # parts of a pixel in which a turned window is sampled: whole numbers, exact sums
LUMA = (299, 587, 114)  # ITU-R 601, thousandths

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


def balanced_order(seed: int, epoch: int, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """An epoch of as many images, of each class equally many but for a rest.

    An image comes again when its class has no other left. Entry k stands for image k mod n; each
    coming of it has another k, so that it is cut and turned otherwise each time.
    """
    count, classes = len(labels), np.unique(labels)
    shares = np.full(len(classes), count // len(classes))
    rest = np.argsort(draw(seed, epoch, CLASS, classes), kind="stable")[: count % len(classes)]
    shares[rest] += 1
    chosen = []
    for label, share in zip(classes, shares, strict=True):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(draw(seed, epoch, ORDER, own), kind="stable")]
        turn = np.arange(share)
        chosen.append(own[turn % len(own)] + count * (turn // len(own)))
    together = np.concatenate(chosen)
    return together[np.argsort(draw(seed, epoch, PLACE, together), kind="stable")]


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
    rotate: float = 0.0,
    zoom: float = 0.0,
    colour: float = 0.0,
) -> Tensor:
    """Cut a window of `size` out of each image: uint8 (N, h, w, C) → (N, H, W, C).

    `index` are the images' places in their split. With `pad` the window lies anywhere in the image
    with that border, else it is the centre one, moved by up to `shift` in each direction. Then half
    of the images are mirrored, all are turned by up to `rotate` degrees and scaled by up to 1 +
    `zoom` about the window's centre, their colours change by up to `colour`, and a black square of
    `cutout` pixels is laid at a random place, which may hang over the edge. Sources: see the
    recipes; cutout: DeVries and Taylor, 2017.
    """
    h, w = images.shape[1:3]
    height, width = size
    rows = _window(seed, epoch, ROW, index, h, height, pad, shift)  # (N, H)
    columns = _window(seed, epoch, COLUMN, index, w, width, pad, shift)  # (N, W)
    if flip:
        mirrored = draw(seed, epoch, FLIP, index) >> np.uint64(63) == 1
        columns[mirrored] = columns[mirrored, ::-1]
    if rotate or zoom:
        cut = _turned(images, index, rows, columns, seed, epoch, rotate, zoom, border)
    else:
        cut = _moved(images, rows, columns, border)
    if colour:
        cut = _coloured(cut, index, seed, epoch, colour)
    if cutout:
        hole_rows = _hole(seed, epoch, HOLE_ROW, index, height, cutout)
        hole_columns = _hole(seed, epoch, HOLE_COLUMN, index, width, cutout)
        hole = _to(hole_rows, images)[:, :, None] & _to(hole_columns, images)[:, None, :]
        cut = cut.masked_fill(hole[..., None], 0)
    return cut


def _moved(
    images: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64], border: str
) -> Tensor:
    """Whole pixels: rows (N, H) and columns (N, W) of uint8 (N, h, w, C), as (N, H, W, C)."""
    n, h, w, channels = images.shape
    if border == "reflect":
        rows, columns = _reflect(rows, h), _reflect(columns, w)
    # One black row and column beside the image stand for everything outside it.
    rows = np.where((rows < 0) | (rows >= h), h, rows)
    columns = np.where((columns < 0) | (columns >= w), w, columns)
    source = images.new_zeros(n, h + 1, w + 1, channels)
    source[:, :h, :w] = images
    starts = np.arange(n)[:, None] * (h + 1) * (w + 1) + rows * (w + 1)
    place = _to(starts, images)[:, :, None] + _to(columns, images)[:, None, :]  # (N, H, W)
    pixels = source.view(-1, channels).index_select(0, place.view(-1))
    return pixels.view(n, rows.shape[1], columns.shape[1], channels)


def _turned(
    images: Tensor,
    index: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    seed: int,
    epoch: int,
    rotate: float,
    zoom: float,
    border: str,
) -> Tensor:
    """The window turned and scaled about its centre, linear between four pixels.

    Places are rounded to 1/256 of a pixel and weights are whole numbers, so no sum depends on how
    many images are turned together.
    """
    n, h, w, channels = images.shape
    angle = np.radians(rotate) * _symmetric(draw(seed, epoch, TURN, index))
    scale = (1 + zoom) ** _symmetric(draw(seed, epoch, ZOOM, index))
    cos, sin = (each(angle)[:, None, None] / scale[:, None, None] for each in (np.cos, np.sin))
    middle_row, middle_column = (each.mean(1)[:, None, None] for each in (rows, columns))
    down, across = rows[:, :, None] - middle_row, columns[:, None, :] - middle_column
    row = np.rint(FINE * (middle_row + cos * down - sin * across)).astype(np.int64)
    column = np.rint(FINE * (middle_column + sin * down + cos * across)).astype(np.int64)
    source = images.new_zeros(n, h + 1, w + 1, channels)
    source[:, :h, :w] = images
    flat = source.view(-1, channels)
    total = torch.zeros(*row.shape, channels, dtype=torch.int32, device=images.device)
    for below, to_the_right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = [row % FINE if below else FINE - row % FINE]
        part += [column % FINE if to_the_right else FINE - column % FINE]
        places = [_inside(row // FINE + below, h, border)]
        places += [_inside(column // FINE + to_the_right, w, border)]
        start = np.arange(n)[:, None, None] * (h + 1) * (w + 1)
        place = _to(start + places[0] * (w + 1) + places[1], images)
        weight = _to((part[0] * part[1]), images).to(torch.int32)[..., None]
        total += weight * flat.index_select(0, place.view(-1)).view_as(total)
    return ((total + FINE * FINE // 2) // (FINE * FINE)).to(torch.uint8)


def _inside(place: NDArray[np.int64], length: int, border: str) -> NDArray[np.int64]:
    """Places outside 0..length−1 reflected, or on the black pixel behind the last."""
    if border == "reflect":
        return _reflect(place, length)
    return np.where((place < 0) | (place >= length), length, place)


def _coloured(
    images: Tensor, index: NDArray[np.int64], seed: int, epoch: int, colour: float
) -> Tensor:
    """Brightness, contrast about the image's mean gray, saturation about each pixel's gray.

    Sums are of whole numbers and factors act on one pixel: no image depends on its batch.
    """
    values = images.float()
    for stream in (BRIGHT, CONTRAST, SATURATION):
        factor = 1 + colour * _symmetric(draw(seed, epoch, stream, index))
        strength = torch.from_numpy(factor.astype(np.float32)).to(images.device)[
            :, None, None, None
        ]
        if stream == BRIGHT:
            values = (values * strength).round().clamp(0, 255)
            continue
        if images.shape[3] != 3 and stream == SATURATION:
            continue
        gray = _gray(values)
        if stream == CONTRAST:
            gray = (gray.long().sum((1, 2, 3), keepdim=True) / gray[0].numel()).float()
        values = (gray + (values - gray) * strength).round().clamp(0, 255)
    return values.to(torch.uint8)


def _gray(values: Tensor) -> Tensor:
    """(N, H, W, 1) of whole numbers, from 1 or 3 channels of them."""
    if values.shape[3] != 3:
        return values
    red, green, blue = (values[..., place].int() * part for place, part in enumerate(LUMA))
    return ((red + green + blue + 500) // 1000).float()[..., None]


def _symmetric(bits: Draws) -> NDArray[np.float64]:
    """Even between −1 and 1."""
    return (bits >> np.uint64(11)).astype(np.float64) / 2**52 - 1


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
