"""What a run leaves on disk, written and read here only.

runs/a/
  recipe.json       the resolved recipe, as `leancnn train --recipe` takes it
  run.json          machine, versions, plan, data manifest, state, result
  metrics.jsonl     one line per epoch; metrics.csv holds the same
  checkpoints/      the last two, each a sealed pair step-XXXXXXXX.json + .safetensors
  best/ last/       saved networks (weights.py)
  evaluations.json  every opening of a test set
  run.lock          who is writing here; .evaluations.lock beside it
"""

import contextlib
import csv
import fcntl
import io
import json
import os
import platform
import socket
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from leancnn.errors import DamagedError, RunError, WriteError
from leancnn.safe_files import (
    TEMPORARY,
    Tensors,
    atomic_write,
    check_writable,
    read_json,
    seal,
    unseal,
    write_error,
    write_json,
)

__all__ = [
    "Checkpoint",
    "Lock",
    "add_evaluation",
    "atomic_write",
    "check_writable",
    "evaluations",
    "images_of",
    "is_run",
    "load_checkpoint",
    "machine",
    "now",
    "read_json",
    "read_metrics",
    "save_checkpoint",
    "set_aside",
    "sweep",
    "write_json",
    "write_metrics",
]

KEPT = 2  # checkpoints of a run that stay on disk


# Checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and checked: `manifest` holds the plan and the counters."""

    step: int
    manifest: dict[str, Any]
    tensors: Tensors


def save_checkpoint(folder: Path, step: int, manifest: Mapping[str, Any], tensors: Tensors) -> None:
    """Save a checkpoint and keep the last two. Raises `WriteError`; then the old ones stay."""
    path = _checkpoint_json(folder, step)
    seal(path, path.with_suffix(".safetensors"), {"step": step, **manifest}, tensors)
    for old in _checkpoint_steps(folder)[:-KEPT]:
        # The manifest goes first: tensors alone are litter, not a checkpoint.
        _checkpoint_json(folder, old).unlink(missing_ok=True)
        for part in folder.glob(f"checkpoints/step-{old:08d}.safetensors*"):
            part.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose every byte is right, and why each newer one was passed over."""
    skipped: list[str] = []
    for step in reversed(_checkpoint_steps(folder)):
        path = _checkpoint_json(folder, step)
        try:
            manifest, tensors = unseal(path, path.with_suffix(".safetensors"))
            if manifest["step"] != step:
                raise DamagedError(f"{path} holds step {manifest['step']}")
        except DamagedError as error:
            skipped.append(f"checkpoint of step {step} passed over: {error}")
            continue
        return Checkpoint(step, manifest, tensors), skipped
    return None, skipped


def set_aside(folder: Path, newer_than: int) -> None:
    """Rename the damaged checkpoints newer than a step, so that they no longer count as newest."""
    for step in _checkpoint_steps(folder):
        if step > newer_than:
            path = _checkpoint_json(folder, step)
            for part in (path, path.with_suffix(".safetensors")):
                with contextlib.suppress(FileNotFoundError):
                    part.rename(part.with_name(part.name + ".damaged"))


def _checkpoint_json(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}.json"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").split(".")[0])


def _checkpoint_steps(folder: Path) -> list[int]:
    return sorted(_step(path) for path in folder.glob("checkpoints/step-????????.json"))


def sweep(folder: Path) -> list[Path]:
    """Remove what killed or full-disk writes left behind; call it only while holding the lock."""
    own = (folder, folder / "checkpoints", folder / "best", folder / "last")
    litter = [
        path
        for place in own
        for path in place.glob(".*.tmp")
        if TEMPORARY.fullmatch(path.name) and path.is_file()
    ]
    litter += [
        path
        for ending in ("safetensors", "safetensors.next")
        for path in folder.glob(f"checkpoints/step-*.{ending}")
        if not _checkpoint_json(folder, _step(path)).exists()
    ]
    for path in litter:
        path.unlink(missing_ok=True)
    return litter


# What a run says about itself


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.jsonl and metrics.csv, one row per epoch, whole: no epoch twice on resume."""
    atomic_write(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "metrics.csv", table.getvalue().encode())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run, oldest first. Raises `RunError` when it has none, `DamagedError`."""
    path = folder / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; has an epoch ended yet?") from None
    except ValueError as error:
        raise DamagedError(f"{path}: not readable ({error})") from error


def add_evaluation(folder: Path, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Note one opening of a test set in evaluations.json; returns those before it, oldest first.

    Two processes at once lose nothing: each waits for the other. Raises `WriteError`.
    """
    lock = folder / ".evaluations.lock"
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_error(lock, 0, error) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        earlier = evaluations(folder)
        write_json(folder / "evaluations.json", [*earlier, {"when": now(), **entry}])
    finally:
        os.close(handle)
    return earlier


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Every opening of a test set so far, oldest first. Raises `DamagedError`."""
    path = folder / "evaluations.json"
    found = read_json(path) if path.exists() else []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DamagedError(f"{path}: no list of openings; move it away to count anew")
    return found


def images_of(folder: Path, told: str) -> str:
    """Where a run found its images, wherever one stands now; `told` where that is not known."""
    with contextlib.suppress(DamagedError, RunError, KeyError, TypeError):
        there = Path(read_json(folder / "run.json")["data"]["source"])
        if there.is_absolute() and there.exists():
            return str(there)
    return told


def is_run(folder: Path) -> bool:
    """Whether a training run was begun in `folder`."""
    return bool((folder / "run.json").exists() or _checkpoint_steps(folder))


def now() -> str:
    """This second, UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def machine() -> dict[str, Any]:
    """Where a number was made: system, processor, cores, Python. No names of people or networks."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


# One writer


class Lock:
    """Only one process writes into a run folder: `with Lock(folder): ...`.

    The kernel holds the lock on run.lock and drops it when the process dies, so a dead holder needs
    no guess about process numbers, and two starters cannot both take over. The file names the
    holder for the message. Forked children give up their copy, so orphaned workers do not keep the
    folder. Raises `RunError` when it is taken, `WriteError` when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self._handle: int | None = None
        self._made: list[Path] = []  # folders that were not there, innermost first

    def __enter__(self) -> Self:
        self._made = [place for place in self.path.parents if not place.exists()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise write_error(self.path, 0, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = not os.fstat(handle).st_nlink  # its holder has just removed it with the folder
        except BlockingIOError:
            taken = True
        except OSError as error:
            os.close(handle)
            raise WriteError(
                f"{self.path.parent} lies on a file system without locks ({error.strerror}), so "
                "two runs could ruin each other there; choose a folder elsewhere"
            ) from error
        if taken:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise RunError(
                f"{self.path.parent} is in use by {holder}; wait, or choose another folder"
            )
        self._handle = handle
        _held.add(self)
        with contextlib.suppress(OSError):  # a full disk refuses the name, not the lock
            os.ftruncate(handle, 0)
            name = f"process {os.getpid()} on {socket.gethostname()} since {now()}\n"
            os.pwrite(handle, name.encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
                self._leave_nothing()
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a child may not have dropped its copy yet
            self.forget()

    def _leave_nothing(self) -> None:
        """Remove the folders that were made for a run that never began."""
        if self._made and [*self.path.parent.iterdir()] == [self.path]:
            self.path.unlink()
            for place in self._made:
                place.rmdir()  # fails, and ends this, at the first that holds something else

    def forget(self) -> None:
        """Close this process's copy; the lock ends with the last copy."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _held.discard(self)


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def free_folder(stem: str, of_first: Callable[[int], int]) -> Path:
    """The first of runs/stem-1, -2, … that does not exist; `of_first` makes processes agree."""
    number = 1
    while (Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return Path("runs") / f"{stem}-{of_first(number)}"
