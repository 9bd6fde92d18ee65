"""Temporary folders that never outlive their process for long, whatever ended it.

A folder is held by a lock that the kernel drops with the process. Whoever makes the next one in the
same place removes those that nobody holds, so a kill leaves its folder until then and no longer.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".leancnn-"
OLD_S = 86_400  # of one that no lock tells of: a file system without locks


@contextlib.contextmanager
def workspace(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder in `parent`, else where the system keeps temporary files; gone at the end.

    Those that processes left there when they were killed go first. Raises `OSError`.

    >>> with workspace() as folder:
    ...     size = (folder / "note").write_text("hello")
    >>> folder.exists()
    False
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(parent)
    folder, handle = _held(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep(parent: Path) -> list[Path]:
    """Remove the folders in `parent` that no process holds; returns them."""
    gone = []
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _left(handle):
                    shutil.rmtree(folder, ignore_errors=True)
                    gone.append(folder)
            finally:
                os.close(handle)
    return gone


def _held(parent: Path) -> tuple[Path, int]:
    """A new folder and the handle whose lock holds it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        handle = -1
        with contextlib.suppress(FileNotFoundError):  # swept before it was held
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # no locks here
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.stat().st_ino == os.fstat(handle).st_ino:
                return folder, handle
        if handle >= 0:
            os.close(handle)


def _left(handle: int) -> bool:
    """Whether nobody holds the open folder."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - os.fstat(handle).st_mtime > OLD_S
    return True
