"""Fifty small files that would become large: what a server is sent to make it fall.

Each is valid as far as a header is read, and small; decoded by anyone who does not look first it
takes seconds or hundreds of megabytes. `bombs()` names them.
"""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

SIDE = 13_000


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, colour: int, *, rows: int, extra: bytes = b""
) -> bytes:
    """A PNG of zeros with as many of its rows as are asked for; `extra` chunks before them."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    line = bytes(1 + (width * channels * depth + 7) // 8)
    squeeze = zlib.compressobj(9)
    packed = b"".join(squeeze.compress(line) for _ in range(rows)) + squeeze.flush()
    start = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = _chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    parts = _chunk(b"IHDR", start) + palette + extra + _chunk(b"IDAT", packed)
    return b"\x89PNG\r\n\x1a\n" + parts + _chunk(b"IEND", b"")


def _pngs() -> Iterator[tuple[str, bytes]]:
    for depth, colour in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (1, 3), (8, 3), (8, 4)):
        name = f"PNG {SIDE}×{SIDE}, {depth} bits, type {colour}"
        yield name, png(SIDE, SIDE, depth, colour, rows=SIDE)
    for colour in (2, 6):
        yield f"PNG {SIDE}×{SIDE}, 8 bits, type {colour}", png(SIDE, SIDE, 8, colour, rows=2000)
    for width, height in ((2**31 - 1, 1), (2**31 - 1, 2**31 - 1), (60_000, 60_000)):
        yield f"PNG {width}×{height} by its header", _lying(width, height, 100)
    text = zlib.compress(bytes(1_000_000), 9)
    zeros = zlib.compress(bytes(100_000_000), 9)
    for count in (10, 60, 1000):
        extra = b"".join(_chunk(b"zTXt", b"k%d\0\0" % i + text) for i in range(count))
        yield f"PNG with {count} texts of 1 MB", png(32, 32, 8, 2, rows=32, extra=extra)
    for kind, start in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        extra = _chunk(kind, start + zeros)
        yield f"PNG, {kind.decode()} of 100 MB", png(32, 32, 8, 2, rows=32, extra=extra)
    yield "PNG, pixels of 100 MB behind a header of 32×32", _lying(32, 32, 100_000_000)
    empty = _chunk(b"aaAa", b"") * 1_000_000
    yield "PNG of a million empty chunks", png(32, 32, 8, 2, rows=32, extra=empty)


def _lying(width: int, height: int, pixels: int) -> bytes:
    start = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", start) + _chunk(b"IDAT", zlib.compress(bytes(pixels), 9))
    return b"\x89PNG\r\n\x1a\n" + parts + _chunk(b"IEND", b"")


def _gifs() -> Iterator[tuple[str, bytes]]:
    frame = Image.new("P", (8, 8))
    file = io.BytesIO()
    frame.save(file, "GIF")
    small = file.getvalue()
    body = (
        small[13 + 3 * (2 << (small[10] & 7)) :].rstrip(b";") if small[10] & 128 else small[13:-1]
    )
    for width, height in ((SIDE, SIDE), (65_535, 65_535), (65_535, 2_000)):
        start = small[:6] + struct.pack("<HH", width, height) + small[10:]
        yield f"GIF {width}×{height}", start
    for frames in (10_000, 100_000):
        yield f"GIF of {frames:,} frames", small[:-1] + body * (frames - 1) + b";"
    at = small.index(b",", 13)
    blocks = b"!\xfe" + b"\1a" * 3_000_000 + b"\0"
    yield "GIF, a comment of three million blocks", small[:at] + blocks + small[at:]
    turned = struct.pack("<HHHH", 0, 0, 60_000, 60_000)
    yield "GIF, a frame larger than its screen", small[: at + 1] + turned + small[at + 9 :]


def _webps() -> Iterator[tuple[str, bytes]]:
    for side in (16_383, SIDE):
        bits = (side - 1) | (side - 1) << 14
        data = b"\x2f" + struct.pack("<I", bits) + bytes(40)
        riff = b"WEBPVP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        yield f"WebP {side}×{side}, lossless", b"RIFF" + struct.pack("<I", len(riff)) + riff
    for frames in (1, 5000):
        canvas = struct.pack("<I", 2) + (16_383).to_bytes(3, "little") * 2
        parts = b"VP8X" + struct.pack("<I", 10) + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
        parts += (b"ANMF" + struct.pack("<I", 16) + bytes(16)) * frames
        riff = b"WEBP" + parts
        name = f"WebP 16384×16384 of {frames} frames"
        yield name, b"RIFF" + struct.pack("<I", len(riff)) + riff


def _tiff(tags: dict[int, tuple[int, tuple[int, ...]]], data: bytes = b"", again: int = 0) -> bytes:
    """A TIFF of one directory; each tag is its kind (3: 16 bits, 4: 32) and numbers."""
    directory, room = b"", 8 + 2 + 12 * len(tags) + 4
    beyond = b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack("<I", room + len(beyond)), beyond + packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    start = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    return start + directory + struct.pack("<I", again) + beyond + data


def _tiffs() -> Iterator[tuple[str, bytes]]:
    for width, height in ((SIDE, SIDE), (100_000, 100_000), (2**31 - 1, 2)):
        about = {256: (4, (width,)), 257: (4, (height,)), 258: (3, (8,)), 259: (3, (8,))}
        about |= {262: (3, (1,)), 277: (3, (1,))}
        tiles = {322: (4, (256,)), 323: (4, (256,)), 324: (4, (8,) * 64), 325: (4, (64,) * 64)}
        yield f"TIFF {width}×{height} in tiles", _tiff(about | tiles, zlib.compress(bytes(65_536)))
        strips = {278: (4, (height,)), 273: (4, (8,)), 279: (4, (64,))}
        yield f"TIFF {width}×{height} in one strip", _tiff(about | strips)
    about = {256: (4, (16,)), 257: (4, (16,)), 258: (3, (8,)), 259: (3, (8,)), 262: (3, (1,))}
    vast = {322: (4, (65_536,)), 323: (4, (65_536,)), 324: (4, (200,)), 325: (4, (64,))}
    yield "TIFF 16×16, of a tile of 65536×65536", _tiff(about | vast, bytes(200))
    yield (
        "TIFF whose directories are a ring",
        _tiff(about | {273: (4, (8,)), 279: (4, (64,))}, again=8),
    )
    lots = {273: (4, (8,) * 1_000_000), 279: (4, (1,) * 1_000_000), 278: (4, (1,))}
    yield "TIFF of a million strips", _tiff(about | lots)


def _others() -> Iterator[tuple[str, bytes]]:
    for side in (SIDE, 60_000):
        start = struct.pack(
            "<IHHIIiiHHIIiiII", 98, 0, 0, 58, 40, side, side, 1, 8, 1, 0, 0, 0, 1, 0
        )
        yield f"BMP {side}×{side}, run lengths", b"BM" + start + bytes(40)
        yield f"P4 {side}×{side}", b"P4 %d %d " % (side, side)
        yield f"P6 {side}×{side}", b"P6 %d %d 255 " % (side, side)
    pixels = b"#\n" * 1_000_000 + b"1 " * 1_000_000
    yield "P2 1000×1000 between comments", b"P2 1000 1000 255 " + pixels
    yield (
        "P5 16×16 behind a comment of 8 MB",
        b"P5 #" + b"x" * 8_000_000 + b"\n16 16 255 " + bytes(256),
    )
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    small = file.getvalue()
    at = small.index(b"\xff\xc0") + 5
    for side in (SIDE, 65_500):
        yield f"JPEG {side}×{side}", small[:at] + struct.pack(">HH", side, side) + small[at + 4 :]
    crowd = small[:2] + b"\xff\xfe\0\2" * 2_000_000 + small[2:]
    yield "JPEG of two million empty comments", crowd
    file = io.BytesIO()
    Image.new("L", (3900, 3900), 90).save(file, "JPEG", progressive=True, quality=50)
    whole = file.getvalue()
    last = whole.rindex(b"\xff\xda")
    yield "JPEG 3900×3900 of 500 scans", whole[:-2] + whole[last:-2] * 500 + whole[-2:]


def bombs() -> dict[str, bytes]:
    """Every one by its name."""
    return dict(pair for kind in (_pngs, _gifs, _webps, _tiffs, _others) for pair in kind())
