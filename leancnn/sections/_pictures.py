"""Pictures as data: addresses, so that a page needs no other file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from leancnn.errors import DamagedError

SMALL = 48  # pixels of a side, up to which a picture is kept to the last bit
QUALITY = 85


def data_address(image: NDArray[np.uint8]) -> Markup:
    """uint8 (H, W, 1 or 3) as PNG, or as JPEG where it is large."""
    height, width, channels = image.shape
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image[:, :, :3])
    large = max(height, width) > SMALL
    buffer = io.BytesIO()
    if large:
        picture.save(buffer, "JPEG", quality=QUALITY)
    else:
        picture.save(buffer, "PNG", optimize=True)
    return _address("jpeg" if large else "png", buffer.getvalue())


def mask_of_shares(counts: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix, a pixel a cell: black, as opaque as the cell's share of its true class.

    Any share above 0 is at least faintly seen.
    """
    array = np.asarray(counts, float)
    shares = array / array.sum(1, keepdims=True).clip(1)
    opaque = np.where(shares > 0, 40 + 215 * shares, 0).astype(np.uint8)
    pixels = np.zeros((*opaque.shape, 2), np.uint8)
    pixels[:, :, 1] = opaque
    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA").save(buffer, "PNG", optimize=True)
    return _address("png", buffer.getvalue())


def png_address(data: bytes, path: Path) -> Markup:
    """A PNG file as it is. Raises `DamagedError` for another."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise DamagedError(f"{path}: no PNG picture; evaluate again, or remove it") from error
    return _address("png", data)


def _address(kind: str, data: bytes) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
