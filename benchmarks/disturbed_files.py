"""Pictures changed behind the back of who read them, and put back as they were."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def stamps(data: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every picture: what a careless check looks at."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(data.rglob("*.png"))}


def flip_bit(path: Path) -> None:
    """Change the pixels' checksum, size and time kept: the file does not decode, or differs."""
    about, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) - 20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


@contextmanager
def restored(path: Path) -> Iterator[Path]:
    """A file that is afterwards as it was, whatever was done to it."""
    whole, about = path.read_bytes(), path.stat()
    try:
        yield path
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
