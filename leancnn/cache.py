"""What is kept between calls so that it need not be made again: within a size and an age.

~/.cache/leancnn/        or where LEANCNN_CACHE says
  data/     decoded images, and what is known of the files they came from
  native/   built libraries, the register tiles that were timed, and the latency model of `search`
  scores/   the importance of channels, by criteria that read images

Everything in it can be thrown away at any moment. Whatever adds to it calls `trim`, which removes
what was not used for the longest time until the rest fits.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from leancnn.errors import UsageError, WriteError
from leancnn.safe_files import sweep_temporaries
from leancnn.workspaces import sweep

KINDS = {
    "data": ("data/images/*", "data/index/*"),
    "native": ("native/*",),
    "scores": ("scores/*",),
}
OURS = re.compile(  # nothing else is touched, wherever LEANCNN_CACHE points
    r"data/images/[0-9a-f]{32}\.(u8|json)|data/index/[0-9a-f]{32}\.(json|lock)"
    r"|native/.+-[0-9a-f]{20}\.(so|json)|scores/[0-9a-f]{32}"
)
GB, DAY_S = 1e9, 86_400.0
MOST_GB, MOST_DAYS = 20.0, 90.0  # unless LEANCNN_CACHE_GB and LEANCNN_CACHE_DAYS say otherwise
IN_USE_S = 10.0  # what was used so shortly ago stays: its user may not have opened it yet


@dataclass(frozen=True, slots=True)
class Entry:
    """What goes or stays together: the files of one name."""

    kind: str
    files: tuple[Path, ...]
    bytes: int
    used: float
    """When it was last read or written, seconds since 1970."""

    def remove(self) -> None:
        """Take it away; a process that has it open keeps what it opened."""
        for path in self.files:
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def folder() -> Path:
    """`LEANCNN_CACHE`, or `leancnn` in the user's cache folder. Raises `WriteError` for neither."""
    path = os.environ.get("LEANCNN_CACHE")
    if path:
        return Path(path)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # a user without a name, as in some containers
        raise WriteError(
            "no home folder to keep a cache in; LEANCNN_CACHE names another"
        ) from error
    return Path(home) / "leancnn"


def bounds() -> tuple[float, float]:
    """The most bytes, and the most seconds without use. Raises `UsageError` for no numbers."""
    most, oldest = _number("LEANCNN_CACHE_GB", MOST_GB), _number("LEANCNN_CACHE_DAYS", MOST_DAYS)
    return most * GB, oldest * DAY_S


def entries() -> list[Entry]:
    """All that is kept, the least recently used first."""
    home = folder()
    found: dict[tuple[str, str], list[Path]] = {}
    for kind, patterns in KINDS.items():
        for path in (path for pattern in patterns for path in home.glob(pattern)):
            name = path.relative_to(home)
            if OURS.fullmatch(name.as_posix()) and not path.is_symlink():
                found.setdefault((kind, str(name.with_suffix(""))), []).append(path)
    made = []
    for (kind, _), paths in found.items():
        with contextlib.suppress(OSError):  # another process was quicker
            stats = [one.stat() for path in paths for one in (path, *_within(path))]
            size = sum(about.st_size for about in stats)
            made.append(
                Entry(
                    kind,
                    tuple(paths),
                    size,
                    max(max(about.st_atime, about.st_mtime) for about in stats),
                )
            )
    return sorted(made, key=lambda entry: entry.used)


def _within(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.iterdir()


def mark_used(*paths: Path) -> None:
    """Note that files of the cache are of use now."""
    for path in paths:
        with contextlib.suppress(OSError):  # another user's, or gone
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def trim() -> list[Entry]:
    """Remove what killed processes left, what is too old and what is too much; returns entries.

    What was used in the last seconds stays, however large it is.
    """
    most, oldest = bounds()
    _sweep()
    now = time.time()
    kept = entries()
    total = sum(entry.bytes for entry in kept)
    gone = []
    for entry in kept:
        if now - entry.used < IN_USE_S:
            break
        if total > most or now - entry.used > oldest:
            entry.remove()
            total -= entry.bytes
            gone.append(entry)
    return gone


def clear(kinds: Collection[str] = tuple(KINDS)) -> list[Entry]:
    """Remove everything of these kinds; returns what was there. Raises `UsageError`."""
    if odd := sorted(set(kinds) - KINDS.keys()):
        raise UsageError(f"the cache holds {', '.join(KINDS)}, no {odd[0]}")
    _sweep()
    gone = [entry for entry in entries() if entry.kind in kinds]
    for entry in gone:
        entry.remove()
    return gone


def _sweep() -> None:
    """Remove the temporary files and folders of processes that are no more."""
    home = folder()
    for place in (home / "data/images", home / "data/index", home / "native"):
        sweep(place)
        sweep_temporaries(place)
    for place in home.glob("scores/*"):
        sweep_temporaries(place)


def _number(name: str, usual: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else usual
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} is a number of 0 or more, not '{text}'")
    return value
