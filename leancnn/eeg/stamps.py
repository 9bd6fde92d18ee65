"""Which samples of a stream were lost, where nothing but their stamps can say it.

A stamp that leaps says that a sender was late or that samples are missing. Who was late catches up:
what waited comes at once, and the stamps fall back to the clock. What is missing stays missing. So
samples whose stamps are ahead of their number are held back, for a tenth of a second of stamps at
most, until it shows which of the two it is. Where stamps are no even row, because whole packets
share one or come by radio, only a leap of a quarter second counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite

ON_TIME_S = 0.012  # how far a stamp may be ahead: what computers are late every day
SETTLED_S = 0.1  # of stamps in which nothing more was caught up: the rest is missing
UNEVEN_S = 0.25  # the same where stamps are no even row: of packets as a whole, or by radio
UNEVEN = 0.3  # of a sample, on average: the distance of stamps beside each other from an even one
RECENT_S = 0.2  # in which that average is taken
DRIFT_S = 0.8  # within it the clock follows stamps that are on time: rates are never quite nominal
ANEW_S = 1.0  # a clock that steps back by more was set: it says nothing of losses


@dataclass(slots=True)
class Numbering:
    """Numbers for samples of `fs` Hz by their stamps in seconds, lost ones counted in between.

    >>> numbering = Numbering(100.0)
    >>> numbering.take([0.00, 0.01, 0.02])
    [(0, 3)]
    >>> numbering.take([0.06 + 0.01 * n for n in range(12)])  # three are missing
    [(6, 12)]
    """

    fs: float
    next: int = 0
    """The number of the sample that comes next, where none is missing."""
    lost: int = 0
    """How many are missing so far, less those that came after all."""
    _zero: float | None = None  # the stamp of number 0, as it seems now
    _held: list[float] = field(default_factory=list)
    _least: float = 0.0  # of the samples held: how far they are ahead, in samples
    _least_at: float = 0.0
    _last: float | None = None  # stamp
    _uneven: float = 0.0
    _early: bool = False  # whether the last was

    def take(self, stamps: Iterable[float]) -> list[tuple[int, int]]:
        """Stretches (first number, how many) of the samples that can be told now, in their order.

        Those that are held are told by a later call.
        """
        released: list[tuple[int, int]] = []
        for stamp in stamps:
            if not isfinite(stamp):  # it says nothing: the sample is the one after the last
                self._after_last(stamp, released)
                continue
            if self._zero is None:
                self._zero = stamp - self.next / self.fs
            self._look(stamp)
            ahead = (stamp - self._zero) * self.fs - self.next - len(self._held)
            if not self._held and ahead < self._on_time():
                self._follow(ahead)
                self._release(1, released)
            else:
                self._hold(stamp, ahead, released)
        return released

    def flush(self) -> list[tuple[int, int]]:
        """What is held, as if it had only been late: nothing more comes that would show it."""
        released: list[tuple[int, int]] = []
        self._release(len(self._held), released)
        self._held = []
        return released

    def _after_last(self, stamp: float, released: list[tuple[int, int]]) -> None:
        if self._held:
            self._held.append(stamp)
        else:
            self._release(1, released)

    def _look(self, stamp: float) -> None:
        """How even the row of stamps is."""
        if self._last is not None:
            off = min(abs((stamp - self._last) * self.fs - 1), 1.0)
            self._uneven += (off - self._uneven) / (RECENT_S * self.fs)
        self._last = stamp

    def _on_time(self) -> float:
        """How many samples a stamp may be ahead."""
        return (ON_TIME_S if self._uneven < UNEVEN else UNEVEN_S) * self.fs

    def _follow(self, ahead: float) -> None:
        """Let the clock follow a sample that is on time: at once where two come early."""
        assert self._zero is not None
        early = ahead < -self._on_time() / 2
        if ahead >= 0:
            self._zero += ahead / self.fs / max(1.0, DRIFT_S * self.fs)
        elif self._early or not early:
            if early and ahead >= -ANEW_S * self.fs:
                self.lost -= min(round(-ahead), self.lost)  # they had only been late, for long
            self._zero += ahead / self.fs
        self._early = early

    def _hold(self, stamp: float, ahead: float, released: list[tuple[int, int]]) -> None:
        if not self._held or ahead < self._least - 1:
            self._least_at = stamp
        self._least = min(self._least, ahead) if self._held else ahead
        self._held.append(stamp)
        caught_up = ahead < self._on_time()
        if caught_up or stamp - self._least_at >= SETTLED_S:
            missing = 0 if caught_up else round(self._least)
            self.next += missing
            self.lost += missing
            self._release(len(self._held), released)
            self._held = []

    def _release(self, count: int, released: list[tuple[int, int]]) -> None:
        if released and sum(released[-1]) == self.next:
            released[-1] = (released[-1][0], released[-1][1] + count)
        elif count:
            released.append((self.next, count))
        self.next += count
