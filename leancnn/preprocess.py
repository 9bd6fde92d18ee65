"""The one way from an image file to a network's uint8 input, in training, testing and predicting.

file → upright, opaque, 8-bit (decode.py) → RGB or grey → size (H, W) → uint8 (H, W, C)
"""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leancnn.decode import SUFFIXES, UNREAD, Decoded, decode, file_bytes, shown
from leancnn.errors import ImageError, MismatchError
from leancnn.manifests import SIDE

__all__ = [
    "SUFFIXES",
    "UNREAD",
    "Decoded",
    "Picture",
    "Pixels",
    "Preprocessing",
    "decode",
    "file_bytes",
    "shown",
]

Fit = Literal["cover", "stretch", "contain"]
Pixels = NDArray[np.uint8]
Source = Any
"""A path, bytes, a file, a picture of Pillow's or an array; see `Preprocessing.read`."""
WANTED = "name a file, or give its bytes, a PIL image or uint8 pixels (h, w, 1 or 3)"


@dataclass(frozen=True, slots=True)
class Picture:
    """What a file became."""

    image: Pixels
    """uint8 (H, W, C) at `Preprocessing.scale`."""
    warnings: tuple[str, ...] = ()


def _picture(source: Any, name: str) -> Image.Image:
    """Pixels in memory as Pillow's picture. Raises `ImageError`."""
    try:
        array = np.asarray(source)
    except Exception as error:  # such as a tensor on a GPU
        raise ImageError(f"{name}: no array of pixels ({error})") from error
    channels = array.shape[2:]
    if array.dtype == np.uint16 and array.ndim == 2 and array.size:
        return Image.fromarray(array)
    if array.dtype != np.uint8 or array.ndim < 2 or channels not in ((), (1,), (3,), (4,)):
        turned = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; channels go last" if turned else ""
        kind = "; multiply by 255 if it is 0 to 1" if array.dtype.kind == "f" else ""
        raise ImageError(
            f"{name}: pixels are uint8 (h, w) or (h, w, 1, 3 or 4), not {array.dtype} "
            f"{array.shape}{hint or kind}"
        )
    if not array.size:
        raise ImageError(f"{name}: no pixels, {array.shape}")
    array = np.ascontiguousarray(array)
    return Image.fromarray(array[:, :, 0] if channels == (1,) else array)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From any image to uint8 (H, W, C): decode, orient, convert, fit. Stored with every network.

    Resampling is Pillow's antialiased triangle filter, on 8-bit pixels, along rows first, whatever
    the file's format and the version of Pillow; an image that already has the right size keeps its
    exact pixels. `preprocess.c` does the same in C. Raises `MismatchError` for what cannot be.

    >>> to_grey = leancnn.Preprocessing(size=(28, 32), channels=1)
    >>> to_grey.read("photos/class 0/0.png").image.shape
    (28, 32, 1)
    """

    dtype: ClassVar[type[np.uint8]] = np.uint8
    full_scale: ClassVar[float] = 255.0

    size: tuple[int, int]
    """(H, W) that enters the network."""
    channels: int = 3
    """1 (grey, ITU-R 601) or 3 (RGB)."""
    scale: tuple[int, int] = (0, 0)
    """(H, W) of stored images, of which `size` is a window; (0, 0) stands for `size`."""
    fit: Fit = "cover"
    """cover: the shorter side fits, centre kept; contain: the longer one, on `background`."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB under transparent pixels and beside a contained image."""

    def __post_init__(self) -> None:
        for key, length in (("size", 2), ("scale", 2), ("background", 3)):
            given = getattr(self, key)
            try:
                values = tuple(operator.index(value) for value in given)  # a list comes from JSON
            except TypeError:
                values = ()
            if len(values) != length:
                raise MismatchError(f"its {key} is {length} whole numbers, not {given!r}")
            object.__setattr__(self, key, values)
        if not 1 <= min(self.size) <= max(*self.size, *self.scale) <= SIDE:
            raise MismatchError(
                f"a size is (height, width) of 1 to {SIDE} pixels, not {self.size} of {self.scale}"
            )
        if self.scale == (0, 0):
            object.__setattr__(self, "scale", self.size)
        if self.scale[0] < self.size[0] or self.scale[1] < self.size[1]:
            raise MismatchError(f"a window of {self.size} does not fit into images of {self.scale}")
        if self.channels not in (1, 3):
            raise MismatchError(f"images have 1 or 3 channels, not {self.channels}")
        if self.fit not in ("cover", "stretch", "contain"):
            raise MismatchError(f"fit is 'cover', 'stretch' or 'contain', not '{self.fit}'")
        if not all(0 <= value <= 255 for value in self.background):
            raise MismatchError(f"a background is three values of 0 to 255, not {self.background}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a stored image."""
        return (*self.scale, self.channels)

    def to_json(self) -> dict[str, Any]:
        """These settings as JSON values, which `from_json` reads."""
        return {
            "size": list(self.size),
            "channels": self.channels,
            "scale": list(self.scale),
            "fit": self.fit,
            "background": list(self.background),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """The preprocessing that `to_json` wrote. Raises `MismatchError`."""
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise MismatchError(f"not a preprocessing of images: {values}") from error

    def read(self, source: Source, *, name: str = "") -> Picture:
        """Read one file, or what is in memory and called `name`.

        In memory it may be the bytes of a file or an open one, a picture of Pillow's, or an array
        of pixels: uint8 (h, w) or (h, w, 1, 3 or 4), uint16 (h, w). Raises `ImageError`: which
        image, why, what to do.
        """
        if isinstance(source, bytearray | memoryview):
            source = bytes(source)
        elif hasattr(source, "read") and not isinstance(source, Image.Image):
            inside = source.read()
            source = inside if isinstance(inside, bytes) else source  # of text it is told below
        if hasattr(source, "__array__") and not isinstance(source, Image.Image):
            picture = _picture(source, name or "array")
            if picture.mode in ("L", "RGB"):
                return Picture(self._pixels(picture))
            source = picture
        if not isinstance(source, str | Path | bytes | Image.Image):
            raise ImageError(f"{name or 'image'}: {type(source).__name__} is no image; {WANTED}")
        decoded = decode(source, self.background, name=name)
        return Picture(self._pixels(decoded.image), decoded.warnings)

    def of_array(self, image: Pixels) -> Pixels:
        """The same fit for decoded pixels: uint8 (h, w) or (h, w, 1 | 3) → (H, W, C).

        Raises `MismatchError`.
        """
        if image.dtype != np.uint8 or image.ndim < 2 or image.shape[2:] not in ((), (1,), (3,)):
            raise MismatchError(
                f"an image is uint8 (h, w) or (h, w, 1 or 3), not {image.dtype} {image.shape}"
            )
        return self._pixels(Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image))

    def of_arrays(self, images: Pixels, *, out: Pixels | None = None) -> Pixels:
        """`of_array` for (N, h, w, C) at once, into `out`; no copy when nothing has to change."""
        if images.ndim == 4 and images.shape[1:] == self.shape and images.dtype == np.uint8:
            return images
        out = np.empty((len(images), *self.shape), np.uint8) if out is None else out
        for index, image in enumerate(images):
            out[index] = self.of_array(image)
        return out

    def window(self, images: Pixels) -> Pixels:
        """The centre (N, H, W, C) of stored images, as a view; odd margins lie right and below."""
        top, left = ((big - small) // 2 for big, small in zip(self.scale, self.size, strict=True))
        return images[:, top : top + self.size[0], left : left + self.size[1]]

    def _pixels(self, image: Image.Image) -> Pixels:
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        return np.array(self._fitted(image)).reshape(self.shape)

    def _fitted(self, image: Image.Image) -> Image.Image:
        height, width = self.scale
        if image.size == (width, height):
            return image
        whole = (0.0, 0.0, float(image.width), float(image.height))
        if self.fit == "stretch":
            return _scaled(image, (width, height), whole)
        if self.fit == "cover":
            zoom = max(width / image.width, height / image.height)
            w, h = min(width / zoom, image.width), min(height / zoom, image.height)
            left, top = (image.width - w) / 2, (image.height - h) / 2
            return _scaled(image, (width, height), (left, top, left + w, top + h))
        zoom = min(width / image.width, height / image.height)
        across, down = (
            max(1, min(full, round(side * zoom)))
            for side, full in zip(image.size, (width, height), strict=True)
        )
        page = Image.new("RGB", (width, height), self.background).convert(image.mode)
        corner = ((width - across) // 2, (height - down) // 2)
        page.paste(_scaled(image, (across, down), whole), corner)
        return page


def _scaled(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Image.Image:
    """A box of an image at another size, in two calls: Pillow 13 changes the order of the passes
    where that is cheaper, and with it the last bit of some pixels."""
    left, top, right, bottom = box
    filter_ = Image.Resampling.BILINEAR  # antialiased when it shrinks
    narrow = image.resize((size[0], image.height), filter_, (left, 0, right, image.height))
    return narrow.resize(size, filter_, (0, top, size[0], bottom))
