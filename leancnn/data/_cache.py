"""Decoded images on disk: decoded once, checked at every opening, mapped instead of read.

~/.cache/leancnn/data/
  index/<path and part>.json    size, times and sha256 of each file: what changed is seen unread
  images/<content, scale>.u8      rows of uint8 (H, W, C); sha256 of blocks in the .json beside it

Images are found by content: files that were only touched are compared, not decoded again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.cache import mark_used, trim
from leancnn.data._base import Part, Reading, Skipped, Split
from leancnn.data._listing import File
from leancnn.data._workers import Answer, each
from leancnn.errors import DamagedError, WriteError
from leancnn.preprocess import Pixels
from leancnn.progress import tell
from leancnn.safe_files import atomic_write, hold, read_bytes, write_error

VERSION = 3  # of this layout, and of what `preprocess.py` makes of a file
BLOCK = 8 << 20  # bytes under one checksum


def _unwritten(path: Path, size: int, error: OSError) -> WriteError:
    return WriteError(f"{write_error(path, size, error)}: LEANCNN_CACHE names it")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The decoded files of one part."""

    images: Pixels
    rows: NDArray[np.int64]
    """Which of the files they are: all but the unreadable ones."""
    skipped: tuple[Skipped, ...]
    warnings: dict[str, int]
    sha256: str

    def part(
        self, labels: NDArray[np.int64], files: list[str], skipped: tuple[Skipped, ...]
    ) -> Part:
        split = Split(self.images, labels, files)
        return Part(split=split, sha256=self.sha256, skipped=skipped, warnings=self.warnings)


def read_files(root: Path, part: str, files: Sequence[File], reading: Reading) -> Decoded:
    """Images of `files` below `root`, scaled as `reading` says, from the cache when it has them.

    Raises `WriteError` when the cache cannot be written.
    """
    home = reading.cache / "data"
    index = home / "index" / f"{_digest([str(root.resolve()), part])}.json"
    with _alone(home, index.stem):
        hashes = _known_hashes(root, files, index, reading.verify)
        if hashes is not None:
            store = _Store(home, _content(files, hashes), reading)
            found = store.open(files)
            if found is not None:
                _write_index(index, files, hashes)
                return found
        return _build(root, part, files, reading, home, index)


def _digest(value: Any) -> str:
    text = json.dumps([VERSION, value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _content(files: Sequence[File], hashes: Sequence[str]) -> str:
    rows = [[file.name, file.stamp[0], sha] for file, sha in zip(files, hashes, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


# The index: what each file held when it was last read


def _known_hashes(root: Path, files: Sequence[File], index: Path, verify: bool) -> list[str] | None:
    """sha256 of every file, reading only those that changed; None when too many did."""
    try:
        stored = json.loads(read_bytes(index))
        old = {name: (tuple(stamp), sha) for name, stamp, sha in stored}
    except (OSError, ValueError, TypeError, RecursionError, DamagedError):
        return None
    hashes = [
        entry[1] or None  # what could not be read may be there again
        if (entry := old.get(file.name)) and entry[0] == file.stamp and not verify
        else None
        for file in files
    ]
    changed = [row for row, sha in enumerate(hashes) if sha is None]
    if any(files[row].name not in old for row in changed):
        return None
    answers = each(
        "hash",
        {},
        [str(root / files[row].name) for row in changed],
        title="comparing files",
        total_bytes=sum(files[row].stamp[0] for row in changed),
    )
    for row, answer in zip(changed, answers, strict=True):
        hashes[row] = answer.get("sha256", "")
    return [sha or "" for sha in hashes]


def _write_index(index: Path, files: Sequence[File], hashes: Sequence[str]) -> None:
    rows = [[file.name, file.stamp, sha] for file, sha in zip(files, hashes, strict=True)]
    data = json.dumps(rows, separators=(",", ":")).encode()
    with contextlib.suppress(OSError):
        if index.read_bytes() == data:
            return
    atomic_write(index, data)


# The store: rows of pixels under checksums


class _Store:
    """Where the images of some content, prepared in one way, lie."""

    def __init__(self, home: Path, content: str, reading: Reading) -> None:
        preprocessing = reading.preprocessing.to_json()
        del preprocessing["size"]  # the window is cut later
        self.content = content
        self.preprocessing = reading.preprocessing
        self.rows = home / "images" / f"{_digest([content, preprocessing])}.u8"
        self.facts = self.rows.with_suffix(".json")

    def open(self, files: Sequence[File]) -> Decoded | None:
        """The stored images, every byte checked, or None: not there, or damaged (which is said)."""
        if not self.facts.exists():
            return None
        try:
            return self._opened(files)
        except (DamagedError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            tell(f"cache: {self.rows} is damaged ({error}); decoding again")
            return None

    def _opened(self, files: Sequence[File]) -> Decoded:
        checked = json.loads(read_bytes(self.facts))
        facts = checked["facts"]
        if checked["sha256"] != _digest(facts):
            raise DamagedError("its list of checksums")
        rows = np.array(facts["rows"] or range(len(files)), np.int64)
        shape = (len(rows), *self.preprocessing.shape)
        if self.rows.stat().st_size != int(np.prod(shape)):
            raise DamagedError("its size")
        images = np.memmap(self.rows, np.uint8, "r", shape=shape)
        if _checksums(images) != facts["blocks"]:
            raise DamagedError("its pixels")
        mark_used(self.rows, self.facts)
        skipped = tuple(Skipped(name, reason) for name, reason in facts["skipped"])
        warnings = facts["warnings" if "warnings" in facts else "notes"]  # so they were in 0.1
        return Decoded(images, rows, skipped, warnings, self.content)

    def write(self, rows: NDArray[np.int64], blocks: list[str], **facts: Any) -> None:
        """Make the rows that are already in place valid."""
        kept = None if facts["skipped"] == [] else rows.tolist()
        checked = {"rows": kept, "blocks": blocks, **facts}
        data = json.dumps({"facts": checked, "sha256": _digest(checked)}).encode()
        atomic_write(self.facts, data)


def _checksums(images: Pixels) -> list[str]:
    """sha256 of each block; threads help, because hashing lets go of the interpreter."""
    flat = images.reshape(-1)
    starts = range(0, flat.size, BLOCK)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(
            pool.map(lambda at: hashlib.sha256(flat[at : at + BLOCK].data).hexdigest(), starts)
        )


def _build(
    root: Path, part: str, files: Sequence[File], reading: Reading, home: Path, index: Path
) -> Decoded:
    row_bytes = int(np.prod(reading.preprocessing.shape))
    need = row_bytes * len(files)
    temporary = home / "images" / f".{index.stem}.{os.getpid()}.tmp"
    held = None
    try:
        held = temporary.open("wb")
        hold(held.fileno())
        os.posix_fallocate(held.fileno(), 0, max(need, 1))  # a full disk is known now
        held.truncate(need)
        answers = each(
            "decode",
            {"preprocessing": reading.preprocessing.to_json(), "out": str(temporary)},
            [str(root / file.name) for file in files],
            title=f"decoding {'images' if part == 'all' else part}",
            total_bytes=sum(file.stamp[0] for file in files),
        )
        rows = np.array([row for row, answer in enumerate(answers) if "error" not in answer], int)
        _close_gaps(temporary, rows, row_bytes, need)
        decoded = _stored(temporary, files, answers, rows, reading, home, index)
        trim()
    except OSError as error:
        raise _unwritten(temporary, need, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        if held is not None:
            held.close()
    return decoded


def _stored(
    temporary: Path,
    files: Sequence[File],
    answers: Sequence[Answer],
    rows: NDArray[np.int64],
    reading: Reading,
    home: Path,
    index: Path,
) -> Decoded:
    """The rows of decoded images in their place, under the name of their content."""
    hashes = [answer.get("sha256", "") for answer in answers]
    store = _Store(home, _content(files, hashes), reading)
    facts = _facts(files, answers)
    images: Pixels = np.zeros((0, *reading.preprocessing.shape), np.uint8)
    if len(rows):
        images = np.memmap(temporary, np.uint8, "r", shape=(len(rows), *images.shape[1:]))
        store.facts.unlink(missing_ok=True)
        temporary.replace(store.rows)
        store.write(rows, _checksums(images), **facts)
        _write_index(index, files, hashes)
    skipped = tuple(Skipped(name, reason) for name, reason in facts["skipped"])
    return Decoded(images, rows, skipped, facts["warnings"], store.content)


def _facts(files: Sequence[File], answers: Sequence[Answer]) -> dict[str, Any]:
    warnings = Counter(warning for answer in answers for warning in answer.get("warnings", ()))
    skipped = [
        [file.name, answer["error"]]
        for file, answer in zip(files, answers, strict=True)
        if "error" in answer
    ]
    return {"skipped": skipped, "warnings": dict(sorted(warnings.items()))}


def _close_gaps(path: Path, rows: NDArray[np.int64], row_bytes: int, size: int) -> None:
    """Move the rows that hold an image up over those that do not."""
    if len(rows) * row_bytes == size:
        return
    handle = os.open(path, os.O_RDWR)
    try:
        for new, old in enumerate(rows.tolist()):
            if new != old:
                os.pwrite(handle, os.pread(handle, row_bytes, old * row_bytes), new * row_bytes)
        os.truncate(handle, len(rows) * row_bytes)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _alone(home: Path, name: str) -> Iterator[None]:
    """One process at a time for one part; the others then find its work done."""
    lock = home / "index" / f"{name}.lock"
    try:
        for folder in ("index", "images"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        handle = _locked(lock)
    except OSError as error:
        raise _unwritten(lock, 0, error) from error
    try:
        yield
    finally:
        os.close(handle)


def _locked(path: Path) -> int:
    """The handle of a lock file that is held, and is still the one of that name."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # the cache was cleared meanwhile
