"""Pictures of strangers: what would take minutes to decode is refused, and no pixel changes."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from leancnn.decode import decode
from leancnn.errors import ImageError
from leancnn.uploads import checked

MANY = 100_000


def stored(kind, mode="RGB", **options):
    """A file of random pixels, which pictures of one kind are made of."""
    shape = (20, 30, 3) if mode == "RGB" else (20, 30)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG, JPEG, GIF = stored("PNG"), stored("JPEG"), stored("GIF", "L")
FRAME = GIF.index(b",", 13)

CROWDS = {
    "PNG of empty chunks": PNG[:33] + chunk(b"aaAa", b"") * MANY + PNG[33:],
    "PNG of texts": PNG[:33] + chunk(b"tEXt", b"a\0b") * MANY + PNG[33:],
    "PNG of empty pixels": PNG[:33] + chunk(b"IDAT", b"") * MANY + PNG[33:],
    "JPEG of comments": JPEG[:2] + b"\xff\xfe\0\2" * MANY + JPEG[2:],
    "JPEG of filling": JPEG[:2] + b"\xff" * MANY + JPEG[2:],
    "GIF of comments": GIF[:FRAME] + b"!\xfe\1a\0" * MANY + GIF[FRAME:],
    "GIF of one comment": GIF[:FRAME] + b"!\xfe" + b"\1a" * MANY + b"\0" + GIF[FRAME:],
    "GIF of nothing": GIF[:FRAME] + b"\0" * MANY + GIF[FRAME:],
    "GIF of pixels in crumbs": GIF[: FRAME + 11] + b"\1a" * MANY + b"\0;",
    "GIF between its pictures": GIF[:-1] + b"!\xfe" + b"\1a" * MANY + b"\0" + GIF[FRAME:],
    "JPEG of scans": JPEG[:-2] + JPEG[JPEG.index(b"\xff\xda") : -2] * 50 + JPEG[-2:],
    "PNM header": b"P5 " + b" " * MANY + b"2 2 255 " + bytes(4),
    "PNM comment in the header": b"P5 #" + b"x" * MANY + b"\n2 2 255 " + bytes(4),
    "PNM comments among the pixels": b"P2 2 2 255 1 " + b"#\n" * MANY + b"2 3 4",
    "PNM of many digits": b"P2 1000 1000 255 " + b"1 " * 1_000_000,
}


@pytest.mark.parametrize("name", CROWDS)
def test_a_file_of_parts_that_nobody_writes_is_refused(name):
    with pytest.raises(ImageError, match="save it"):
        checked(CROWDS[name], 10**8)


def test_more_pixels_than_are_taken_are_refused_by_the_header():
    with pytest.raises(ImageError, match="30×20, more than 599 pixels"):
        checked(stored("PNG"), 599)
    assert checked(stored("PNG"), 600)[1] == 600


def exif(turn):
    image = Image.Exif()
    image[0x0112] = turn
    return image


def pictures():
    made = {kind: stored(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")}
    made |= {
        f"{kind} turned": stored(kind, exif=exif(6)) for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    }
    made |= {"GIF": GIF, "progressive": stored("JPEG", progressive=True)}
    frames = [Image.fromarray(np.full((9, 8), k, np.uint8)) for k in range(5)]
    for kind in ("GIF", "PNG", "WEBP"):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:])
        made[f"{kind} of frames"] = file.getvalue()
    texts = chunk(b"tEXt", b"k\0v") + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(9)))
    xmp = b'<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'
    turned = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(900)))
    made["PNG with texts"] = PNG[:33] + profile + texts + PNG[33:-12] + texts + PNG[-12:]
    made["PNG turned by XMP"] = PNG[:33] + turned + PNG[33:]
    made["PNG turned by XMP behind the pixels"] = PNG[:-12] + turned + PNG[-12:]
    made["digits"] = b"P2 # four\n2 2 255 1 2\n3 4"
    return made


@pytest.mark.parametrize("name", pictures())
def test_what_is_left_out_changes_no_pixel(name):
    data = pictures()[name]
    before, after = decode(data), decode(checked(data, 10**6)[0])
    assert np.array_equal(before.image, after.image)
    assert (before.warnings, before.size) == (after.warnings, after.size)


def test_a_text_that_would_be_inflated_is_left_out():
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))
    data = PNG[:33] + bomb + PNG[33:]
    with pytest.raises(ImageError):
        decode(data)
    assert np.array_equal(decode(checked(data, 10**6)[0]).image, decode(PNG).image)


@pytest.mark.parametrize("name", pictures())
def test_a_file_cut_anywhere_is_an_image_error_or_a_picture(name):
    data = pictures()[name]
    for end in range(0, len(data), max(1, len(data) // 40)):
        with contextlib.suppress(ImageError):
            decode(checked(data[:end], 10**6)[0])
