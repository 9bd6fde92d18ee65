"""Where samples come from, live: a played file, made EEG, an LSL stream, a BrainFlow board."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.chunks import Chunk, Source
from leancnn.eeg.read import load
from leancnn.eeg.recording import Epochs, Event
from leancnn.eeg.synthetic import CHANNELS, FS, Head
from leancnn.errors import UsageError

CHUNK_S = 0.016  # of signal that a played file hands out at once: 4 samples of 250 Hz


class Replay:
    """A file played again: `speed` times as fast as it was, 0 for as fast as it goes.

    Trials are stretches of their own, each with the event of its cue.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        speed: float = 1.0,
        chunk_s: float = CHUNK_S,
        unit: str | None = None,
    ) -> None:
        self._found = load(path, unit=unit)
        self.name = f"replay of {Path(path).name}"
        self.fs, self.channels, self.unit = (
            self._found.fs,
            self._found.channels,
            self._found.unit,
        )
        self.speed = speed
        self._size = max(round(chunk_s * self.fs), 1)

    def stretches(self) -> Iterator[tuple[NDArray[np.float32], tuple[Event, ...], int, bool]]:
        """Signals, their events, the number of the first sample, and whether another one begins."""
        found = self._found
        if isinstance(found, Epochs):
            cue, length = found.sample(0.0), found.x.shape[2]
            for number, (trial, hz) in enumerate(zip(found.x, found.hz, strict=True)):
                yield trial, (Event(cue, float(hz)),), number * length, True
            return
        starts = [0, *(gap.sample for gap in found.gaps), found.x.shape[1]]
        lost = np.cumsum([0, *(gap.lost for gap in found.gaps)])
        for start, stop, missing in zip(starts[:-1], starts[1:], lost, strict=True):
            events = [
                Event(event.sample - start, event.label)
                for event in found.events
                if start <= event.sample < stop
            ]
            yield found.x[:, start:stop], tuple(events), int(start + missing), start == 0

    def __iter__(self) -> Iterator[Chunk | None]:
        began, played = time.monotonic(), 0
        for x, events, first, fresh in self.stretches():
            for start in range(0, x.shape[1], self._size):
                part = x[:, start : start + self._size]
                played += part.shape[1]
                due = None
                if self.speed > 0:
                    due = began + played / self.fs / self.speed
                    time.sleep(max(due - time.monotonic(), 0))
                inside = tuple(
                    Event(first + event.sample, event.label)
                    for event in events
                    if start <= event.sample < start + part.shape[1]
                )
                yield Chunk(part, first + start, due, inside, fresh and start == 0)

    def close(self) -> None:
        """Nothing is held."""


class Synthetic:
    """Made EEG that looks at one target after another, for ever or `seconds`.

    Each trial is a stretch of `trial_s` seconds of its own, its cue one second in; the last one
    may be shorter.
    """

    unit = "uV"
    channels = CHANNELS

    def __init__(
        self,
        frequencies: Sequence[float],
        *,
        snr_db: float = -8.0,
        speed: float = 1.0,
        seconds: float | None = None,
        trial_s: float = 6.0,
        seed: int = 0,
    ) -> None:
        self.name, self.fs, self.speed = f"synthetic, {snr_db:g} dB", FS, speed
        self._head = Head(snr_db, seed=seed)
        self._frequencies = tuple(frequencies)
        self._last = math.inf if seconds is None else round(seconds * self.fs)
        self._samples = round(trial_s * self.fs)

    def __iter__(self) -> Iterator[Chunk | None]:
        began, played, trial = time.monotonic(), 0, 0
        size, cue = round(CHUNK_S * self.fs), round(self.fs)
        while played < self._last:
            target = self._frequencies[trial % len(self._frequencies)]
            x = self._head.looking(target, self._head.rest(self._samples)).astype(np.float32)
            left = min(self._samples, self._last - played)
            for start in range(0, int(left), size):
                part, due = x[:, start : min(start + size, int(left))], None
                first = trial * self._samples + start
                played += part.shape[1]
                if self.speed > 0:
                    due = began + played / self.fs / self.speed
                    time.sleep(max(due - time.monotonic(), 0))
                at = trial * self._samples + cue
                here = first <= at < first + part.shape[1]
                events = (Event(at, float(target)),) if here else ()
                yield Chunk(part, first, due, events, start == 0)
            trial += 1

    def close(self) -> None:
        """Nothing is held."""


def open_source(
    word: str,
    *,
    frequencies: Sequence[float],
    speed: float = 1.0,
    seconds: float | None = None,
    snr_db: float = -8.0,
    unit: str | None = None,
    board_args: Sequence[str] = (),
) -> Source:
    """The source that a word names: replay:FILE, synthetic, lsl:NAME or brainflow:BOARD.

    Raises `UsageError` for another word, and as each source does.

    >>> source = open_source("synthetic", frequencies=(10.0, 12.0), seconds=6.0, speed=0)
    >>> sum(chunk.x.shape[1] for chunk in source) / source.fs
    6.0
    """
    kind, _, rest = word.partition(":")
    if kind == "replay" and rest:
        return Replay(rest, speed=speed, unit=unit)
    if kind == "synthetic" and not rest:
        return Synthetic(frequencies, speed=speed, seconds=seconds, snr_db=snr_db)
    if kind == "lsl" and rest:
        from leancnn.eeg.lsl import LSL

        return LSL(rest)
    if kind == "brainflow" and rest:
        from leancnn.eeg.brainflow import BrainFlow

        return BrainFlow(rest, board_args)
    raise UsageError(
        f"'{word}' is no source; write replay:FILE, synthetic, lsl:NAME or brainflow:BOARD"
    )
