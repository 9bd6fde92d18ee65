"""Write what comes to a csv, chunk by chunk: a source, or we, may die at any moment.

Columns: sample (its number, so that a lost one leaves a gap), time in seconds of the count, one a
channel with the unit in brackets, event. Numbers have nine digits, which is every bit of a float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from leancnn.eeg.chunks import Chunk
from leancnn.eeg.recording import Event
from leancnn.errors import WriteError


class Recorder:
    """A csv that `read.load` and `leancnn eeg check` read. Raises `WriteError`."""

    def __init__(self, path: str | Path, fs: float, channels: tuple[str, ...], unit: str) -> None:
        self.path, self.fs = Path(path), fs
        if self.path.exists():
            raise WriteError(f"{self.path} exists; choose another name for the recording")
        unit_text = f" [{unit}]" if unit else ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = self.path.open("x", encoding="utf-8", newline="")
        except OSError as error:
            raise WriteError(f"{self.path}: {error.strerror or error}") from error
        names = [name.replace(",", " ") + unit_text for name in channels]
        self._write(f"# rate {fs:.17g} Hz\n" + ",".join(["sample", "time", *names, "event"]) + "\n")
        self._cues: list[Event] = []
        self.samples = 0
        self._base = 0

    def cue(self, event: Event) -> None:
        """An event that came beside the source; written with the sample it belongs to."""
        self._cues.append(event)

    def __call__(self, chunk: Chunk) -> None:
        """Append a chunk. In front of a stretch that begins anew a second is left out."""
        if chunk.fresh and self.samples:
            self._base += round(self.fs)
        events = {event.sample: event.label for event in (*chunk.events, *self._cues)}
        self._cues = [event for event in self._cues if event.sample >= chunk.first + len(chunk.x.T)]
        lines = []
        for place, row in enumerate(chunk.x.T):
            number = chunk.first + place
            label = events.get(number, "")
            word = "rest" if label == 0.0 else f"{label:g}" if isinstance(label, float) else label
            values = ",".join(f"{value:.9g}" for value in row)
            at = self._base + number
            lines.append(f"{at},{at / self.fs:.9g},{values},{word.replace(',', ' ')}\n")
        self._write("".join(lines))
        self.samples += chunk.x.shape[1]

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise WriteError(
                f"{self.path}: {error.strerror or error}; what was written until now is kept"
            ) from error

    def close(self) -> None:
        self._file.close()
