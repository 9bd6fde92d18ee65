"""Live: a source through filter, ring and decoder to decisions, with what they cost and why not.

Two paces: at each cue, one decision when its window is full; or, without cues, one every so many
seconds. Played at any speed a file gives the decisions, bit for bit, of the evaluation offline.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.chunks import Chunk, Source
from leancnn.eeg.decoders import Decoder, probabilities
from leancnn.eeg.ring import ODD, Ring
from leancnn.eeg.windows import AFTER_CUE
from leancnn.errors import StreamError

SILENCE_S = 2.0  # without a sample: the source is gone
FEWEST = 3  # channels that a decision needs


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One look at a window: the candidate, or None and why not."""

    sample: int
    """The number of the first sample behind the window."""
    choice: int | None
    probabilities: NDArray[np.float64] | None
    scores: NDArray[np.float32] | None
    reason: str = ""
    correct: bool | None = None
    """Whether the choice is what the cue asked for, where both are known."""
    asked: float | None = None
    """The cue's frequency in Hz where it is known, 0 for rest."""
    latency_s: float | None = None
    """From the last sample of the window to this decision, where the source says when it was due.
    """
    compute_s: float = 0.0
    unused: tuple[int, ...] = ()
    """Channels, by place, that were flat or railed and left out."""


@dataclass(slots=True)
class Session:
    """What a live session has seen and done so far."""

    decisions: list[Decision] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    rate: float | None = None
    """Samples a second as they came, where the session was long enough to tell."""
    ended: str = ""
    """Why it ended, in words."""

    def summary(self) -> dict[str, Any]:
        """Counts, latencies in ms (p50, p95, p99, most) and, where cues are known, the accuracy."""
        late = [1000 * d.latency_s for d in self.decisions if d.latency_s is not None]
        work = [1000 * d.compute_s for d in self.decisions if d.scores is not None]
        asked = [d for d in self.decisions if d.asked]
        decided = [d for d in asked if d.choice is not None]
        reasons = Counter(d.reason for d in self.decisions if d.choice is None)
        return {
            "decisions": len(self.decisions),
            "decided": sum(d.choice is not None for d in self.decisions),
            "asked": len(asked),
            "correct": sum(d.correct is True for d in decided),
            "no decision": dict(reasons),
            "latency ms": percentiles(late),
            "compute ms": percentiles(work),
            "seconds": round(self.seconds, 3),
            "rate": self.rate,
            **{key: self.counts[key] for key in ("samples", "lost", "bridged", "restarts", "nan")},
            "ended": self.ended,
        }


def percentiles(values: list[float]) -> dict[str, float] | None:
    """The 50th, 95th and 99th percentile and the most, or None of nothing."""
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "p50": round(float(p50), 3),
        "p95": round(float(p95), 3),
        "p99": round(float(p99), 3),
        "max": round(max(values), 3),
    }


class Live:
    """Decode a source as it comes: iterate for its decisions; `session` holds the account.

    `every` seconds between decisions, or None for one at each cue. A probability below `threshold`
    is no decision; `agree` decisions in a row must say the same. `on_chunk` is called with what
    comes, before it is used: a recorder. Iterating raises `StreamError` when nothing comes for two
    seconds, unless a file was at its end.

    >>> from leancnn.eeg import fit, load_epochs, open_source
    >>> source = open_source("synthetic", frequencies=(10.0, 12.0), seconds=6.0, speed=0)
    >>> live = Live(source, fit(load_epochs(["trials.npz"]), window=1.0), window=1.0)
    >>> [decision.asked for decision in live]
    [10.0]
    """

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        *,
        window: float,
        every: float | None = None,
        threshold: float = 0.0,
        agree: int = 1,
        mains: float | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
        silence_s: float = SILENCE_S,
        seconds: float | None = None,
    ) -> None:
        self.source, self.decoder, self.every = source, decoder, every
        self.threshold, self.agree, self.silence_s = threshold, agree, silence_s
        self.limit = seconds
        self.session = Session()
        self.samples = round(window * source.fs)
        self.ring = Ring(
            decoder.bank,
            source.fs,
            len(source.channels),
            self.samples,
            unit=source.unit,
            mains=mains,
        )
        self._on_chunk = on_chunk
        self._due: list[tuple[int, float | None]] = []
        self._recent: list[int] = []
        self._after_cue = round(AFTER_CUE * source.fs)
        self._next_look: int | None = None

    def __iter__(self) -> Iterator[Decision]:
        first_at: float | None = None
        try:
            for chunk in with_deadline(self.source, self.silence_s):
                now = time.monotonic()
                if first_at is None:
                    first_at, self._skip = now, chunk.x.shape[1]
                if self._on_chunk is not None:
                    self._on_chunk(chunk)
                yield from self._take(chunk)
                self._account(first_at)
                if self.limit is not None and self.session.seconds >= self.limit:
                    self.session.ended = "the time was up"
                    return
            self.session.ended = "the source was at its end"
        except StreamError as error:
            self.session.ended = str(error)
            raise
        finally:
            if first_at is not None:
                self._account(first_at)
            self.source.close()

    def _account(self, first_at: float) -> None:
        self.session.counts = self.ring.counts
        self.session.seconds = self.ring.counts["samples"] / self.source.fs
        passed = time.monotonic() - first_at
        if passed > 5:
            self.session.rate = round((self.ring.counts["samples"] - self._skip) / passed, 3)

    def _take(self, chunk: Chunk) -> Iterator[Decision]:
        """Push a chunk piece by piece, so that each window ends where it should."""
        if chunk.fresh:
            self.ring.restart(chunk.first)
            self._due, self._next_look = [], None
        self.ring.counts["lost"] -= chunk.back
        self._due += self._planned(chunk)
        start, end = chunk.first, chunk.first + chunk.x.shape[1]
        while start < end:
            stop = min([at for at, _ in self._due if at > start] + [end])
            self.ring.push(chunk.x[:, start - chunk.first : stop - chunk.first], start)
            for look in [look for look in self._due if look[0] <= stop]:
                self._due.remove(look)
                yield self._look(stop, look[1], chunk)  # later, where the window's end was lost
            start = stop

    def _planned(self, chunk: Chunk) -> list[tuple[int, float | None]]:
        """The numbers behind which a window ends, with the cue's frequency."""
        if self.every is None:
            return [
                (cue.sample + self._after_cue + self.samples, cue.label)
                for cue in chunk.events
                if isinstance(cue.label, float)
            ]
        step = max(round(self.every * self.source.fs), 1)
        if self._next_look is None:
            self._next_look = chunk.first + self.samples
        looks: list[tuple[int, float | None]] = []
        while self._next_look <= chunk.first + chunk.x.shape[1]:
            looks.append((self._next_look, None))
            self._next_look += step
        return looks

    def _look(self, number: int, asked: float | None, chunk: Chunk) -> Decision:
        began = time.perf_counter()
        decision = self._decide(number, asked)
        done = time.perf_counter()
        late = None
        if chunk.due is not None:
            behind = (chunk.first + chunk.x.shape[1] - number) / self.source.fs
            late = time.monotonic() - (chunk.due - behind)
        correct = None
        if asked and decision[0] is not None:
            correct = bool(np.isclose(self.decoder.frequencies[decision[0]], asked))
        made = Decision(
            sample=number,
            choice=decision[0],
            probabilities=decision[1],
            scores=decision[2],
            reason=decision[3],
            correct=correct,
            asked=asked,
            latency_s=late,
            compute_s=done - began,
            unused=decision[4],
        )
        self.session.decisions.append(made)
        return made

    def _decide(self, number: int, asked: float | None) -> tuple[Any, ...]:
        window = self.ring.window()
        if window is None:
            have = self.ring.held / self.source.fs
            self._recent = []
            whole = self.samples / self.source.fs
            return None, None, None, f"only {have:.1f} of {whole:g} s without a break", ()
        quality = self.ring.quality()
        left = window.shape[1] - len(quality.unused)
        if left < min(FEWEST, window.shape[1]):
            self._recent = []
            return (
                None,
                None,
                None,
                f"{len(quality.unused)} channels are flat or railed",
                (quality.unused),
            )
        if quality.made_up > ODD:
            return None, None, None, f"{quality.made_up:.0%} of the window was lost", quality.unused
        if quality.unused:
            window[:, quality.unused] = 0.0
        scores = self.decoder.scores(window, self.source.fs)
        sure = probabilities(self.decoder, scores)
        best = int(sure.argmax())
        if sure[best] < self.threshold:
            self._recent = []
            reason = f"unsure: below {self.threshold:.2f}"
            return None, sure, scores, reason, quality.unused
        self._recent = [*self._recent, best][-self.agree :]
        if len(self._recent) < self.agree or len(set(self._recent)) > 1:
            return None, sure, scores, f"{self.agree} in a row must agree", quality.unused
        return best, sure, scores, "", quality.unused


def with_deadline(source: Source, silence_s: float) -> Iterator[Chunk]:
    """A source's chunks, read in a thread of its own: one that hangs is noticed all the same.

    Raises `StreamError` after `silence_s` without a chunk, and whatever the source raises.
    """
    chunks: queue.Queue[Chunk | BaseException | None] = queue.Queue(256)
    stop = threading.Event()

    def read() -> None:
        try:
            for chunk in source:
                if stop.is_set():
                    return
                if chunk is not None:
                    chunks.put(chunk)
            chunks.put(None)
        except BaseException as error:
            chunks.put(error)

    threading.Thread(target=read, daemon=True, name="source").start()
    try:
        while True:
            try:
                found = chunks.get(timeout=silence_s)
            except queue.Empty:
                raise StreamError(
                    f"{source.name}: no sample for {silence_s:g} s; the source is gone"
                ) from None
            if isinstance(found, BaseException):
                raise found
            if found is None:
                return
            yield found
    finally:
        stop.set()
        while not chunks.empty():
            chunks.get_nowait()
