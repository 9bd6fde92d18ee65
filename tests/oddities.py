"""Odd image files with what a reader must make of each: these pixels, or a refusal.

`odd_files(folder, rounds)` writes a file of every kind per round, each round with other pictures.
`judge(reader, case)` says what a reader did with one: right, refused, damaged (silently), crashed.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from leancnn.errors import ImageError

WHITE = np.array([255, 255, 255])
Verdict = Literal["right", "refused", "damaged", "crashed"]


@dataclass(frozen=True)
class Odd:
    """A file and its truth."""

    kind: str
    path: Path
    pixels: "np.ndarray[Any, Any] | None"
    """uint8 (H, W, 3), or None when no reader can know them."""
    within: float = 0
    """Mean absolute difference that lossy compression may make."""


def judge(reader: Callable[[Path], "np.ndarray[Any, Any]"], case: Odd) -> Verdict:
    try:
        pixels = reader(case.path)
    except ImageError:
        return "refused" if case.pixels is None else "damaged"
    except Exception:
        return "crashed"
    if case.pixels is None or pixels.shape != case.pixels.shape:
        return "damaged"
    off = np.abs(pixels.astype(int) - case.pixels.astype(int))
    return "right" if off.mean() <= case.within and (case.within or off.max() == 0) else "damaged"


def picture(rng: np.random.Generator, channels: int = 3) -> "np.ndarray[Any, Any]":
    """uint8 (h, w, channels), smooth, no two sides or corners alike."""
    h, w = int(rng.integers(24, 60)), int(rng.integers(61, 90))
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(small.resize((w, h), Image.Resampling.BICUBIC))[:, :, :channels]


def png(width: int, height: int, depth: int, color: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grey3(grey: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.repeat(grey[:, :, None], 3, axis=2)


def rows_of(array: "np.ndarray[Any, Any]") -> bytes:
    """PNG rows: filter byte 0 before each."""
    return b"".join(b"\0" + row.tobytes() for row in array)


def tiff16(values: "np.ndarray[Any, Any]", order: str, photometric: int = 1, fmt: int = 1) -> bytes:
    """A one-strip grey TIFF of 16-bit samples, little (<) or big (>) endian."""
    h, w = values.shape
    data = values.astype(f"{order}u2").tobytes()
    tags = [
        *((256, 4, w), (257, 4, h), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 8)),
        *((277, 3, 1), (278, 4, h), (279, 4, len(data)), (339, 3, fmt)),
    ]
    ifd = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(f"{order}I" if kind == 4 else f"{order}Hxx", value)
        ifd += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + ifd + bytes(4)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def stored_for(upright: "np.ndarray[Any, Any]", orientation: int) -> "np.ndarray[Any, Any]":
    """What a camera stores so that `orientation` shows `upright`; EXIF 2.3, section 4.6.4."""
    turns: dict[int, Callable[[Any], Any]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1)[::-1, ::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[::-1].swapaxes(0, 1),
    }
    return np.ascontiguousarray(turns[orientation](upright))


def odd_files(folder: Path, rounds: int) -> Iterator[Odd]:
    for number in range(rounds):
        rng = np.random.default_rng(number)
        for make in (_plain, _deep, _see_through, _turned, _moving, _damaged, _foreign):
            yield from make(folder, number, rng)


def _plain(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    p = picture(rng)
    image, grey = Image.fromarray(p), p[:, :, 0]
    for kind, suffix, options in (
        ("interlaced png", "png", {}),
        ("tiff lzw", "tif", {"compression": "tiff_lzw"}),
        ("bmp", "bmp", {}),
        ("webp lossless", "webp", {"lossless": True}),
        ("ppm", "ppm", {}),
    ):
        path = folder / f"{kind} {number}.{suffix}"
        image.save(path, **options)
        yield Odd(kind, path, p)
    path = folder / f"progressive {number}.jpeg"
    image.save(path, progressive=True, quality=95)
    yield Odd("progressive jpeg", path, p, within=4)
    path = folder / f"misnamed {number}.jpg"
    image.save(path, "PNG")
    yield Odd("misnamed", path, p)
    path = folder / f"bits {number}.pbm"
    Image.fromarray(grey > 127).save(path)
    yield Odd("1-bit", path, grey3(np.where(grey > 127, 255, 0)))
    path = folder / f"palette {number}.png"
    image.quantize(64).save(path)
    yield Odd("palette", path, np.asarray(image.quantize(64).convert("RGB")))
    path = folder / f"thin {number}.png"
    thin = np.tile(p[:1, :1], (1, 3000, 1))
    Image.fromarray(thin).save(path)
    yield Odd("thin", path, thin)
    path = folder / f"cmyk {number}.jpg"
    ink = np.dstack([255 - p, np.zeros_like(grey)])
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(ink, 2, 0)]
    Image.merge("CMYK", planes).save(path, quality=98)
    yield Odd("cmyk jpeg", path, p, within=6)
    path = folder / f"ycbcr {number}.tif"
    image.convert("YCbCr").save(path)
    yield Odd("ycbcr tiff", path, p, within=3)


def _deep(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    grey = picture(rng)[:, :, 0]
    h, w = grey.shape
    wide = grey.astype(np.uint16) * 257
    for kind, suffix, data in (
        ("16-bit png", "png", png(w, h, 16, 0, rows_of(wide.astype(">u2")))),
        ("16-bit pgm", "pgm", b"P5 %d %d 65535\n" % (w, h) + wide.astype(">u2").tobytes()),
        ("plain pgm", "pgm", b"P2 %d %d 65535\n" % (w, h) + " ".join(map(str, wide.flat)).encode()),
        ("16-bit tiff little", "tif", tiff16(wide, "<")),
        ("16-bit tiff big", "tiff", tiff16(wide, ">")),
        ("16-bit tiff inverted", "tif", tiff16(65535 - wide, "<", photometric=0)),
    ):
        path = folder / f"{kind} {number}.{suffix}"
        path.write_bytes(data)
        yield Odd(kind, path, grey3(grey))
    ten = np.rint(grey * (1023 / 255)).astype(">u2")
    path = folder / f"10-bit {number}.pgm"
    path.write_bytes(b"P5 %d %d 1023\n" % (w, h) + ten.tobytes())
    yield Odd("10-bit pgm", path, grey3(grey), within=0.5)
    color = picture(rng)
    h, w = color.shape[:2]
    path = folder / f"deep {number}.png"
    path.write_bytes(png(w, h, 16, 2, rows_of(color.astype(">u2") * np.array(257, ">u2"))))
    yield Odd("16-bit colour png", path, color)
    for kind, values in (
        ("float tiff", grey.astype(np.float32) / 255),
        ("32-bit tiff", grey.astype(np.int32) * 1000),
    ):
        path = folder / f"{kind} {number}.tif"
        Image.fromarray(values).save(path)
        yield Odd(kind, path, None)
    path = folder / f"signed {number}.tif"
    path.write_bytes(tiff16(wide, "<", fmt=2))
    yield Odd("signed tiff", path, None)
    path = folder / f"floats {number}.pgm"
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % grey.shape[::-1] + grey.astype("<f4").tobytes())
    yield Odd("pfm", path, None)


def _see_through(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    p = picture(rng)
    clear = np.zeros(p.shape[:2], bool)
    clear[: len(p) // 2] = True
    over = np.where(clear[:, :, None], WHITE, p)
    alpha = np.where(clear, 0, 255).astype(np.uint8)
    path = folder / f"rgba {number}.png"
    Image.fromarray(np.dstack([p, alpha])).save(path)
    yield Odd("rgba png", path, over)
    path = folder / f"rgba {number}.webp"
    Image.fromarray(np.dstack([p, alpha])).save(path, lossless=True, exact=True)
    yield Odd("rgba webp", path, over)
    path = folder / f"rgba {number}.tif"
    Image.fromarray(np.dstack([p, alpha])).save(path)
    yield Odd("rgba tiff", path, over)
    path = folder / f"invisible {number}.png"
    Image.fromarray(np.dstack([p, np.zeros_like(alpha)])).save(path)
    yield Odd("invisible", path, np.broadcast_to(WHITE, p.shape))
    grey = p[:, :, 0]
    path = folder / f"la {number}.png"
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(path)
    yield Odd("grey-alpha png", path, np.where(clear[:, :, None], WHITE, grey3(grey)))
    key = int(grey[0, 0])
    h, w = grey.shape
    keyed = np.where((grey == key)[:, :, None], WHITE, grey3(grey))
    path = folder / f"key {number}.png"
    path.write_bytes(png(w, h, 8, 0, rows_of(grey), chunk(b"tRNS", struct.pack(">H", key))))
    yield Odd("grey key png", path, keyed)
    wide = grey.astype(">u2") * np.array(257, ">u2")
    path = folder / f"deep key {number}.png"
    data = chunk(b"tRNS", struct.pack(">H", key * 257))
    path.write_bytes(png(w, h, 16, 0, rows_of(wide), data))
    yield Odd("16-bit key png", path, keyed)
    for depth in (1, 2, 4):
        low = grey[:, : w - w % 8] >> (8 - depth)
        key = int(low[0, 0])
        bits = (low[:, :, None] >> np.arange(depth)[::-1]) & 1
        rows = rows_of(np.packbits(bits.reshape(h, -1), axis=1))
        path = folder / f"{depth}-bit key {number}.png"
        path.write_bytes(
            png(low.shape[1], h, depth, 0, rows, chunk(b"tRNS", struct.pack(">H", key)))
        )
        seen = grey3(low * np.uint8(255 // ((1 << depth) - 1)))
        yield Odd(f"{depth}-bit key png", path, np.where((low == key)[:, :, None], WHITE, seen))
    deep = rows_of((p.astype(">u2") * np.array(257, ">u2")).reshape(h, -1))
    data = chunk(b"tRNS", struct.pack(">HHH", *(p[0, 0].astype(int) * 257).tolist()))
    path = folder / f"deep colour key {number}.png"
    path.write_bytes(png(w, h, 16, 2, deep, data))
    yield Odd("16-bit colour key png", path, None)
    path = folder / f"colour key {number}.png"
    data = chunk(b"tRNS", struct.pack(">HHH", *p[0, 0].tolist()))
    path.write_bytes(png(p.shape[1], h, 8, 2, rows_of(p.reshape(h, -1)), data))
    yield Odd("colour key png", path, np.where((p == p[0, 0]).all(2)[:, :, None], WHITE, p))
    few = Image.fromarray(p).quantize(32)
    index = np.asarray(few)
    flat = np.asarray(few.convert("RGB"))
    for kind, suffix in (("palette key png", "png"), ("palette key gif", "gif")):
        path = folder / f"{kind} {number}.{suffix}"
        few.save(path, transparency=int(index[0, 0]))
        yield Odd(kind, path, np.where((index == index[0, 0])[:, :, None], WHITE, flat))


def _turned(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    p = picture(rng)
    orientation = 2 + number % 7
    stored = Image.fromarray(stored_for(p, orientation))
    for suffix, options, within in (
        ("jpg", {"quality": 95}, 4),
        ("png", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("tif", {}, 0),
    ):
        path = folder / f"turned {orientation} {number}.{suffix}"
        stored.save(path, exif=exif(orientation), **options)
        yield Odd(f"turned {suffix}", path, p, within)
    path = folder / f"turned late {orientation} {number}.png"
    stored.save(path)
    whole = path.read_bytes()
    late = chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
    path.write_bytes(whole[:-12] + late + whole[-12:])  # behind the pixels, as some tools write it
    yield Odd("turned late png", path, p)


def _moving(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    first = Image.fromarray(picture(rng)).quantize(32)
    p = np.asarray(first.convert("RGB"))
    later = [Image.fromarray(255 - p), Image.fromarray(p[::-1].copy())]
    for kind, suffix, options in (
        ("animated gif", "gif", {}),
        ("animated png", "png", {}),
        ("animated webp", "webp", {"lossless": True}),
        ("tiff of pages", "tif", {}),
    ):
        path = folder / f"{kind} {number}.{suffix}"
        start = first if suffix == "gif" else first.convert("RGB")
        start.save(path, save_all=True, append_images=later, **options)
        yield Odd(kind, path, p)


def _damaged(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    noise = rng.integers(0, 256, (80, 90, 3), np.uint8)
    for suffix in ("jpg", "png", "bmp", "gif", "webp", "tif", "ppm"):
        path = folder / f"cut {number}.{suffix}"
        Image.fromarray(noise).save(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * rng.uniform(0.3, 0.9))])
        yield Odd(f"cut {suffix}", path, None)
    path = folder / f"checksum {number}.png"
    Image.fromarray(noise).save(path, compress_level=0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(bytes(data))
    yield Odd("bad checksum png", path, None)
    path = folder / f"zero tail {number}.jpg"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    yield Odd("zero tail jpg", path, None)


@cache
def _bomb() -> bytes:
    """20 kB that are 13000×13000 pixels."""
    side = 13_000
    return png(side, side, 1, 0, bytes((side // 8 + 1) * side))


@cache
def _text_bomb() -> bytes:
    return zlib.compress(bytes(90_000_000))


def _foreign(folder: Path, number: int, rng: np.random.Generator) -> Iterator[Odd]:
    for kind, name, data in (
        ("empty", "empty.png", b""),
        ("zeros", "zeros.jpg", bytes(500)),
        ("garbage", "garbage.jpg", rng.bytes(500)),
        ("html", "html.png", b"<!DOCTYPE html><html>404</html>"),
        ("lfs pointer", "lfs.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("heic", "heic.jpg", b"\0\0\0\x18ftypheic" + bytes(64)),
        ("bomb png", "bomb.png", _bomb()),
        ("bomb gif", "bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0, 0, 0) + b",;"),
        ("bomb pgm", "bomb.pgm", b"P5 100000 100000 255\n" + bytes(100)),
        (
            "text bomb",
            "text.png",
            png(8, 8, 8, 0, b"")[:33] + chunk(b"zTXt", b"a\0\0" + _text_bomb()),
        ),
    ):
        path = folder / f"{number} {name}"
        path.write_bytes(data)
        yield Odd(kind, path, None)
    path = folder / f"folder {number}.png"
    path.mkdir()
    yield Odd("folder", path, None)
    path = folder / f"pipe {number}.jpg"
    os.mkfifo(path)
    yield Odd("pipe", path, None)
    path = folder / f"dangling {number}.jpg"
    path.symlink_to("nowhere.jpg")
    yield Odd("dangling link", path, None)
