"""Files of signals to a `Recording`, or to `Epochs` where a file holds trials.

numpy reads
  .npz           trials: X (N, channels, samples), hz, subject, session, fs; also scale, t0,
                 channels, unit
  .csv           with a header: time or sample, a column a channel, event: what `--record` writes
  .csv           of BrainFlow: tabs, no header, rows as the board's description says (`board=`)
extras read, imported when such a file comes
  .xdf           pyxdf, stamps as they were recorded, so that a gap stays a gap
  .edf .bdf      mne, after their units were read here: mne takes a unit it does not know for volts
  .fif .vhdr .set .gdf   mne
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.foreign import by_mne, edf, xdf
from leancnn.eeg.recording import (
    VOLTS,
    Epochs,
    Event,
    Recording,
    gaps_of_numbers,
    gaps_of_stamps,
    joined,
    label_of,
)
from leancnn.errors import DataError, UsageError

TIMES = ("time", "times", "timestamp", "timestamps", "t", "seconds")
EVENTS = ("event", "events", "marker", "markers", "hz", "label")


def load(
    path: str | Path,
    *,
    unit: str | None = None,
    fs: float | None = None,
    board: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Recording | Epochs:
    """Read one file of signals; what its suffix is decides how.

    `unit` says the unit of a file that does not, `fs` the rate of a csv without a clock, `board`
    whose BrainFlow csv it is, `labels` what its codes mean: {"33025": "13"} is 13 Hz. Raises
    `DataError` for what cannot be read or has a unit that is not known, `MissingDependencyError`
    naming the extra that a format needs, `UsageError` for others.

    >>> trials = load("trials.npz")
    >>> trials.targets, trials.x.shape
    ((10.0, 12.0), (16, 8, 750))
    """
    path = Path(path)
    if unit is not None and unit not in VOLTS:
        raise UsageError(f"'{unit}' is no unit of a signal; choose from {', '.join(VOLTS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[], Recording | Epochs]] = {
        ".npz": lambda: _npz(path, unit),
        ".csv": lambda: _csv(path, unit, fs, board),
        ".xdf": lambda: xdf(path, unit),
        ".edf": lambda: edf(path, unit),
        ".bdf": lambda: edf(path, unit),
        **{end: lambda: by_mne(path, unit) for end in (".fif", ".vhdr", ".set", ".gdf")},
    }
    if suffix not in readers:
        raise UsageError(f"{path}: signals are read from {', '.join(readers)}, not '{suffix}'")
    return apply_labels(readers[suffix](), labels or {})


def apply_labels(found: Recording | Epochs, labels: Mapping[str, str]) -> Recording | Epochs:
    """The same with codes replaced by what they mean; a number that is no flicker stays a name.

    Raises `DataError` for a code that does not occur, `UsageError` for labels of trials.
    """
    if isinstance(found, Epochs):
        if labels:
            raise UsageError(f"{found.source}: its trials say their frequencies; leave --label")
        return found
    words = {label_text(event.label) for event in found.events}
    if odd := sorted(set(labels) - words):
        raise DataError(
            f"{found.source}: no event is called '{odd[0]}'; there are "
            f"{', '.join(sorted(words)[:20]) or 'none'}"
        )
    events = []
    for event in found.events:
        word = label_text(event.label)
        label = label_of(labels[word]) if word in labels else event.label
        fast = isinstance(label, float) and label >= found.fs / 2
        events.append(Event(event.sample, word if fast else label))
    return replace(found, events=tuple(events))


def label_text(label: float | str) -> str:
    """A label as one writes it: 13, not 13.0."""
    return f"{label:.15g}" if isinstance(label, float) else label


def load_epochs(paths: Sequence[str | Path], **how: Any) -> Epochs:
    """Trials of one or several files as one set.

    A file of trials says whose they are. Of recordings each is a session, and its folder's name the
    person's. Raises as `load` does, and `DataError` where files do not fit together.

    >>> len(load_epochs(["trials.npz"]))
    16
    """
    parts = []
    for path in map(Path, paths):
        found = load(path, **how)
        if isinstance(found, Recording):
            found = found.epochs()
            folder = path.resolve().parent.name
            found.subject[:] = folder
            found = _named(found, folder, path.stem)
        parts.append(found)
    if not parts:
        raise UsageError("no file of signals was given")
    return joined(parts)


def _named(epochs: Epochs, subject: str, session: str) -> Epochs:
    count = len(epochs)
    return replace(epochs, subject=np.array([subject] * count), session=np.array([session] * count))


def _npz(path: Path, unit: str | None) -> Epochs:
    try:
        # Opened here: of a damaged file numpy would leave it open.
        with path.open("rb") as bytes_of, np.load(bytes_of, allow_pickle=False) as file:
            have = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays ({error})") from error
    missing = [name for name in ("X", "hz", "subject", "session", "fs") if name not in have]
    if missing:
        raise DataError(
            f"{path}: trials need the arrays X, hz, subject, session and fs; "
            f"{', '.join(missing)} is not there"
        )
    x = have["X"]
    if x.ndim != 3 or not np.issubdtype(x.dtype, np.number):
        raise DataError(f"{path}: X is (trials, channels, samples), not {x.dtype} {x.shape}")
    x = x.astype(np.float32)
    if "scale" in have:
        x = x * np.reshape(have["scale"], (-1, 1, 1)).astype(np.float32)
    names = have.get("channels", np.array([f"channel {i + 1}" for i in range(x.shape[1])]))
    return Epochs(
        x=x,
        hz=have["hz"].astype(np.float64),
        subject=have["subject"],
        session=have["session"],
        fs=float(have["fs"]),
        t0=float(have.get("t0", 0.0)),
        channels=tuple(map(str, names)),
        unit=unit or str(have.get("unit", "")),
        source=path.name,
    )


def _csv(path: Path, unit: str | None, fs: float | None, board: int | None) -> Recording:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            if "\t" in first and not re.search("[A-Za-z]{2}", first):
                return _brainflow_csv(path, unit, board)
            if fs is None and (stated := re.match(r"# rate ([\d.e+]+) Hz", first)):
                fs = float(stated[1])
            file.seek(0)
            lines = (line for line in file if not line.startswith("#"))
            rows = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a table ({error})") from error
    if len(rows) < 3 or any(re.fullmatch(r"[-+.\deE ]+", cell) for cell in rows[0] if cell):
        raise DataError(f"{path}: a table of signals has a header of names and rows of numbers")
    head, body = [cell.strip() for cell in rows[0]], rows[1:]
    if len(body[-1]) < len(head):
        body.pop()  # a line that was being written when the writer died
    width = next((n for n, row in enumerate(body) if len(row) != len(head)), None)
    if width is not None:
        raise DataError(f"{path}: line {width + 2} has {len(body[width])} of {len(head)} columns")
    columns: dict[str, list[str]] = {
        name: [row[place] for row in body] for place, name in enumerate(head)
    }
    return _of_columns(path, columns, unit, fs)


def _of_columns(
    path: Path, columns: dict[str, list[str]], unit: str | None, fs: float | None
) -> Recording:
    lower = {name.lower(): name for name in columns}
    clock = next((lower[name] for name in TIMES if name in lower), None)
    count = lower.get("sample")
    marks = next((lower[name] for name in EVENTS if name in lower), None)
    names = [name for name in columns if name not in (clock, count, marks) and name]
    stamps = None if clock is None else _floats(path, clock, columns[clock])
    rate = fs if fs is not None else _rate(path, stamps)
    units = {found[1] for name in names if (found := re.search(r"[\[(](.+?)[\])]$", name))}
    if len(units) > 1:
        raise DataError(f"{path}: channels of different units: {', '.join(sorted(units))}")
    found_unit = unit or (units.pop() if units else "")
    if found_unit and found_unit not in VOLTS:
        raise DataError(f"{path}: '{found_unit}' is no unit that is known; say --unit uV, mV or V")
    x = np.stack([_floats(path, name, columns[name]) for name in names]).astype(np.float32)
    numbers = None if count is None else _floats(path, count, columns[count]).astype(np.int64)
    return Recording(
        x=x,
        fs=rate,
        channels=tuple(re.sub(r"\s*[\[(].+?[\])]$", "", name) for name in names),
        events=() if marks is None else _events(columns[marks]),
        unit=found_unit,
        source=path.name,
        gaps=gaps_of_numbers(numbers) if numbers is not None else gaps_of_stamps(stamps, rate),
        stamps=stamps,
    )


def _floats(path: Path, name: str, cells: Sequence[str]) -> NDArray[np.float64]:
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
    except ValueError as error:
        raise DataError(f"{path}: column '{name}' holds what is no number ({error})") from error


def _rate(path: Path, stamps: NDArray[np.float64] | None) -> float:
    """The rate of a clock's steps: its whole span where no gap stands, else the usual step."""
    if stamps is None or len(stamps) < 3:
        raise DataError(f"{path}: no column of times; say the rate with --fs")
    steps = np.diff(stamps)
    usual = float(np.median(steps))
    if not usual > 0:
        raise DataError(f"{path}: its times do not grow; say the rate with --fs")
    even = steps[np.abs(steps - usual) < 0.5 * usual]
    return round(1 / float(even.mean()), 3)


def _events(cells: Sequence[str]) -> tuple[Event, ...]:
    """Where a column of events changes to something; a number is a frequency, `rest` is 0 Hz."""
    found, before = [], ""
    for sample, cell in enumerate(cells):
        word = cell.strip()
        if word not in ("", "0", before):
            found.append(Event(sample, label_of(word)))
        before = word
    return tuple(found)


def _brainflow_csv(path: Path, unit: str | None, board: int | None) -> Recording:
    """BrainFlow's own file: tabs, no header, a line a sample, microvolts with six decimals."""
    if board is None:
        raise UsageError(f"{path}: a BrainFlow file has no header; say whose it is with --board ID")
    from leancnn.eeg.boards import description

    about = description(board)
    try:
        table = np.loadtxt(path, delimiter="\t", ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: not BrainFlow's table of numbers ({error})") from error
    if table.shape[1] != about.rows:
        raise DataError(
            f"{path}: {table.shape[1]} columns; board {board} ({about.name}) writes {about.rows}"
        )
    marks = table[:, about.marker]
    places = np.flatnonzero((marks != 0) & (marks != np.append(0.0, marks[:-1])))
    return Recording(
        x=table[:, about.eeg].T.astype(np.float32),
        fs=about.fs,
        channels=about.channels,
        events=tuple(Event(int(at), float(marks[at])) for at in places),
        unit=unit or "uV",
        source=path.name,
        stamps=table[:, about.stamp],
    )
