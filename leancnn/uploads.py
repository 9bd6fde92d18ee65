"""What a stranger's picture may hold before anything of it is decoded.

The pixels of a picture are bounded by its header, and the work to get at them is not: a file of a
few megabytes can be a million empty chunks, comments or scans, which a decoder takes one by one for
minutes, or text that is inflated a thousandfold. `checked` walks over the parts of a file without
reading them, refuses what nobody would write, and leaves out what no pixel depends on.
"""

import re
import struct
from collections.abc import Iterator

from leancnn.decode import pixels_of
from leancnn.errors import ImageError

PARTS = 1000  # chunks, segments, blocks and scans that need no room of their own
ROOM = {"PNG": 512, "JPEG": 512, "GIF": 16}  # bytes of the file for each one beyond
SCANS = 40  # of a JPEG; programs write about ten
PLAIN = 1_000_000  # bytes of a PNM in decimal digits
INFLATED = (b"zTXt", b"iTXt", b"iCCP", b"tEXt")
TURNING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # may hold an orientation
PNM_HEADER = re.compile(rb"P([1-6])(?:(?:\s|#[^\r\n]{0,1000}[\r\n]){1,1000}[0-9]{1,10}){2,3}\s")


def checked(data: bytes, most: int) -> tuple[bytes, int]:
    """The picture without texts and colour profiles, and its pixels' number by its header.

    Raises `ImageError` for more than `most` pixels, and for more parts than a
    program writes.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        data = _png(data)
    elif data.startswith(b"\xff\xd8"):
        _refuse_crowd("JPEG", _jpeg(data), data)
        if data.count(b"\xff\xda") > SCANS:
            raise ImageError(f"a JPEG of more than {SCANS} scans; save it again")
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _refuse_crowd("GIF", _gif(data), data)
    elif re.match(rb"P[1-6]\s", data) or re.match(rb"P[1-6]#", data):
        _refuse_long_pnm(data)
    height, width = pixels_of(data)
    if height * width > most:
        raise ImageError(f"{width}×{height}, more than {most:,} pixels; make it smaller")
    return data, height * width


def _refuse_crowd(kind: str, parts: Iterator[int], data: bytes) -> None:
    """Parts come as the place where each ends; as many may stand before a place as have room."""
    for count, end in enumerate(parts):
        if count > PARTS + end // ROOM[kind]:
            raise ImageError(f"a {kind} of thousands of parts next to empty; save it again")


def _png(data: bytes) -> bytes:
    """The file without what would be inflated, except for an orientation."""
    kept, at = [data[:8]], 8
    turning: dict[bytes, bytes] = {}

    def ends() -> Iterator[int]:
        nonlocal at
        while at + 12 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, at)
            begin, at = at, at + 12 + length
            key = next((k for k in TURNING if data.startswith(k, begin + 8)), b"")
            if key and kind in INFLATED:
                turning[key] = data[begin:at]  # the last one counts
            elif kind not in INFLATED:
                kept.append(data[begin:at])
            yield at

    _refuse_crowd("PNG", ends(), data)
    kept[2:2] = turning.values()  # behind the header
    return b"".join([*kept, data[at:]])


def _jpeg(data: bytes) -> Iterator[int]:
    """Where each segment before the first scan ends; filling counts byte by byte."""
    at = 2
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        is_marker = data[at] == 0xFF and data[at + 1] not in (0x00, 0xFF)
        bare = 0xD0 <= data[at + 1] <= 0xD9
        at += 2 + (0 if bare else int.from_bytes(data[at + 2 : at + 4])) if is_marker else 1
        yield at


def _gif(data: bytes) -> Iterator[int]:
    """Where each block ends, up to those of the second picture, which tells an animation."""
    at, pictures = 13 + (3 << (data[10] & 7) + 1 if data[10:11] and data[10] & 0x80 else 0), 0
    while at < len(data) and pictures < 2:
        kind, at = data[at], at + 1
        if kind == 0x2C:
            pictures += 1
            flags = data[at + 8] if at + 8 < len(data) else 0
            at += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif kind == 0x21:
            at += 1
        elif kind == 0x3B:
            return
        else:
            yield at
            continue
        while at < len(data) and data[at]:
            at += 1 + data[at]
            yield at
        at += 1
        yield at


def _refuse_long_pnm(data: bytes) -> None:
    header = PNM_HEADER.match(data)
    if header is None:
        raise ImageError("a PNM without a header of three numbers; save it again")
    if header[1] in b"123" and len(data) > PLAIN:
        raise ImageError(f"a PNM in decimal digits of more than {PLAIN:,} bytes; save it in binary")
    if header[1] in b"123" and b"#" in data[header.end() :]:
        raise ImageError("a PNM with a comment among its pixels; save it again")
