"""Causal filters: second-order sections with a state that lasts from chunk to chunk.

A signal that arrives in chunks of any size gives the same bits as the whole at once. Nothing looks
ahead: what is measured offline is what a live stream would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import MismatchError

Floats = NDArray[np.float64]


class Causal:
    """Second-order sections (sections, 6) run over (channels, samples), chunk by chunk.

    It begins as if the first sample had stood there for ever, so a constant offset, of which an
    amplifier may have millivolts, makes no jump.

    >>> low = Causal(notch(50.0, 250.0), channels=2)
    >>> low(np.ones((2, 3))).shape
    (2, 3)
    """

    def __init__(self, sections: Floats, channels: int) -> None:
        from scipy.signal import sosfilt_zi

        self.sections = np.ascontiguousarray(sections, np.float64)
        self.channels = channels
        self.at_rest: Floats = sosfilt_zi(self.sections)
        """(sections, 2): the state in which a constant 1 would have left it."""
        self._state: Floats | None = None

    def reset(self) -> None:
        """Forget all that was: what follows is another stretch of signal."""
        self._state = None

    def __call__(self, x: NDArray[Any]) -> Floats:
        """Filter the next samples (channels, samples). Raises `MismatchError` for others."""
        from scipy.signal import sosfilt

        if x.ndim != 2 or len(x) != self.channels:
            raise MismatchError(f"a filter of {self.channels} channels got {x.shape}")
        x = np.ascontiguousarray(x, np.float64)
        if not x.shape[1]:
            return x
        if self._state is None:
            self._state = self.at_rest[:, None, :] * x[None, :, :1]
        out, self._state = sosfilt(self.sections, x, axis=1, zi=self._state)
        return np.asarray(out, np.float64)


def band_pass(low: float, high: float, fs: float, order: int = 4) -> Floats:
    """Butterworth band-pass as sections. Raises `MismatchError` outside 0 < low < high < fs / 2."""
    from scipy.signal import butter

    if not 0 < low < high < fs / 2:
        raise MismatchError(
            f"a band from {low:g} to {high:g} Hz does not fit a rate of {fs:g} Hz: "
            f"it ends below {fs / 2:g}"
        )
    return np.asarray(butter(order, (low, high), "bandpass", fs=fs, output="sos"), np.float64)


def notch(hz: float, fs: float, quality: float = 30.0) -> Floats:
    """A notch at the mains' frequency as one section."""
    from scipy.signal import iirnotch, tf2sos

    return np.asarray(tf2sos(*iirnotch(hz, quality, fs=fs)), np.float64)


@dataclass(frozen=True, slots=True)
class Bank:
    """Sub-bands that all end at `high` Hz and begin at each of `lows`: a filter bank for SSVEP.

    Source: Chen et al., Filter bank canonical correlation analysis for implementing a high-speed
    SSVEP-based brain-computer interface, J. Neural Eng. 2015, Fig. 2 (M3: bands that end together).
    """

    lows: tuple[float, ...] = (8.0, 16.0, 24.0, 32.0, 40.0)
    high: float = 70.0
    order: int = 4

    def filters(self, fs: float, channels: int) -> BankFilter:
        """The bank for a stream; the upper edge falls with a low rate, to 0.45 of it."""
        high = min(self.high, 0.45 * fs)
        lows = [low for low in self.lows if low < 0.9 * high]
        if len(lows) != len(self.lows):
            raise MismatchError(
                f"sub-bands from {max(self.lows):g} Hz need a higher rate than {fs:g} Hz"
            )
        return BankFilter([Causal(band_pass(low, high, fs, self.order), channels) for low in lows])

    def to_json(self) -> dict[str, Any]:
        return {"lows": list(self.lows), "high": self.high, "order": self.order}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Bank:
        return cls(tuple(map(float, value["lows"])), float(value["high"]), int(value["order"]))


def bank_for(frequencies: Sequence[float], bands: int = 5) -> Bank:
    """The bank whose lowest edge leaves the lowest target whole: at most 0.8 of it.

    Steps are 8 Hz. For 13 Hz and above it is the bank that wins on recorded data, from 8 Hz; one
    that starts at 8 Hz would cut a target of 7.5 Hz.
    """
    lowest = min(8.0, float(np.floor(0.8 * min(frequencies))))
    if lowest < 1:
        raise MismatchError(f"a target of {min(frequencies):g} Hz is too low; 2 Hz or more will do")
    return Bank(tuple(lowest + 8.0 * step for step in range(bands)))


class BankFilter:
    """The sub-bands of a stream: (channels, samples) to (bands, channels, samples)."""

    def __init__(self, bands: Sequence[Causal]) -> None:
        self.bands = list(bands)

    def reset(self) -> None:
        for band in self.bands:
            band.reset()

    def __call__(self, x: NDArray[Any]) -> Floats:
        return np.stack([band(x) for band in self.bands])
