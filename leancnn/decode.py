"""From an image file to upright, opaque, 8-bit pixels, or a reason why not.

file → header (format allowed? too many pixels?) → first frame → EXIF turn → 8 bits
     → alpha over a stated colour → L or RGB

Pillow decodes; it must be asked the right way. `Image.open(path).convert("RGB")` turns 16-bit grey
white, float black, transparent pixels into the colour hidden below them, and leaves photographs
lying on their side.
"""

import io
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from leancnn.errors import ImageError

FORMATS = (
    "JPEG",
    "PNG",
    "PPM",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
)  # what Pillow may open, whatever the suffix says
SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".pgm", ".ppm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
}
UNREAD = frozenset(
    f".{suffix}"
    for suffix in (
        *("heic", "heif", "avif", "jp2", "j2k", "jxl", "svg", "psd", "ico", "tga", "raw", "dng"),
        *("cr2", "nef", "arw", "exr", "hdr", "pfm", "pam", "pcx", "eps"),
    )
)  # images to their owner, not to us: listed as unreadable, never passed over in silence
MOST_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb
MOST_BYTES = 1 << 30
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
SIGNATURES = (
    (re.compile(rb"\s*<(!doctype|html|head|\?xml|svg)", re.I), "HTML, XML or SVG text"),
    (re.compile(rb"....ftyp(heic|heix|hevc|mif1|msf1)", re.S), "HEIC"),
    (re.compile(rb"....ftypavi[fs]", re.S), "AVIF"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"P7\n"), "PAM"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer"),
)

FAST: dict[str, Any] = {"compress_level": 0}  # of a PNG that is read at once
SCALED = "16-bit scaled to 8"
TURNED = "EXIF orientation applied"
FRAME = "first frame of several"
COMPOSITED = "alpha composited on the background"
INVISIBLE = "every pixel transparent"
CMYK = "CMYK converted to RGB"
MISNAMED = "suffix of another format"

TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation → what brings the picture upright


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file decoded at its own size, upright, opaque and 8-bit."""

    image: Image.Image
    """Mode L or RGB."""
    warnings: tuple[str, ...]
    """What had to be done that a careless reader would not have done."""
    format: str
    mode: str
    """Pillow's name of the stored mode: RGB, I;16, CMYK ..."""
    size: tuple[int, int]
    """(height, width) as displayed."""


def pixels_of(data: bytes) -> tuple[int, int]:
    """Rows and columns of a picture by its header; no pixel is decoded. Raises `ImageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _opened(data)
        except ImageError:
            raise
        except Exception as error:  # garbage in what stands before the pixels
            raise ImageError(f"{_reason(error)}; replace or remove it") from error
    return image.height, image.width


def decode(
    source: str | Path | bytes | Image.Image,
    background: tuple[int, int, int] = (255, 255, 255),
    *,
    name: str = "",
) -> Decoded:
    """Decode one file, or the bytes of one called `name`, at its own size: upright, 8-bit, opaque.

    A picture that Pillow holds is taken as a file of it would be.

    Raises `ImageError` for what is no image, cut short, damaged, float, or larger than
    `MOST_PIXELS` by its header.
    """
    if isinstance(source, str | Path):
        data, name = file_bytes(source), shown(name or source)
    else:
        data = source if isinstance(source, bytes) else _stored(source, name)
        name = shown(name or f"image of {len(data)} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata; pixels are checked here
            found = _decode(data, background)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # on garbage, decoders raise OSError, SyntaxError, struct.error ...
        raise ImageError(f"{name}: {_reason(error)}; replace or remove it") from error
    if SUFFIXES.get(Path(name).suffix.lower(), found.format) != found.format:
        return replace(found, warnings=(*found.warnings, MISNAMED))
    return found


def _stored(image: Image.Image, name: str) -> bytes:
    """A picture in memory as a file of the same pixels, orientation and transparency.

    Only a file goes through every rule below: that of 16 bits, of alpha, of turning upright.
    Raises `ImageError`.
    """
    what = shown(name or "image")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ImageError(f"{what}: {image.mode} pixels, whose range is not stated; convert to L")
    if min(image.size) < 1:
        raise ImageError(f"{what}: no pixels ({image.width}×{image.height})")
    file = io.BytesIO()
    try:
        if image.mode in ("La", "PA"):
            image = image.convert("LA")
        elif image.mode in ("RGBa", "RGBX", "HSV"):
            image = image.convert("RGBA" if image.mode == "RGBa" else "RGB")
        tiff = image.mode in ("CMYK", "YCbCr", "LAB", "I;16B")
        exif = image.getexif()
        image.save(file, "TIFF" if tiff else "PNG", exif=exif, **({} if tiff else FAST))
    except Exception as error:  # a lazily opened file may be damaged
        raise ImageError(f"{what}: {_reason(error)}") from error
    return file.getvalue()


MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II\*\x00|MM\x00\*|P[1-6]\s+[0-9#]",
    re.S,
)
"""How files of images begin, whatever their names end in."""


def begins_as_image(path: str | Path) -> bool:
    """Whether a regular file begins as one of the formats that are read."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return False
        with Path(path).open("rb") as file:
            return MAGIC.match(file.read(16)) is not None
    except (OSError, ValueError):
        return False


def file_bytes(path: str | Path) -> bytes:
    """A regular file's bytes. Raises `ImageError`, also for a pipe, which would hang."""
    path = Path(path)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ImageError(f"{shown(path)}: not a regular file; remove it")
        if about.st_size > MOST_BYTES:
            raise ImageError(
                f"{shown(path)}: {about.st_size} bytes, more than {MOST_BYTES}; make it smaller"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(
            f"{shown(path)}: {getattr(error, 'strerror', None) or error}; check the file"
        ) from error


def shown(path: str | Path) -> str:
    """A path that is safe to print: control characters and undecodable bytes are escaped."""
    text = str(path)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(path)
    )


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    return f"damaged or cut short ({shown(str(error)) or type(error).__name__})"


def _decode(data: bytes, background: tuple[int, int, int]) -> Decoded:
    image = _opened(data)
    kind, mode = "JPEG" if image.format == "MPO" else str(image.format), image.mode
    _refuse_hidden_damage(kind, data)
    tiff: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if mode == "F" or 3 in tiff.get(SAMPLE_FORMAT, ()):
        raise ImageError("float pixels, whose range is not stated; convert to 8 or 16 bits")
    if (mode == "I" and kind not in ("PNG", "PPM")) or 2 in tiff.get(SAMPLE_FORMAT, ()):
        raise ImageError("32-bit or signed pixels, whose range is not stated; convert to 8 or 16")
    warnings = [FRAME] if getattr(image, "is_animated", False) else []
    orientation = _orientation(image)
    depth, inverted = (tiff.get(BITS_PER_SAMPLE) or (16,))[0], tiff.get(PHOTOMETRIC) == 0
    image.load()
    if kind == "PNG":
        orientation = _orientation(image)  # may stand behind the pixels
    if kind == "PNG" and image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        image = _scaled_key(image, data[24])
    if orientation in TURN:
        warnings.append(TURNED)
        if kind != "TIFF":  # Pillow turns those itself
            image = image.transpose(TURN[orientation])
    if mode.startswith("I"):
        warnings.append(SCALED)
        image = _eight_bits(image, (1 << depth) - 1, inverted, background, warnings)
    elif image.has_transparency_data:
        image = _opaque(image, background, warnings)
    elif mode == "CMYK":
        warnings.append(CMYK)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return Decoded(image, tuple(warnings), kind, mode, (image.height, image.width))


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty file (0 bytes); replace or remove it")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(
            f"more than {2 * MOST_PIXELS} pixels by its header; make it smaller"
        ) from None
    except UnidentifiedImageError:
        seen = next((what for pattern, what in SIGNATURES if pattern.match(data)), None)
        if seen is None and not any(data[:4096]):
            seen = "only zero bytes"
        what = seen or "no image, or its header is damaged"
        raise ImageError(
            f"{what}, not JPEG, PNG, PGM/PPM, WebP, BMP, TIFF or GIF; convert or remove it"
        ) from None
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(
            f"{image.width}×{image.height} by its header, more than {MOST_PIXELS} pixels; "
            "make it smaller"
        )
    return image


def _orientation(image: Image.Image) -> int:
    stores = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
    if image.format != "TIFF" and not any(store in image.info for store in stores):
        return 1  # the usual case, at no cost
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1  # a damaged EXIF block says nothing about the pixels
    return value if value in range(1, 9) else 1


def _refuse_hidden_damage(kind: str, data: bytes) -> None:
    """What Pillow takes without a word: PNG chunks with wrong checksums, JPEG tails of zeros."""
    if kind == "PNG":
        at = 8
        while at + 12 <= len(data):
            length, name = struct.unpack_from(">I4s", data, at)
            body = memoryview(data)[at + 4 : at + 8 + length]
            stored = data[at + 8 + length : at + 12 + length]
            if name in (b"IHDR", b"PLTE", b"IDAT", b"tRNS") and stored != struct.pack(
                ">I", zlib.crc32(body)
            ):
                raise ImageError(
                    f"damaged or cut short (checksum of {name.decode()}); replace or remove it"
                )
            if name == b"IEND":
                return
            at += 12 + length
    elif kind == "JPEG" and not any(data[-16:]):
        scan = data.rfind(b"\xff\xda")
        if data.find(b"\xff\xd9", scan) < 0:
            raise ImageError("cut short (its end is zeros); replace or remove it")


def _scaled_key(image: Image.Image, depth: int) -> Image.Image:
    """A PNG's transparent colour at 8 bits, as its pixels are; Pillow leaves it as stored."""
    if depth == 16:
        raise ImageError("one transparent colour among 16-bit ones; convert to 8 bits")
    if depth < 8:
        image = image.convert("L")
        key = image.info["transparency"]
        key = bool(key) if depth == 1 else key  # of 1 bit, Pillow has it scaled already
        image.info["transparency"] = key * 255 // ((1 << depth) - 1)
    return image


def _eight_bits(
    image: Image.Image,
    most: int,
    inverted: bool,
    background: tuple[int, int, int],
    warnings: list[str],
) -> Image.Image:
    """Grey of 0..`most` → L, rounded to the nearest of 256; `v * 257` comes back as `v` exactly."""
    wide = np.minimum(np.asarray(image).astype(np.uint32), most)  # 12-bit samples come unscaled
    if inverted:  # TIFF's WhiteIsZero, which Pillow applies to 8 bits only
        wide = most - wide
    grey = Image.fromarray(((wide * 255 + most // 2) // most).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    warnings.append(COMPOSITED)
    page = Image.new("RGB", grey.size, background)
    page.paste(grey.convert("RGB"), mask=Image.fromarray(wide != clear))
    return page


def _opaque(
    image: Image.Image, background: tuple[int, int, int], warnings: list[str]
) -> Image.Image:
    """Any kind of transparency → RGB over the background."""
    image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    low, high = image.getchannel("A").getextrema()
    if low == 255:
        return image.convert("RGB")
    warnings.append(COMPOSITED if high else INVISIBLE)
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert(
        "RGB"
    )
