"""BrainFlow, reached late: what a board writes, and where its extra is missing.

BrainFlow 5.23 imports pkg_resources when it is first *called*: setuptools 82 and later do not have
it, so that the import succeeds and the first call fails, and those before warn. Its libraries are
found here without it: `importlib.resources.files` is asked for the package, not for the module.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

from leancnn.errors import DataError, MissingDependencyError, UnknownNameError

NEEDS = "BrainFlow is not installed; pip install 'leancnn[eeg-board]'"


@dataclass(frozen=True, slots=True)
class Board:
    """The rows of a board's data: each a kind of measurement."""

    name: str
    fs: float
    eeg: list[int]
    channels: tuple[str, ...]
    stamp: int
    marker: int
    number: int | None
    """The row that counts samples, 0 to 255 and round again, where there is one."""
    rows: int


def brainflow() -> Any:
    """The module `brainflow.board_shim`. Raises `MissingDependencyError`."""
    try:
        from brainflow import board_shim
    except ImportError as error:
        raise MissingDependencyError(NEEDS) from error
    if hasattr(board_shim, "files"):
        board_shim.files = lambda name: importlib.resources.files("brainflow")
    return board_shim


def board_id(word: str) -> int:
    """`SYNTHETIC_BOARD`, `synthetic` or `-1` as BrainFlow's number. Raises `UnknownNameError`."""
    ids = brainflow().BoardIds
    if word.lstrip("-").isdigit():
        return int(word)
    names = {name.removesuffix("_BOARD"): value for name, value in ids.__members__.items()}
    wanted = word.upper().replace("-", "_").removesuffix("_BOARD")
    if wanted not in names:
        raise UnknownNameError(f"no board named '{word}'; BrainFlow has {', '.join(names)}")
    return int(names[wanted].value)


def description(board: int) -> Board:
    """What a board writes. Raises `DataError` for a number that BrainFlow does not know."""
    shim = brainflow()
    try:
        described = shim.BoardShim.get_board_descr(board)
        eeg = list(described["eeg_channels"])
    except (shim.BrainFlowError, KeyError) as error:
        raise DataError(f"BrainFlow has no board {board} with EEG ({error})") from error
    named = [name for name in str(described.get("eeg_names", "")).split(",") if name]
    return Board(
        name=str(described["name"]),
        fs=float(described["sampling_rate"]),
        eeg=eeg,
        channels=tuple(
            named if len(named) == len(eeg) else [f"EEG {n + 1}" for n in range(len(eeg))]
        ),
        stamp=int(described["timestamp_channel"]),
        marker=int(described["marker_channel"]),
        number=described.get("package_num_channel"),
        rows=int(described["num_rows"]),
    )
