"""What was recorded: a continuous recording, and trials cut from one or many.

Signals are float32 (channels, samples) in the order of time. A *gap* is a place where samples are
missing; nothing that is computed may reach across one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import DataError

VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "µV": 1e-6, "μV": 1e-6, "nV": 1e-9}
"""How many volts one unit is; a unit that is not here is asked for, never guessed."""
LONG_UNITS = {"microvolts": "uV", "microvolt": "uV", "millivolts": "mV", "volts": "V"}
REST_WORDS = ("rest", "none")
JUMP = 1.5  # steps of a clock that count as a gap
REST = 0.0  # the label of a trial without a flicker, in Hz


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: a flicker of `label` Hz began, or a marker with a name.

    >>> Event(250, 7.5)
    Event(sample=250, label=7.5)
    """

    sample: int
    label: float | str


@dataclass(frozen=True, slots=True)
class Gap:
    """`lost` samples are missing in front of `sample`.

    >>> gaps_of_numbers(np.array([0, 1, 2, 6, 7]))
    (Gap(sample=3, lost=3),)
    """

    sample: int
    lost: int


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One stretch of signal: `x` float32 (channels, samples) at `fs` Hz.

    `unit` is that of `x`, "" where the file does not say. `stamps` are the seconds that the source
    gave the samples, where it did. Raises `DataError` when sizes do not fit.

    >>> x = np.zeros((2, 2000), np.float32)
    >>> recording = Recording(x, 250.0, ("O1", "O2"), events=(Event(500, 7.5),), unit="uV")
    >>> recording.seconds, recording.epochs().x.shape
    (8.0, (1, 2, 1500))
    """

    x: NDArray[np.float32]
    fs: float
    channels: tuple[str, ...]
    events: tuple[Event, ...] = ()
    unit: str = ""
    source: str = ""
    gaps: tuple[Gap, ...] = ()
    stamps: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or len(self.x) != len(self.channels):
            raise DataError(
                f"{self.source}: {len(self.channels)} channel names for a signal of {self.x.shape}"
            )
        if not np.isfinite(self.fs) or self.fs <= 0:
            raise DataError(f"{self.source}: a sampling rate is above 0 Hz, not {self.fs}")
        if self.stamps is not None and len(self.stamps) != self.x.shape[1]:
            raise DataError(f"{self.source}: {len(self.stamps)} stamps, {self.x.shape[1]} samples")

    @property
    def seconds(self) -> float:
        return float(self.x.shape[1] / self.fs)

    def epochs(self, before: float = 1.0, after: float = 5.0) -> Epochs:
        """Trials from `before` s in front of each event with a frequency to `after` s behind it.

        A trial that a gap or an end of the recording would cut is left out. Raises `DataError`
        when none remains.
        """
        start, stop = round(before * self.fs), round(after * self.fs)
        breaks = [gap.sample for gap in self.gaps]
        kept = [
            event
            for event in self.events
            if isinstance(event.label, float)
            and event.sample >= start
            and event.sample + stop <= self.x.shape[1]
            and not any(event.sample - start < at < event.sample + stop for at in breaks)
        ]
        if not kept:
            raise DataError(
                f"{self.source}: no event with a frequency has {before:g} s before and {after:g} s "
                "after it without a gap; labels are numbers of Hz, and --label CODE=HZ says what a "
                "code means"
            )
        cut = [self.x[:, event.sample - start : event.sample + stop] for event in kept]
        return Epochs(
            x=np.stack(cut),
            hz=np.array([event.label for event in kept], np.float64),
            subject=np.array([self.source] * len(kept)),
            session=np.array([self.source] * len(kept)),
            fs=self.fs,
            t0=-before,
            channels=self.channels,
            unit=self.unit,
            source=self.source,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Epochs:
    """Trials: `x` float32 (N, channels, samples), the first sample `t0` s from the cue.

    `hz` is the frequency looked at, 0 for rest; `subject` and `session` say whose and when. Raises
    `DataError` when sizes do not fit.

    >>> whose = {"subject": np.array(["a", "a"]), "session": np.array(["1", "1"])}
    >>> x, hz = np.zeros((2, 1, 500), np.float32), np.array([0.0, 7.5])
    >>> trials = Epochs(x, hz, **whose, fs=250.0, t0=-1.0, channels=("Oz",))
    >>> trials.targets, trials.labels.tolist()
    ((7.5,), [-1, 0])
    """

    x: NDArray[np.float32]
    hz: NDArray[np.float64]
    subject: NDArray[Any]
    session: NDArray[Any]
    fs: float
    t0: float
    channels: tuple[str, ...]
    unit: str = ""
    source: str = ""
    _keys: list[str] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = {len(self.x), len(self.hz), len(self.subject), len(self.session)}
        if self.x.ndim != 3 or len(sizes) != 1 or self.x.shape[1] != len(self.channels):
            raise DataError(
                f"{self.source}: signals of {self.x.shape} with {len(self.hz)} labels, "
                f"{len(self.subject)} subjects, {len(self.session)} sessions, "
                f"{len(self.channels)} channel names do not fit together"
            )
        if not np.isfinite(self.fs) or self.fs <= 0:
            raise DataError(f"{self.source}: a sampling rate is above 0 Hz, not {self.fs}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: NDArray[Any]) -> Epochs:
        """The trials of a mask or of indices, in that order."""
        return replace(
            self,
            x=self.x[which],
            hz=self.hz[which],
            subject=self.subject[which],
            session=self.session[which],
            _keys=[],
        )

    @property
    def targets(self) -> tuple[float, ...]:
        """The frequencies looked at, ascending, without rest."""
        return tuple(float(hz) for hz in np.unique(self.hz) if hz != REST)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The place of each trial's frequency among `targets`, −1 for rest."""
        return np.where(self.hz == REST, -1, np.searchsorted(self.targets, self.hz)).astype(
            np.int64
        )

    def looking(self) -> Epochs:
        """The trials with a flicker."""
        return self[self.hz != REST]

    def resting(self) -> Epochs:
        """The trials without."""
        return self[self.hz == REST]

    def sample(self, seconds: float) -> int:
        """The sample that lies `seconds` behind the cue."""
        return round((seconds - self.t0) * self.fs)

    def digests(self) -> list[str]:
        """SHA-256 of each trial's signal: equal for the same trial under two names."""
        if not self._keys:
            self._keys.extend(
                hashlib.sha256(np.ascontiguousarray(trial).tobytes()).hexdigest()
                for trial in self.x
            )
        return self._keys

    def digests_with_facts(self) -> NDArray[np.uint8]:
        """SHA-256 (N, 32) of each trial's signal with its frequency, rate, start and channels."""
        facts = f"{self.fs!r} {self.t0!r} {self.channels!r}"
        labelled = zip(self.digests(), self.hz.tolist(), strict=True)
        whole = b"".join(
            hashlib.sha256(f"{digest} {hz!r} {facts}".encode()).digest() for digest, hz in labelled
        )
        return np.frombuffer(whole, np.uint8).reshape(-1, 32)


def joined(parts: Sequence[Epochs]) -> Epochs:
    """Several sets of trials as one. Raises `DataError` when rates, lengths or channels differ."""
    first = parts[0]
    for other in parts[1:]:
        same = (other.fs, other.t0, other.channels, other.unit, other.x.shape[1:])
        if same != (first.fs, first.t0, first.channels, first.unit, first.x.shape[1:]):
            raise DataError(
                f"{other.source} does not fit {first.source}: rate, start, length, unit and "
                "channels of all trials must agree"
            )
    if len(parts) == 1:
        return first
    return replace(
        first,
        x=np.concatenate([part.x for part in parts]),
        hz=np.concatenate([part.hz for part in parts]),
        subject=np.concatenate([part.subject.astype(str) for part in parts]),
        session=np.concatenate([part.session.astype(str) for part in parts]),
        source=", ".join(part.source for part in parts),
        _keys=[],
    )


def unit_of(units: Iterable[str]) -> str:
    """The one unit that all channels name, `microvolts` as `uV`; "" where they name none or others.

    >>> unit_of({"microvolts"}), unit_of({"uV", "mV"}), unit_of({"counts"})
    ('uV', '', '')
    """
    names = {LONG_UNITS.get(name.lower(), name) for name in units}
    name = names.pop() if len(names) == 1 else ""
    return name if name in VOLTS else ""


def label_of(word: str) -> float | str:
    """`13`, `13.0` and `13 Hz` as a frequency, `rest` as 0, anything else as a name."""
    if word.lower() in REST_WORDS:
        return 0.0
    number = re.fullmatch(r"(\d+(?:\.\d+)?)(?:\s*Hz)?", word, re.IGNORECASE)
    return float(number[1]) if number else word


def gaps_of_numbers(numbers: NDArray[np.int64]) -> tuple[Gap, ...]:
    """Where a counter of samples leaps."""
    steps = np.diff(numbers)
    return tuple(Gap(int(at) + 1, int(steps[at]) - 1) for at in np.flatnonzero(steps > 1))


def gaps_of_stamps(stamps: NDArray[np.float64] | None, fs: float) -> tuple[Gap, ...]:
    """Where a clock leaps by over 1.5 samples and does not fall back within a second.

    A stamp may be late but not early, so what counts is the lowest distance of stamps from an even
    count, in the second behind a leap against the one before.
    """
    if stamps is None:
        return ()
    late = stamps * fs - np.arange(len(stamps))
    reach, begin = max(round(fs), 1), 0
    found = []
    for at in np.flatnonzero(np.diff(stamps) * fs > JUMP) + 1:
        before = late[max(at - reach, begin) : at].min()
        lost = round(float(late[at : at + reach].min() - before))
        if lost >= 1:
            found.append(Gap(int(at), lost))
            begin = int(at)
    return tuple(found)
