"""The last seconds of a stream: filtered for the decoder, raw for a look at its quality.

Samples have numbers, counted by the source, so that a lost one is seen. A short loss is bridged
with a straight line, a long one starts the filters anew: nothing is computed across it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.features import Floats
from leancnn.eeg.filters import Bank, Causal, notch
from leancnn.eeg.recording import VOLTS

BRIDGED_S = 0.1  # the longest loss that a straight line replaces
FLAT_VOLTS = 5e-8  # peak to peak in a window: no electrode on a head is so still
RAILED = 0.1  # of a window's samples at its very highest or lowest value: an amplifier at its end
TOGETHER = 64  # samples that are filtered at once, where no decision asks before
ODD = 0.1  # of a window's samples that were made up: more, and it is not decided on


@dataclass(frozen=True, slots=True)
class Quality:
    """What is wrong with the channels of a window, by place."""

    flat: tuple[int, ...]
    railed: tuple[int, ...]
    made_up: float
    """Share of samples that were lost or not a number, and were replaced."""

    @property
    def unused(self) -> tuple[int, ...]:
        return tuple(sorted({*self.flat, *self.railed}))


class Ring:
    """A buffer of `samples` samples behind a bank of causal filters.

    `counts` says what was met: samples, lost, bridged, restarts, nan.
    """

    def __init__(
        self,
        bank: Bank,
        fs: float,
        channels: int,
        samples: int,
        *,
        unit: str = "",
        mains: float | None = None,
    ) -> None:
        self.fs, self.channels, self.samples = fs, channels, samples
        self.filters = bank.filters(fs, channels)
        self.mains = None if mains is None else Causal(notch(mains, fs), channels)
        self.counts: Counter[str] = Counter()
        self._volts = VOLTS.get(unit)
        self._bands: list[Floats] = []
        self._waiting: list[NDArray[np.float32]] = []
        self._raw: list[NDArray[np.float32]] = []
        self._odd: list[NDArray[np.bool_]] = []
        self._held = 0
        self._next: int | None = None
        self._last: NDArray[np.float32] = np.zeros((channels, 1), np.float32)

    @property
    def next(self) -> int | None:
        """The number of the sample that should come next; None before the first."""
        return self._next

    @property
    def held(self) -> int:
        """How many samples stand here without a break, at most `samples`."""
        return min(self._held, self.samples)

    def restart(self, number: int | None = None) -> None:
        """Forget all: another stretch of signal begins, with this number."""
        self.filters.reset()
        if self.mains is not None:
            self.mains.reset()
        self._bands, self._waiting, self._raw, self._odd, self._held = [], [], [], [], 0
        self._next = number

    def push(self, x: NDArray[np.float32], first: int) -> None:
        """Add samples (channels, n) of which the first has the number `first`.

        Numbers that were here already are dropped; missing ones are bridged or start anew.
        """
        if self._next is not None and first < self._next:
            x, first = x[:, self._next - first :], self._next
        if not x.shape[1]:
            return
        lost = 0 if self._next is None else first - self._next
        behind = first + x.shape[1]
        self.counts["samples"] += x.shape[1]
        self.counts["lost"] += lost
        bad: NDArray[np.bool_] = ~np.isfinite(x)
        if bad.any():
            self.counts["nan"] += int(bad.any(0).sum())
            x = held_through(x, bad, self._last)
        odd: NDArray[np.bool_] = np.asarray(bad.any(0))
        if lost and lost <= BRIDGED_S * self.fs and self._held:
            self.counts["bridged"] += lost
            steps = np.arange(1, lost + 1, dtype=np.float32) / (lost + 1)
            line = self._last + (x[:, :1] - self._last) * steps
            x = np.concatenate([line.astype(np.float32), x], 1)
            odd = np.concatenate([np.ones(lost, bool), odd])
        elif lost:
            self.counts["restarts"] += 1
            self.restart()
        self._append(x, odd)
        self._next = behind

    def _append(self, x: NDArray[np.float32], odd: NDArray[np.bool_]) -> None:
        self._waiting.append(x)
        self._raw.append(x)
        self._odd.append(odd)
        self._last = x[:, -1:]
        self._held += x.shape[1]
        if sum(part.shape[1] for part in self._waiting) >= TOGETHER:
            self._filter()

    def _filter(self) -> None:
        """Filter what waits, all at once: the bits are the same in chunks of any size."""
        if self._waiting:
            x = np.concatenate(self._waiting, 1)
            self._bands.append(self.filters(x if self.mains is None else self.mains(x)))
            self._waiting = []
            raw, odd = np.concatenate(self._raw, 1), np.concatenate(self._odd)
            self._raw, self._odd = [raw[:, -self.samples :]], [odd[-self.samples :]]
        held = sum(part.shape[2] for part in self._bands)
        while held - self._bands[0].shape[2] >= self.samples:
            held -= self._bands.pop(0).shape[2]

    def window(self) -> Floats | None:
        """The last window (bands, channels, samples), None while it is not full."""
        if self._held < self.samples:
            return None
        self._filter()
        return np.ascontiguousarray(np.concatenate(self._bands, 2)[:, :, -self.samples :])

    def quality(self) -> Quality:
        """How the channels of the last window look."""
        raw = np.concatenate(self._raw, 1)[:, -self.samples :]
        odd = np.concatenate(self._odd)[-self.samples :]
        high, low = raw.max(1), raw.min(1)
        reach = high - low
        still = 0.0 if self._volts is None else FLAT_VOLTS / self._volts
        flat = reach <= still
        ends = np.maximum((raw == high[:, None]).mean(1), (raw == low[:, None]).mean(1))
        railed = ~flat & (ends > RAILED)
        return Quality(_places(flat), _places(railed), float(odd.mean()))


def held_through(
    x: NDArray[np.float32], bad: NDArray[np.bool_], before: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Each bad sample replaced by its channel's last good one."""
    whole = np.concatenate([before, x], 1)
    good = np.concatenate([np.ones_like(before, bool), ~bad], 1)
    places = np.where(good, np.arange(whole.shape[1]), 0)
    return np.take_along_axis(whole, np.maximum.accumulate(places, 1), 1)[:, 1:]


def _places(mask: NDArray[Any]) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(mask)))
