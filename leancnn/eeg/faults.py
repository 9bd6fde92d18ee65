"""Signals gone wrong on purpose: what live decoding counts of each, and what it costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.chunks import POLL_S, Chunk
from leancnn.eeg.decoders import fbcca
from leancnn.eeg.doctor import check
from leancnn.eeg.live import Live
from leancnn.eeg.page import checked
from leancnn.eeg.recording import Epochs, Event, Recording
from leancnn.eeg.synthetic import synthetic_trials
from leancnn.errors import LeanCNNError

TARGETS = (7.5, 60 / 7, 10.0, 12.0)
CHUNK = 10  # samples
Change = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]


class Faulty:
    """Made trials in chunks, each mistreated by `change`; a share of the chunks never comes."""

    def __init__(
        self,
        epochs: Epochs,
        change: Change | None = None,
        lost: float = 0.0,
        ppm: float = 0.0,
        *,
        ends: bool = True,
    ) -> None:
        self.name, self.fs = "made", epochs.fs
        self.channels, self.unit = epochs.channels, epochs.unit
        self._ends = ends
        self._epochs, self._change, self._lost, self._ppm = epochs, change, lost, ppm

    def __iter__(self) -> Iterator[Chunk | None]:
        random = np.random.default_rng(0)
        length, cue = self._epochs.x.shape[2], self._epochs.sample(0.0)
        for number, (trial, hz) in enumerate(zip(self._epochs.x, self._epochs.hz, strict=True)):
            trial = trial if not self._ppm else drifted(trial, self._ppm)
            trial = trial if self._change is None else self._change(trial.copy(), random)
            for start in range(0, length, CHUNK):
                here = start <= cue < start + CHUNK
                if random.random() < self._lost and not here and start:
                    continue
                first = number * length + start
                events = (Event(number * length + cue, float(hz)),) if here else ()
                yield Chunk(trial[:, start : start + CHUNK], first, None, events, start == 0)
        while not self._ends:  # a sender that died
            time.sleep(POLL_S)
            yield None

    def close(self) -> None:
        """Nothing is held."""


def drifted(trial: NDArray[np.float32], ppm: float) -> NDArray[np.float32]:
    """The same as a clock that is `ppm` millionths too fast would have sampled it."""
    from scipy.interpolate import CubicSpline

    places = np.arange(trial.shape[1]) * (1 - ppm * 1e-6)
    made = CubicSpline(np.arange(trial.shape[1]), trial, axis=1)(places)
    return np.asarray(made, np.float32)


def flat(x: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    x[0] = 0.0
    return x


def railed(x: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """The first channel at its upper end, but for moments."""
    x[0] = np.where(random.random(x.shape[1]) < 0.9, 187_500.0, x[0])
    return x


def mains(x: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """50 Hz of ten times the signal's rms on every channel, other strengths on each."""
    seconds = np.arange(x.shape[1]) / 250.0
    wave = np.sqrt(2) * 10 * x.std() * np.sin(2 * np.pi * 50 * seconds + random.uniform(0, 6))
    return np.asarray(x + np.outer(random.uniform(0.5, 1.5, len(x)), wave), np.float32)


def nan(x: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """One sample in a hundred of one channel is not a number."""
    x[1, random.random(x.shape[1]) < 0.01] = np.nan
    return x


def volts(x: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Volts that are said to be microvolts."""
    return x * np.float32(1e-6)


FAULTS: dict[str, tuple[Change | None, float, float, float | None]] = {
    "none": (None, 0.0, 0.0, None),
    "5 % of chunks lost": (None, 0.05, 0.0, None),
    "a flat channel": (flat, 0.0, 0.0, None),
    "a railed channel": (railed, 0.0, 0.0, None),
    "50 Hz, ten times the signal": (mains, 0.0, 0.0, None),
    "50 Hz, ten times the signal, notch": (mains, 0.0, 0.0, 50.0),
    "1 % NaN in a channel": (nan, 0.0, 0.0, None),
    "a clock 200 ppm off": (None, 0.0, 200.0, None),
    "volts said to be µV": (volts, 0.0, 0.0, None),
}


def fault_rows(trials: int = 120, snr_db: float = -14.0) -> list[dict[str, Any]]:
    """One row a fault: what was counted, how many cues were decided on, and how many right."""
    epochs = synthetic_trials(TARGETS, snr_db, trials=trials)
    rows = []
    for name, (change, lost, ppm, notch) in FAULTS.items():
        live = Live(Faulty(epochs, change, lost, ppm), fbcca(TARGETS), window=2.0, mains=notch)
        found = list(live)
        decided = [d for d in found if d.choice is not None]
        counts = live.ring.counts
        silent = Counter(d.reason for d in found if d.choice is None)
        rows.append(
            {
                "fault": name,
                "cues": len(found),
                "decided": len(decided),
                "correct": sum(d.correct is True for d in decided),
                "samples lost": counts["lost"],
                "bridged": counts["bridged"],
                "NaN": counts["nan"],
                "channels left out": max((len(d.unused) for d in found), default=0),
                "reasons": "; ".join(f"{times} × {reason}" for reason, times in silent.items()),
            }
        )
    return rows


def refusal_rows(recorded: Epochs) -> list[dict[str, Any]]:
    """One row for what is refused: what was said, and after how many seconds."""
    made = synthetic_trials(TARGETS, -8.0, trials=1)
    long = Recording(np.concatenate([*made.x], 1), made.fs, made.channels, (), "V", "made")
    crossed = np.where(recorded.hz == 17, 21.0, np.where(recorded.hz == 21, 17.0, recorded.hz))
    tries: dict[str, Callable[[], object]] = {
        "a source that dies": lambda: list(
            Live(Faulty(made, ends=False), fbcca(TARGETS), window=2.0)
        ),
        "µV said to be volts, check": lambda: _problems(long),
        "17 and 21 Hz crossed, check": lambda: _problems(replace(recorded, hz=crossed, _keys=[])),
        "two LSL streams of one name": _two_streams,
        "100 Hz on a page": lambda: checked((10.0, 100.0)),
    }
    return [{"fault": name, **_message(call)} for name, call in tries.items()]


def _message(call: Callable[[], object]) -> dict[str, Any]:
    began, message = time.monotonic(), "nothing"
    try:
        call()
    except LeanCNNError as error:
        message = str(error)
    return {"message": message, "seconds": round(time.monotonic() - began, 1)}


def _problems(data: Recording | Epochs) -> None:
    """Raise what `check` found."""
    if found := check(data).problems:
        raise LeanCNNError("; ".join(found))


def _two_streams() -> None:
    from leancnn.eeg.lsl import LSL, pylsl

    lsl = pylsl()
    infos = [lsl.StreamInfo("leancnn-twin", "EEG", 8, 250, "float32", f"twin-{n}") for n in (1, 2)]
    held = [lsl.StreamOutlet(info) for info in infos]
    LSL("leancnn-twin").close()
    del held
