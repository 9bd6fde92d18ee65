"""One writer in a folder: a lock that the kernel drops with its process, on a file of our own."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import threading
import time
import weakref
from pathlib import Path
from typing import Self

from leancnn.errors import RunError, WriteError
from leancnn.process import Terminated
from leancnn.safe_files import write_error

TRIES = 20  # where others come and go at the same moment
OWN_FOLDERS = ("checkpoints", "best", "last", "cut", "iterations", "steps")  # of a run


class Lock:
    """Only one process writes into a run folder: `with Lock(folder): ...`.

    The kernel holds the lock on run.lock and drops it when the process dies, so a dead holder needs
    no guess about process numbers, and two starters cannot both take over. The file names the
    holder for the message. Forked children give up their copy, so orphaned workers do not keep the
    folder. Raises `RunError` when it is taken, `WriteError` when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self._handle: int | None = None
        self._made: list[Path] = []  # folders that were not there, innermost first
        self._unwinds = False  # whether SIGTERM does, because of us

    def __enter__(self) -> Self:
        self._made = [place for place in self.path.parents if not place.exists()]
        for _ in range(TRIES):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                handle = open_lock(self.path)
            except FileNotFoundError:
                continue  # the last holder has just removed its folder
            except OSError as error:
                raise write_error(self.path, 0, error) from error
            if self._is_ours(handle):
                break
            os.close(handle)  # of a file that the last holder has just removed
        else:
            raise RunError(
                f"{self.path.parent} is in use by another process; choose another folder"
            )
        self._handle = handle
        _held.add(self)
        if threading.current_thread() is threading.main_thread():
            self._unwinds = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            if self._unwinds:
                signal.signal(signal.SIGTERM, _terminated)
        try:
            self._check_links()
        except RunError:
            self.__exit__()
            raise
        with contextlib.suppress(OSError):  # a full disk refuses the name, not the lock
            name = f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n"
            os.ftruncate(handle, 0)
            os.pwrite(handle, name.encode(), 0)
        return self

    def _is_ours(self, handle: int) -> bool:
        """Whether the lock was free; False when its file is gone. Raises as the class."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return bool(os.fstat(handle).st_nlink)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise RunError(
                f"{self.path.parent} is in use by {holder}; wait, or choose another folder"
            ) from None
        except OSError as error:
            os.close(handle)
            raise WriteError(
                f"{self.path.parent} lies on a file system without locks ({error.strerror}), so "
                "two runs could ruin each other there; choose a folder elsewhere"
            ) from error

    def _check_links(self) -> None:
        """Refuse a folder that would have us write elsewhere."""
        for name in OWN_FOLDERS:
            if (place := self.path.parent / name).is_symlink():
                raise RunError(
                    f"{place} is a link; a run writes into its own folder only: put what it leads "
                    "to in its place, or choose another folder"
                )

    def __exit__(self, *_: object) -> None:
        if self._unwinds:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()  # who waits for it sees that its file is gone, and takes another
                if self.path.parent.name.startswith("."):  # a folder for the lock alone
                    self.path.parent.rmdir()
                for place in self._made:  # of a run that never began
                    if place.exists():
                        place.rmdir()  # fails, and ends this, at the first that holds something
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a child may not have dropped its copy yet
            self.forget()

    def forget(self) -> None:
        """Close this process's copy; the lock ends with the last copy."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _held.discard(self)


def open_lock(path: Path) -> int:
    """The handle of a lock file: a file of our own, to which no other name leads.

    Raises `OSError`, `RunError` for a link or whatever else a stranger put in its place.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise RunError(f"{path} is no file of leancnn's; move it away") from error
        raise
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(handle)
        raise RunError(f"{path} is no file of leancnn's; move it away")
    return handle


def _terminated(number: int, frame: object) -> None:
    """SIGTERM outside the loop that saves: unwind, so that nothing half begun is left.

    As Ctrl-C does: who goes on after errors of one network or image does not go on after this.
    """
    raise Terminated("stopped by SIGTERM before anything was begun that could go on")


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
