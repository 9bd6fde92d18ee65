"""Lab Streaming Layer: a stream of EEG in, markers in, decisions out.

Facts that shape this file: a sender that dies is silence, with no exception, as long as recover is
on, and with it off what still waited is lost; a pull may never return once the sender is gone;
`time_correction` raises TimeoutError then. So every call to liblsl lives in a thread of its own,
and the reader has a deadline. liblsl logs to stderr unless it is told not to before any other call.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.chunks import Chunk
from leancnn.eeg.recording import Event, label_of, unit_of
from leancnn.eeg.stamps import Numbering
from leancnn.errors import DataError, MissingDependencyError, UnknownNameError

NEEDS = "LSL needs pylsl; pip install 'leancnn[eeg]'"
FIND_S = 5.0  # to look for a stream
WAIT_S = 0.2  # for samples, before it is looked whether the stream was closed


def pylsl() -> Any:
    """The module, silenced. Raises `MissingDependencyError`, also for a wheel without liblsl."""
    try:
        import pylsl as module
    except (ImportError, RuntimeError, OSError) as error:
        why = "" if isinstance(error, ImportError) else f" ({str(error).splitlines()[0]})"
        raise MissingDependencyError(NEEDS + why) from error
    with contextlib.suppress(AttributeError):
        module.set_config_content("[log]\nlevel=-3\n")
    return module


def within(seconds: float, call: Callable[[], Any], fallback: Any) -> Any:
    """What a call returns, or `fallback` when it raises or is not back in time; it may hang on."""
    found: queue.Queue[Any] = queue.Queue(1)

    def run() -> None:
        with contextlib.suppress(Exception):
            found.put(call())
            return
        found.put(fallback)

    threading.Thread(target=run, daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return fallback


class LSL:
    """The stream called `name`, and the streams of markers that its host sends.

    Raises `UnknownNameError` when there is none within five seconds, with the names there are;
    `DataError` when two carry the name, or it has no fixed rate.
    """

    def __init__(self, name: str, *, find_s: float = FIND_S) -> None:
        self._lsl = pylsl()
        found = within(find_s + 2, lambda: self._lsl.resolve_streams(min(find_s, 2.0)), [])
        match = [stream for stream in found if stream.name() == name]
        if not match:
            found = within(
                find_s + 2, lambda: self._lsl.resolve_byprop("name", name, 1, find_s), []
            )
            match = list(found)
        if not match:
            others = within(3, lambda: self._lsl.resolve_streams(1.0), [])
            names = ", ".join(sorted({stream.name() for stream in others})) or "none at all"
            raise UnknownNameError(f"no LSL stream named '{name}'; there are: {names}")
        if len({stream.uid() for stream in match}) > 1:
            hosts = ", ".join(sorted(f"{s.hostname()} ({s.source_id() or 'no id'})" for s in match))
            raise DataError(f"{len(match)} LSL streams are named '{name}': {hosts}; stop one")
        info = match[0]
        if info.nominal_srate() <= 0:
            raise DataError(f"the LSL stream '{name}' has no fixed rate; markers are no signal")
        self.name, self.fs = f"lsl:{name}", float(info.nominal_srate())
        self._inlet = self._lsl.StreamInlet(info, max_buflen=60, recover=True)
        self._marks = [
            self._lsl.StreamInlet(stream, max_buflen=60, recover=True)
            for stream in within(3, lambda: self._lsl.resolve_byprop("type", "Markers", 0, 1.0), [])
            if stream.source_id() != "leancnn-decisions"
        ]
        self.channels, self.unit = self._described(info.channel_count())
        self._closed = threading.Event()
        self._chunks: queue.Queue[Chunk] = queue.Queue()

    def _described(self, count: int) -> tuple[tuple[str, ...], str]:
        info = within(5, lambda: self._inlet.info(4.0), None)
        names, units = [], set()
        if info is not None:
            child = info.desc().child("channels").child("channel")
            while not child.empty():
                names.append(child.child_value("label"))
                units.add(child.child_value("unit"))
                child = child.next_sibling("channel")
        if len(names) != count:
            names = [f"channel {number + 1}" for number in range(count)]
        return tuple(names), unit_of(units)

    def _pull(self) -> None:
        """In a thread: everything that calls liblsl while signals flow."""
        correction = float(within(2, lambda: self._inlet.time_correction(1.5), 0.0))
        clock = correction + time.monotonic() - float(self._lsl.local_clock())
        numbered = Numbered(self.fs, clock)
        while not self._closed.is_set():
            row, stamp = self._inlet.pull_sample(timeout=WAIT_S)  # of many it would wait for all
            if row is None:
                self._put(numbered.flush())
                continue
            rows, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=4096)
            marks: list[tuple[float, str]] = []
            for inlet in self._marks:
                words, times = inlet.pull_chunk(timeout=0.0)
                marks += [(at, str(word[0])) for at, word in zip(times, words, strict=True)]
            self._put(numbered.take([row, *rows], [stamp, *stamps], marks))

    def _put(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self._chunks.put(chunk)

    def __iter__(self) -> Iterator[Chunk | None]:
        threading.Thread(target=self._pull, daemon=True, name="lsl").start()
        while not self._closed.is_set():
            try:
                yield self._chunks.get(timeout=WAIT_S)
            except queue.Empty:
                yield None

    def close(self) -> None:
        self._closed.set()


class Numbered:
    """Pulled samples as chunks that are numbered by their stamps; see `stamps.Numbering`.

    `clock` leads from LSL's stamps to `time.monotonic`.
    """

    def __init__(self, fs: float, clock: float) -> None:
        self.fs, self.clock = fs, clock
        self._numbering = Numbering(fs)
        self._rows: list[list[float]] = []
        self._stamps: list[float] = []
        self._marks: list[tuple[float, str]] = []
        self._lost = 0

    def take(
        self,
        rows: Sequence[list[float]],
        stamps: Sequence[float],
        marks: Sequence[tuple[float, str]] = (),
    ) -> Iterator[Chunk]:
        """What can be told now; markers go with the samples that they came beside."""
        self._rows += rows
        self._stamps += stamps
        self._marks += marks
        yield from self._chunked(self._numbering.take(stamps))

    def flush(self) -> Iterator[Chunk]:
        """What was held back, when nothing comes that would show why it was late."""
        yield from self._chunked(self._numbering.flush())

    def _chunked(self, released: Sequence[tuple[int, int]]) -> Iterator[Chunk]:
        for first, count in released:
            x: NDArray[np.float32] = np.asarray(self._rows[:count], np.float32).T
            stamps = self._stamps[:count]
            del self._rows[:count], self._stamps[:count]
            events = tuple(
                Event(max(first + round((at - stamps[0]) * self.fs), first), label_of(word))
                for at, word in self._marks
            )
            self._marks = []
            back = max(self._lost - self._numbering.lost, 0)
            self._lost = self._numbering.lost
            yield Chunk(x, first, stamps[-1] + self.clock, events, first == 0, back)


class Outlet:
    """Decisions as a stream of markers called `leancnn-decisions`."""

    def __init__(self, name: str = "leancnn-decisions") -> None:
        lsl = pylsl()
        info = lsl.StreamInfo(name, "Markers", 1, 0, "string", "leancnn-decisions")
        self._outlet = lsl.StreamOutlet(info)

    def send(self, word: str) -> None:
        self._outlet.push_sample([word])
