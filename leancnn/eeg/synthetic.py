"""Made EEG of a stated signal-to-noise ratio: pink sources, alpha, mains, and answers to flickers.

Eight pink sources, an alpha rhythm and the mains reach the electrodes by one fixed mixing; so does
the answer, at the flicker's frequency and twice that. The ratio is the answer's power over that of
all the rest between 1 and 70 Hz, on the electrode where it is best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.recording import Epochs

CHANNELS = ("Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4")
FS = 250.0
BAND = (1.0, 70.0)  # Hz, of the noise that the ratio counts
HARMONIC = 0.5  # amplitude of the answer's second harmonic, to its first
MICROVOLTS = 10.0  # rms of what is not the answer


class Head:
    """One made head: a mixing drawn from `seed`, and a generator for all that flows."""

    def __init__(self, snr_db: float, *, fs: float = FS, seed: int = 0) -> None:
        self.fs, self.snr_db = fs, snr_db
        self.random = np.random.default_rng(seed)
        sources = len(CHANNELS)
        self.mixing = self.random.standard_normal((len(CHANNELS), sources))
        self.alpha = np.abs(self.random.standard_normal(len(CHANNELS)))
        self.mains = self.random.standard_normal(len(CHANNELS))
        self.answer = np.abs(self.random.standard_normal(len(CHANNELS))) + 0.2

    def rest(self, samples: int) -> NDArray[np.float64]:
        """Microvolts (channels, samples) without an answer."""
        time = np.arange(samples) / self.fs
        pink = self.mixing @ pink_noise(self.random, len(CHANNELS), samples)
        slow = self.random.standard_normal(samples // 64 + 2)
        envelope = np.interp(np.arange(samples), 64 * np.arange(len(slow)), np.abs(slow))
        phase = self.random.uniform(0, 2 * np.pi, 2)
        alpha = np.outer(self.alpha, envelope * np.sin(2 * np.pi * 10.3 * time + phase[0]))
        mains = np.outer(self.mains, 0.5 * np.sin(2 * np.pi * 50 * time + phase[1]))
        noise = pink + alpha + mains
        return np.asarray(noise * (MICROVOLTS / np.sqrt((noise**2).mean())), np.float64)

    def looking(self, hz: float, rest: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same with the answer to a flicker of `hz` added, at the stated ratio."""
        time = np.arange(rest.shape[1]) / self.fs
        phase = self.random.uniform(0, 2 * np.pi, 2)
        wave = np.sin(2 * np.pi * hz * time + phase[0])
        wave += HARMONIC * np.sin(4 * np.pi * hz * time + phase[1])
        answer = np.outer(self.answer, wave)
        best = float((band_power(answer, self.fs) / band_power(rest, self.fs)).max())
        return np.asarray(rest + answer * np.sqrt(10 ** (self.snr_db / 10) / best), np.float64)


def pink_noise(random: np.random.Generator, rows: int, samples: int) -> NDArray[np.float64]:
    """Noise whose power falls as 1 / f, of unit variance: (rows, samples)."""
    size = 1 << (2 * samples - 1).bit_length()
    spectrum = np.fft.rfft(random.standard_normal((rows, size)))
    falls = np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1))
    noise = np.fft.irfft(spectrum / falls, size)[:, :samples]
    return np.asarray(noise / noise.std(1, keepdims=True), np.float64)


def band_power(x: NDArray[np.float64], fs: float) -> NDArray[np.float64]:
    """Power of each channel (channels, samples) between 1 and 70 Hz."""
    spectrum = np.abs(np.fft.rfft(x - x.mean(1, keepdims=True))) ** 2
    hz = np.fft.rfftfreq(x.shape[1], 1 / fs)
    inside = (hz >= BAND[0]) & (hz <= BAND[1])
    return np.asarray(2 * spectrum[:, inside].sum(1) / x.shape[1] ** 2, np.float64)


def synthetic_trials(
    frequencies: Sequence[float],
    snr_db: float,
    *,
    trials: int,
    people: int = 1,
    rest: int = 0,
    seconds: float = 5.0,
    before: float = 1.0,
    fs: float = FS,
    seed: int = 0,
) -> Epochs:
    """Made trials, the targets in turn, each person with a mixing of his own; then `rest` trials.

    Two sessions a person, half of the trials each. `seconds` are counted from the cue.
    """
    x, hz, subject, session = [], [], [], []
    samples = round((before + seconds) * fs)
    for person in range(people):
        head = Head(snr_db, fs=fs, seed=1000 * seed + person)
        for number in range(trials + rest):
            target = frequencies[number % len(frequencies)] if number < trials else 0.0
            made = head.rest(samples)
            x.append(head.looking(target, made) if target else made)
            hz.append(target)
            subject.append(f"made-{person + 1}")
            late = number >= trials + rest // 2 or trials // 2 <= number < trials
            session.append(f"made-{person + 1}-{'b' if late else 'a'}")
    return Epochs(
        x=np.stack(x).astype(np.float32),
        hz=np.array(hz),
        subject=np.array(subject),
        session=np.array(session),
        fs=fs,
        t0=-before,
        channels=CHANNELS,
        unit="uV",
        source=f"synthetic, {snr_db:g} dB",
    )
