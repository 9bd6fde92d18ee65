"""ONNX's Resize and Upsample: rows and columns to other sizes, by their nearest or by lines."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.index_maps import Builder
from leancnn.compiler.materialise import IndexMap
from leancnn.compiler.onnx_call import Call, handles
from leancnn.errors import UnsupportedError

HALF = "half_pixel"


@handles("Upsample", sets=(7, 9), reads="mode scales")
def _upsample(b: Builder, call: Call) -> IndexMap:
    scales = [float(s) for s in np.ravel(call.either("scales", 1))]
    x = call.view()
    sizes = [int(size * scale) for size, scale in zip(x.shape, scales, strict=True)]
    return _resized(b, x, sizes, scales, call.get("mode", "nearest"), "asymmetric", "floor")


@handles(
    "Resize",
    sets=(10, 11, 13, 18, 19),
    reads="mode coordinate_transformation_mode nearest_mode axes keep_aspect_ratio_policy "
    "cubic_coeff_a extrapolation_value",
    only={"antialias": 0, "exclude_outside": 0},
)
def _resize(b: Builder, call: Call) -> IndexMap:
    x = call.view()
    old = call.opset < 11
    given = call.get("axes")
    axes = [a % len(x.shape) for a in (range(len(x.shape)) if given is None else given)]
    scales, sizes = [1.0] * len(x.shape), list(x.shape)
    wanted = call.constant(1 if old else 2, "scales")
    if wanted is not None and np.size(wanted):
        for axis, scale in zip(axes, np.ravel(wanted), strict=True):
            scales[axis] = float(scale)
            sizes[axis] = int(np.floor(x.shape[axis] * float(scale)))
    else:
        if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise UnsupportedError("it keeps the aspect ratio; only stretch is supported")
        for axis, size in zip(axes, np.ravel(call.constant(3, "sizes")), strict=True):
            sizes[axis], scales[axis] = int(size), int(size) / x.shape[axis]
    how = "asymmetric" if old else call.get("coordinate_transformation_mode", HALF)
    nearest = "floor" if old else call.get("nearest_mode", "round_prefer_floor")
    return _resized(b, x, sizes, scales, call.get("mode", "nearest"), how, nearest)


def _resized(
    b: Builder,
    x: IndexMap,
    sizes: list[int],
    scales: list[float],
    mode: str,
    how: str,
    nearest: str,
) -> IndexMap:
    """Axis by axis: elements picked, or sums of two."""
    if min(sizes) < 1:
        raise UnsupportedError(f"it makes {sizes}, which is empty")
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        if size == x.shape[axis] and scale == 1:
            continue
        at = _places(x.shape[axis], size, scale, how)
        if mode == "nearest":
            picked = _nearest(at, nearest).clip(0, x.shape[axis] - 1)
            x = x.moved(partial(np.take, indices=picked, axis=axis))
        elif mode == "linear" and axis > 1:
            x = _lines(b, x, axis, at)
        else:
            raise UnsupportedError(
                f"it resizes axis {axis} by mode {mode}; only rows and columns, "
                "by mode nearest or linear"
            )
    return x


def _places(count: int, size: int, scale: float, how: str) -> NDArray[np.float64]:
    """Where each of `size` elements lies among the `count` there are."""
    i = np.arange(size, dtype=np.float64)
    match how:
        case "half_pixel" | "pytorch_half_pixel":
            if how != HALF and size == 1:
                return np.zeros(1)
            return (i + 0.5) / scale - 0.5
        case "asymmetric":
            return i / scale
        case "align_corners":
            if abs(scale * count - size) > 1e-4 * size:  # ONNX and ONNX Runtime differ there
                raise UnsupportedError(f"it aligns corners at {scale:g} times {count}, not whole")
            return i * (count - 1) / (size - 1) if size > 1 else np.zeros(1)
        case "half_pixel_symmetric":
            shift = count / 2 * (1 - size / (scale * count))
            return shift + (i + 0.5) / scale - 0.5
    raise UnsupportedError(f"its coordinate_transformation_mode {how} is not supported")


def _nearest(at: NDArray[np.float64], mode: str) -> NDArray[Any]:
    match mode:
        case "round_prefer_floor":
            return np.ceil(at - 0.5).astype(np.int64)
        case "round_prefer_ceil":
            return np.floor(at + 0.5).astype(np.int64)
        case "floor":
            return np.floor(at).astype(np.int64)
        case "ceil":
            return np.ceil(at).astype(np.int64)
    raise UnsupportedError(f"its nearest_mode {mode} is not known")


def _lines(b: Builder, x: IndexMap, axis: int, at: NDArray[np.float64]) -> IndexMap:
    """Along one axis, the share of each of the two elements beside a place."""
    count = x.shape[axis]
    low = np.floor(at).astype(np.int64)
    share = at - low
    matrix = np.zeros((len(at), count), np.float64)
    rows = np.arange(len(at))
    np.add.at(matrix, (rows, low.clip(0, count - 1)), 1 - share)
    np.add.at(matrix, (rows, (low + 1).clip(0, count - 1)), share)
    turned = x.moved(lambda a: np.moveaxis(a, axis, -1))
    return b.linear(turned, matrix, None).moved(lambda a: np.moveaxis(a, -1, axis))
