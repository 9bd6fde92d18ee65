"""The process a run lives in: memory that is kept, and signals that are heard."""

import ctypes
import platform
import signal
import threading
from types import FrameType
from typing import Any, Self


def keep_pages() -> bool:
    """Let glibc keep the memory of freed tensors instead of handing it back; True where it does.

    Half of the time of a training step on a CPU can be the kernel clearing pages for large tensors.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim, top_pad, most_maps = -1, -2, -4  # malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((most_maps, 0), (trim, 2**31 - 1), (top_pad, 64 << 20))
    done = [mallopt(key, value) == 1 for key, value in settings]
    return all(done)


class Stop:
    """The first Ctrl-C or SIGTERM asks the loop to save and stop; the second ends at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
