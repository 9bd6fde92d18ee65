"""Pictures that are nearly the same: compressed again, scaled, a little brighter.

A picture's look is how it changes from point to point of a grid laid over it: what a difference
hash (N. Krawetz, "Kind of like that", 2013) keeps the signs of, kept here as numbers, so that flat
places, whose signs are noise, have no say. Brightness drops out of differences, and contrast out
of their cosine. Mirrored, turned and cropped copies look otherwise and are not found.
"""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16  # of the grid
COARSE = SIDE // 2  # of the grid that sorts out nearly all pairs
LIKELY = 0.85  # the least cosine of coarse looks that is worth a closer one
ALIKE = 0.95  # the least cosine of looks of the same picture
FLAT = 2.0  # levels that a look must change by from point to point, root mean square
MOST = 100_000  # pictures that are compared: all pairs of them take about half a minute
BLOCK = 2048  # of them at a time

Looks = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def thumbnail(pixels: Pixels) -> str:
    """A picture, (h, w, 1 or 3), on the grid, (SIDE, SIDE, RGB), as text that JSON can hold.

    Empty for pictures of fewer points than the grid, such as the digits of 8×8: different ones
    look alike.
    """
    if min(pixels.shape[:2]) < SIDE:
        return ""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return base64.b64encode(small.tobytes()).decode("ascii")


def near_copies(thumbnails: Sequence[str]) -> list[list[int]]:
    """Groups of two or more thumbnails that look alike, by place; each linked to another of it.

    Pictures without anything to see, and all when there are more than `MOST`, stand in none.
    """
    if not 1 < len(thumbnails) <= MOST:
        return []
    data = b"".join(map(base64.b64decode, thumbnails))
    grid = np.frombuffer(data, np.uint8).reshape(-1, SIDE, SIDE, 3)
    fine, changes = _looks(grid.astype(np.float32))
    seen = np.flatnonzero(changes >= FLAT)
    fine, grid = fine[seen], grid[seen]
    halves = grid.reshape(-1, COARSE, 2, COARSE, 2, 3).mean((2, 4, 5), dtype=np.float32)
    coarse, _ = _looks(halves[..., None])
    parent = list(range(len(thumbnails)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for low in range(0, len(seen), BLOCK):
        for right in range(low, len(seen), BLOCK):
            near = coarse[low : low + BLOCK] @ coarse[right : right + BLOCK].T >= LIKELY
            one, other = np.nonzero(near)
            one, other = one + low, other + right
            pairs = np.stack([one, other], 1)[one < other]
            for some in np.array_split(pairs, len(pairs) // BLOCK + 1):
                cosines = np.einsum("nd,nd->n", fine[some[:, 0]], fine[some[:, 1]])
                for a, b in seen[some[cosines >= ALIKE]].tolist():
                    parent[root(b)] = root(a)
    groups: dict[int, list[int]] = {}
    for place in range(len(thumbnails)):
        groups.setdefault(root(place), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _looks(grid: Looks) -> tuple[Looks, Looks]:
    """(n, h, w, c) → looks of length 1, (n, d), and the root mean square of their changes, (n,)."""
    down, along = np.diff(grid, axis=1), np.diff(grid, axis=2)
    looks = np.concatenate([down.reshape(len(grid), -1), along.reshape(len(grid), -1)], 1)
    lengths = np.sqrt(np.einsum("nd,nd->n", looks, looks))
    return looks / np.maximum(lengths, 1e-6)[:, None], lengths / np.sqrt(looks.shape[1])
