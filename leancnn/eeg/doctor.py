"""The data doctor for signals: what is wrong with a recording or with trials before any is used.

Whether the labels are right is asked of physics: the spectrum of each labelled class must peak at
the frequency it is labelled with, more than it would if the labels were dealt anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.display import facts
from leancnn.eeg.features import Floats
from leancnn.eeg.read import label_text
from leancnn.eeg.recording import VOLTS, Epochs, Recording
from leancnn.eeg.ring import RAILED
from leancnn.eeg.windows import AFTER_CUE
from leancnn.errors import DataError

PERMUTATIONS = 999
SIGNIFICANT = 0.01
DRIFT = 0.005  # of the rate: more, and rate and stamps contradict each other
PLAUSIBLE_UV = (0.5, 500.0)  # rms of EEG between 1 and 45 Hz
NEIGHBOURS = (-1.5, -1.25, -1.0, -0.75, 0.75, 1.0, 1.25, 1.5)  # Hz beside a peak
HARMONICS = (1, 2)


@dataclass(slots=True)
class Report:
    """What was found: problems stop training, warnings do not."""

    source: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def fit(self) -> bool:
        """Whether the data may be used as they stand."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "fit": self.fit,
            "problems": self.problems,
            "warnings": self.warnings,
            **self.facts,
        }

    def text(self) -> str:
        lines = [f"{self.source}: {'fit for use' if self.fit else 'not fit for use'}"]
        lines += [f"  {line}" for line in facts(self.facts).splitlines()]
        lines += [f"problem: {line}" for line in self.problems]
        lines += [f"warning: {line}" for line in self.warnings]
        return "\n".join(lines)


def check(data: Recording | Epochs) -> Report:
    """Look at a recording, or at trials.

    >>> from leancnn.eeg.synthetic import synthetic_trials
    >>> check(synthetic_trials((10.0, 12.0), 0.0, trials=40)).fit
    True
    """
    return _recording(data) if isinstance(data, Recording) else _epochs(data)


def _recording(data: Recording) -> Report:
    report = Report(data.source)
    report.facts = {
        "kind": "recording",
        "seconds": round(data.seconds, 3),
        "rate": data.fs,
        "channels": len(data.channels),
        "events": dict(Counter(_named(event.label) for event in data.events)),
        "unit": data.unit or "not said",
        "gaps": len(data.gaps),
        "lost": sum(gap.lost for gap in data.gaps),
    }
    if data.gaps:
        longest = max(gap.lost for gap in data.gaps) / data.fs
        report.warnings.append(
            f"{report.facts['lost']} samples are missing in {len(data.gaps)} places, the longest "
            f"{longest:.2f} s; no window reaches across"
        )
    if data.stamps is not None and len(data.stamps) > 2:
        _stamps(report, data)
    _channels(report, data.x[None], data.channels, data.unit, data.fs)
    labelled = [event for event in data.events if isinstance(event.label, float)]
    if len({event.label for event in labelled}) > 1:
        try:
            cut = data.epochs()
        except DataError:
            return report
        _physics(report, cut)
    return report


def _named(label: float | str) -> str:
    """An event as the account counts it: `7.5 Hz`, or its own word."""
    return label if isinstance(label, str) else f"{label_text(label)} Hz"


def _stamps(report: Report, data: Recording) -> None:
    assert data.stamps is not None
    if not np.isfinite(data.stamps).all() or (np.diff(data.stamps) < 0).any():
        report.problems.append("its stamps are no growing numbers")
        return
    lost = sum(gap.lost for gap in data.gaps)
    span = float(data.stamps[-1] - data.stamps[0])
    rate = (len(data.stamps) - 1 + lost) / span if span > 0 else 0.0
    report.facts["rate by stamps"] = round(rate, 3)
    if abs(rate / data.fs - 1) > DRIFT:
        report.problems.append(
            f"the rate is said to be {data.fs:g} Hz, but its stamps say {rate:.2f} Hz"
        )


def _epochs(data: Epochs) -> Report:
    report = Report(data.source)
    people, sessions = np.unique(data.subject), np.unique(data.session)
    report.facts = {
        "kind": "trials",
        "trials": len(data),
        "people": len(people),
        "sessions": len(sessions),
        "labels": {f"{hz:g} Hz": int((data.hz == hz).sum()) for hz in np.unique(data.hz)},
        "rate": data.fs,
        "seconds": [data.t0, round(data.t0 + data.x.shape[2] / data.fs, 3)],
        "channels": len(data.channels),
        "unit": data.unit or "not said",
    }
    _repeats(report, data)
    _channels(report, data.x, data.channels, data.unit, data.fs)
    if len(people) < 2:
        report.warnings.append("one person only: a split by subject is not possible")
    if len(data.targets) > 1:
        _physics(report, data.looking())
    else:
        report.problems.append("fewer than two frequencies are labelled; there is nothing to tell")
    return report


def _repeats(report: Report, data: Epochs) -> None:
    """Trials that stand there twice, by the hash of their signals."""
    places: dict[str, list[int]] = {}
    for place, digest in enumerate(data.digests()):
        places.setdefault(digest, []).append(place)
    twice = [found for found in places.values() if len(found) > 1]
    across = [found for found in twice if len({str(data.subject[at]) for at in found}) > 1]
    report.facts["trials repeated"] = sum(len(found) - 1 for found in twice)
    if across:
        who = Counter(
            " and ".join(sorted({str(data.subject[at]) for at in found})) for found in across
        )
        pairs = ", ".join(f"{count} of {names}" for names, count in who.most_common(3))
        report.problems.append(
            f"the same trials stand under several people ({pairs}): one file under two names; "
            "remove one, or held-out people will have been seen"
        )
    elif twice:
        report.warnings.append(f"{len(twice)} trials stand there more than once")


def _channels(
    report: Report, x: NDArray[np.float32], names: tuple[str, ...], unit: str, fs: float
) -> None:
    """NaN, flat and railed channels (trials, channels, samples), and whether the unit can be."""
    nan = (
        int((~np.isfinite(x)).any((0, 1)).sum())
        if len(x) == 1
        else int((~np.isfinite(x)).any((1, 2)).sum())
    )
    if nan:
        what = "samples" if len(x) == 1 else "trials"
        report.problems.append(f"{nan} {what} hold NaN or infinity; cut them out first")
        x = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
    high, low = x.max(2, keepdims=True), x.min(2, keepdims=True)
    flat = (high == low)[:, :, 0].mean(0)
    ends = np.maximum((x == high).mean(2), (x == low).mean(2))
    railed = ((ends > RAILED) & (high > low)[:, :, 0]).mean(0)
    for share, word in ((flat, "flat"), (railed, "at an end of its range")):
        for place in np.flatnonzero(share > 0.1):
            part = "" if len(x) == 1 else f" in {share[place]:.0%} of trials"
            report.warnings.append(f"channel {names[place]} is {word}{part}")
    if flat.mean() > 0.5:
        report.problems.append("most channels are flat: no signal was recorded")
    _unit(report, x, unit, fs)


def _unit(report: Report, x: NDArray[np.float32], unit: str, fs: float) -> None:
    from scipy.signal import detrend

    step = max(x.shape[0] // 50, 1)
    part = x[::step, :, : round(60 * fs)].astype(np.float64)
    taper = np.hanning(part.shape[2])
    spectrum = np.abs(np.fft.rfft(detrend(part, axis=2) * taper, axis=2)) ** 2
    hz = np.fft.rfftfreq(part.shape[2], 1 / fs)
    inside = (hz >= 1) & (hz <= min(45, 0.45 * fs))
    power = 2 * spectrum[:, :, inside].sum(2) / (part.shape[2] * (taper**2).sum())
    rms = float(np.median(np.sqrt(power)))
    if unit in VOLTS:
        microvolts = 1e6 * rms * VOLTS[unit]
        report.facts["rms 1-45 Hz"] = f"{microvolts:.3g} µV"
        if not PLAUSIBLE_UV[0] <= microvolts <= PLAUSIBLE_UV[1]:
            report.problems.append(
                f"in {unit} its rms between 1 and 45 Hz is {microvolts:.3g} µV, which no EEG has "
                f"({PLAUSIBLE_UV[0]:g} to {PLAUSIBLE_UV[1]:g}); is the unit right? --unit says it"
            )
        return
    fits = [
        name
        for name in ("V", "mV", "uV")
        if PLAUSIBLE_UV[0] <= 1e6 * rms * VOLTS[name] <= PLAUSIBLE_UV[1]
    ]
    guess = f"; of V, mV and uV only {' or '.join(fits)} would be EEG" if fits else ""
    report.warnings.append(
        f"its unit is not said (rms between 1 and 45 Hz {rms:.3g}){guess}; --unit says it"
    )


# The test of physics


def peaks(trial: NDArray[Any], frequencies: tuple[float, ...], fs: float) -> Floats:
    """For each frequency how far its spectral lines stand above their neighbours, in nats.

    `trial` (channels, samples). The mean over channels and the first two harmonics of the logarithm
    of power there, less that of the mean power up to 1.5 Hz away.
    """
    x = np.asarray(trial, np.float64)
    time = np.arange(x.shape[1]) / fs
    x = (x - x.mean(1, keepdims=True)) * np.hanning(x.shape[1])
    found = np.zeros(len(frequencies))
    for place, hz in enumerate(frequencies):
        heights = []
        for harmonic in HARMONICS:
            if (hz * harmonic + 2) >= fs / 2:
                continue
            lines = hz * harmonic + np.array([0.0, *NEIGHBOURS])
            waves = np.exp(-2j * np.pi * np.outer(lines, time))
            power = np.abs(x @ waves.T) ** 2 + 1e-30  # (channels, 1 + neighbours)
            heights.append(np.log(power[:, 0]) - np.log(power[:, 1:].mean(1)))
        found[place] = np.mean(heights)
    return found


def _physics(report: Report, looking: Epochs) -> None:
    targets = looking.targets
    first = max(looking.sample(AFTER_CUE), 0)
    if looking.x.shape[2] - first < looking.fs:
        report.warnings.append("its trials are too short for the test of their labels")
        return
    x = np.nan_to_num(looking.x[:, :, first:])
    heights = np.stack([peaks(trial, targets, looking.fs) for trial in x])
    labels = looking.labels
    p, table = label_test(heights, labels, looking.session)
    report.facts["labels by spectrum, p"] = round(p, 4)
    own = [bool(row.argmax() == place) for place, row in enumerate(table)]
    if p < SIGNIFICANT:
        _sessions(report, looking, heights)
        return
    fits = best_assignment(table)
    alone = len(np.unique(looking.session)) < 2
    if alone and not _fits_better(heights, looking, fits):
        report.warnings.append(
            f"the spectra of its {len(looking)} trials do not peak at their labels more than "
            f"chance (p {p:.2g}); one session alone has too few trials to refuse it"
        )
        return
    report.problems.append(_no_peaks(looking, fits, own, p))


def _no_peaks(looking: Epochs, fits: tuple[int, ...], own: list[bool], p: float) -> str:
    """That labels are others than the spectra say, or that the spectra say nothing."""
    targets = looking.targets
    if fits == tuple(range(len(targets))):
        return (
            f"the spectra do not peak at their labels more than chance (p {p:.2g}, needed "
            f"{SIGNIFICANT}); no answer to the flicker is seen in these {len(looking)} trials"
        )
    odd = ", ".join(f"{targets[place]:g} Hz" for place, good in enumerate(own) if not good)
    parts = ", ".join(
        f"{targets[place]:g} Hz is {targets[to]:g} Hz" for place, to in enumerate(fits)
    )
    return (
        f"the spectra do not peak at their labels (p {p:.2g}; {odd}); the assignment that fits: "
        f"{parts}"
    )


def _fits_better(heights: Floats, looking: Epochs, fits: tuple[int, ...]) -> bool:
    """Whether another assignment of labels fits by the same test that the given one fails."""
    if fits == tuple(range(len(fits))):
        return False
    renamed = np.array(fits)[looking.labels]
    return label_test(heights, renamed, looking.session)[0] < SIGNIFICANT


def label_test(
    heights: Floats, labels: NDArray[np.int64], sessions: NDArray[Any]
) -> tuple[float, Floats]:
    """p of the labels against labels dealt anew within sessions, and the mean heights (K, K).

    The statistic is that of the worst class: its height at its own frequency less its highest at
    another. Heights are standardised by frequency first, for background differs.
    """
    z = (heights - heights.mean(0)) / (heights.std(0) + 1e-12)
    classes = z.shape[1]
    random = np.random.default_rng(0)
    places = [np.flatnonzero(sessions == name) for name in np.unique(sessions)]

    def table(dealt: NDArray[np.int64]) -> Floats:
        hot = np.eye(classes)[dealt]
        return np.asarray((hot.T @ z) / np.maximum(hot.sum(0), 1)[:, None], np.float64)

    def worst(means: Floats) -> float:
        own = np.diag(means)
        others = np.where(np.eye(classes, dtype=bool), -np.inf, means).max(1)
        return float((own - others).min())

    found = table(labels)
    at_least = 1
    for _ in range(PERMUTATIONS):
        dealt = labels.copy()
        for place in places:
            dealt[place] = random.permutation(labels[place])
        at_least += worst(table(dealt)) >= worst(found)
    return at_least / (PERMUTATIONS + 1), found


def best_assignment(means: Floats) -> tuple[int, ...]:
    """For each labelled class the frequency that fits, each used once."""
    from scipy.optimize import linear_sum_assignment

    return tuple(int(column) for column in linear_sum_assignment(-means)[1])


def _sessions(report: Report, looking: Epochs, heights: Floats) -> None:
    """Sessions whose labels fit another assignment better: said, not refused, being short."""
    odd = []
    for name in np.unique(looking.session):
        here = looking.session == name
        labels = looking.labels[here]
        if len(np.unique(labels)) < len(looking.targets):
            continue
        z = (heights[here] - heights.mean(0)) / heights.std(0)
        means = np.stack([z[labels == k].mean(0) for k in range(len(looking.targets))])
        if best_assignment(means) != tuple(range(len(looking.targets))):
            odd.append(str(name))
    if odd:
        report.warnings.append(
            f"{len(odd)} of {len(np.unique(looking.session))} sessions by themselves do not show "
            f"their labels ({', '.join(odd[:3])}{' …' if len(odd) > 3 else ''})"
        )
