"""A BrainFlow board as a source; also its playback of a file and its synthetic board.

Facts that shape this file: samples come in bursts, so that stamps say little and counts everything;
a playback stamps with the present, drops the marker row, and ends in silence.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.eeg.boards import board_id, brainflow, description
from leancnn.eeg.chunks import POLL_S, Chunk
from leancnn.eeg.recording import Event
from leancnn.errors import DataError, UsageError

FIELDS = {  # of BrainFlow's parameters, as KEY=VALUE
    "file": str,
    "master_board": int,
    "serial_port": str,
    "mac_address": str,
    "ip_address": str,
    "ip_port": int,
    "serial_number": str,
    "timeout": int,
}
RING = 45_000  # samples that BrainFlow keeps for us


def stretches(places: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Start and stop of each run of numbers that follow each other.

    >>> stretches(np.array([0, 1, 2, 5, 6]))
    [(0, 3), (3, 5)]
    """
    cuts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


class BrainFlow:
    """A board by BrainFlow's name or number, with `parameters` as KEY=VALUE.

    Raises `MissingDependencyError`, `UnknownNameError` for a board, `UsageError` for a parameter,
    `DataError` when the board does not answer.
    """

    unit = "uV"

    def __init__(self, board: str, parameters: Sequence[str] = ()) -> None:
        self._shim = brainflow()
        self._shim.BoardShim.disable_board_logger()
        number = board_id(board)
        given = self._shim.BrainFlowInputParams()
        for pair in parameters:
            key, equals, value = pair.partition("=")
            if key not in FIELDS or not equals:
                raise UsageError(f"'{pair}' is no KEY=VALUE of a board; keys: {', '.join(FIELDS)}")
            if FIELDS[key] is int and not value.lstrip("-").isdigit():
                raise UsageError(f"{key} is a whole number, not '{value}'")
            setattr(given, key, FIELDS[key](value))
        playback = int(self._shim.BoardIds.PLAYBACK_FILE_BOARD)
        self._about = description(given.master_board if number == playback else number)
        self.name, self.fs = f"brainflow:{self._about.name}", self._about.fs
        self.channels = self._about.channels
        self._board: Any = None
        try:
            self._board = self._shim.BoardShim(number, given)
            self._board.prepare_session()
        except self._shim.BrainFlowError as error:
            self.close()
            raise DataError(f"the board {board} does not start ({error})") from error

    def __iter__(self) -> Iterator[Chunk | None]:
        first, before = 0, None
        if self._board is not None:  # not before somebody reads: what waits is late
            try:
                self._board.start_stream(RING)
            except self._shim.BrainFlowError as error:
                raise DataError(f"{self.name} does not start ({error})") from error
        while (board := self._board) is not None:
            try:
                table = board.get_board_data() if board.get_board_data_count() else None
            except self._shim.BrainFlowError as error:
                raise DataError(f"{self.name} does not answer any more ({error})") from error
            if table is None or not table.shape[1]:
                time.sleep(POLL_S)
                yield None
                continue
            late = max(time.time() - float(table[self._about.stamp, -1]), 0.0)
            places, before = self._places(table, first, before)
            for start, stop in stretches(places):
                part = table[:, start:stop]
                marks = part[self._about.marker]
                events = tuple(
                    Event(int(places[start + at]), float(marks[at])) for at in np.flatnonzero(marks)
                )
                x = part[self._about.eeg].astype(np.float32)
                due = time.monotonic() - late - (len(places) - stop) / self.fs
                yield Chunk(x, int(places[start]), due, events, not places[start])
            first = int(places[-1]) + 1

    def _places(
        self, table: NDArray[np.float64], first: int, before: int | None
    ) -> tuple[NDArray[np.int64], int | None]:
        """The number of each sample, by the board's counter of 0 to 255 where it has one."""
        count = table.shape[1]
        if self._about.number is None:
            return first + np.arange(count), None
        counter = table[self._about.number].astype(np.int64)
        steps = np.diff(counter) % 256
        usual = int(np.median(steps)) if len(steps) > 1 else 1
        if usual < 1:  # a counter that stands still counts nothing
            return first + np.arange(count), None
        lead = 0 if before is None else int((counter[0] - before) % 256) // usual - 1
        inside = np.concatenate([[0], np.cumsum(np.maximum(steps // usual, 1))])
        return first + max(lead, 0) + inside, int(counter[-1])

    def close(self) -> None:
        """Stop, release, and let go of the board: left to the end it complains on stderr."""
        board, self._board = self._board, None
        if board is not None:
            with contextlib.suppress(self._shim.BrainFlowError):
                if board.is_prepared():
                    board.release_session()
            del board
