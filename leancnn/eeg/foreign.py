"""Files that other libraries read, imported when one comes: XDF, EDF, and what mne knows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.eeg.recording import Event, Recording, gaps_of_stamps, label_of, unit_of
from leancnn.errors import DataError, MissingDependencyError

FILES = "install it with: pip install 'leancnn[eeg-files]'"


def xdf(path: Path, unit: str | None) -> Recording:
    """A LabRecorder file: the one EEG stream, its markers, its gaps.

    pyxdf's own smoothing of stamps counts a gap only above 1 s and 500 samples, and smears a
    shorter one over its neighbours; it stays off.
    """
    try:
        import pyxdf
    except ImportError as error:
        raise MissingDependencyError(f"reading {path.name} needs pyxdf; {FILES}") from error
    if xdf_is_cut(path):
        warnings.warn(
            f"{path} is cut off: signals and markers behind that are gone; the rest is read",
            stacklevel=2,
        )
    try:
        streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False, verbose=False)
    except Exception as error:  # pyxdf's errors share no class
        raise DataError(f"{path}: pyxdf does not read it ({error})") from error
    eeg = _xdf_eeg(path, streams)
    info, x = eeg["info"], np.asarray(eeg["time_series"], np.float32).T
    stamps, rate = np.asarray(eeg["time_stamps"], np.float64), float(info["nominal_srate"][0])
    channels, units = _xdf_channels(info, len(x))
    events = [
        Event(int(np.searchsorted(stamps, at)), label_of(str(what[0])))
        for stream in streams
        if float(stream["info"]["nominal_srate"][0]) == 0
        for at, what in zip(stream["time_stamps"], stream["time_series"], strict=True)
    ]
    return Recording(
        x=x,
        fs=rate,
        channels=channels,
        events=tuple(sorted(events, key=lambda event: event.sample)),
        unit=unit or unit_of(units),
        source=path.name,
        gaps=gaps_of_stamps(stamps, rate),
        stamps=stamps,
    )


def _xdf_eeg(path: Path, streams: list[Any]) -> Any:
    """The one stream of EEG, or of samples at all. Raises `DataError` for none and for several."""
    signals = [s for s in streams if float(s["info"]["nominal_srate"][0]) > 0]
    eeg = [s for s in signals if s["info"]["type"][0].upper() == "EEG"] or signals
    if len(eeg) != 1:
        names = ", ".join(s["info"]["name"][0] for s in eeg) or "none"
        raise DataError(f"{path}: one stream of EEG is needed; there are {names}")
    return eeg[0]


def xdf_is_cut(path: Path) -> bool:
    """Whether the last chunk of an XDF file ends behind the file: pyxdf then stops, in silence.

    A chunk is the number of bytes of its length, its length, and so many bytes more.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        at = file.seek(4)  # behind the letters XDF:
        while at < size:
            file.seek(at)
            head = file.read(9)
            wide = head[0]
            if wide not in (1, 4, 8) or len(head) < 1 + wide:
                return True
            at += 1 + wide + int.from_bytes(head[1 : 1 + wide], "little")
        return at > size


def _xdf_channels(info: Any, count: int) -> tuple[tuple[str, ...], set[str]]:
    """Names and units from a stream's description, where it has one."""
    names, units = [f"channel {number + 1}" for number in range(count)], set()
    try:
        described = info["desc"][0]["channels"][0]["channel"]
        names = [one["label"][0] for one in described]
        units = {one["unit"][0] for one in described}
    except (KeyError, IndexError, TypeError):
        pass
    return tuple(names) if len(names) == count else tuple(map(str, range(1, count + 1))), units


def edf_units(path: Path) -> list[str]:
    """The physical dimension of each signal of an .edf or .bdf, as the header's bytes say it.

    Source: Kemp et al., A simple format for exchange of digitized polygraphic recordings, 1992: 256
    bytes, then for all signals 16 bytes of label, 80 of transducer, 8 of dimension.
    """
    with path.open("rb") as file:
        head = file.read(256)
        try:
            count = int(head[252:256])
        except ValueError:
            raise DataError(f"{path}: its header is not that of an EDF or BDF file") from None
        file.seek(256)
        labels = [file.read(16).decode("latin-1").strip() for _ in range(count)]
        file.seek(256 + 96 * count)
        units = [file.read(8).decode("latin-1").strip() for _ in range(count)]
    return [
        unit
        for label, unit in zip(labels, units, strict=True)
        if "annotation" not in label.lower() and label.lower() not in ("status", "trigger")
    ]


def edf(path: Path, unit: str | None) -> Recording:
    known = {"uV": "uV", "mV": "mV", "µV": "uV", "V": "V"}
    units = edf_units(path)
    odd = sorted({name for name in units if name not in known})
    if odd and unit is None:
        raise DataError(
            f"{path}: the unit of a channel is '{odd[0]}', which would be read as volts; say "
            "--unit uV, mV or V if you know it"
        )
    found = by_mne(path, None)
    if unit is None or not odd:
        return found
    if len({known.get(name, "") for name in units}) > 1:
        raise DataError(f"{path}: --unit is for a file whose channels all have no known unit")
    return replace(found, unit=unit)  # mne took the numbers for volts and left them as they were


def by_mne(path: Path, unit: str | None) -> Recording:
    try:
        import mne
    except ImportError as error:
        raise MissingDependencyError(f"reading {path.name} needs mne; {FILES}") from error
    try:
        raw = mne.io.read_raw(str(path), preload=True, verbose="error")
    except Exception as error:  # mne's errors share no class
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: mne does not read it ({reason})") from error
    picks = mne.pick_types(raw.info, eeg=True, exclude=[])
    if not len(picks):
        raise DataError(f"{path}: no channel of EEG in it")
    rate = float(raw.info["sfreq"])
    start = raw.first_samp / rate
    events = [
        Event(round((mark["onset"] - start) * rate), label_of(str(mark["description"])))
        for mark in raw.annotations
        if not str(mark["description"]).upper().startswith(("BAD", "EDGE"))
    ]
    return Recording(
        x=raw.get_data(picks=picks).astype(np.float32),
        fs=rate,
        channels=tuple(raw.ch_names[pick] for pick in picks),
        events=tuple(events),
        unit=unit or "V",
        source=path.name,
    )
