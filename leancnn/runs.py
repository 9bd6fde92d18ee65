"""What a run leaves on disk, written and read here only.

runs/a/
  recipe.json       the resolved recipe, as `leancnn train --recipe` takes it
  run.json          machine, versions, plan, data manifest, state, result
  metrics.jsonl     one line per epoch; metrics.csv holds the same
  checkpoints/      the last two, each a pair step-XXXXXXXX.json + .safetensors
  best/ last/       saved networks (weights.py)
  evaluations.json  every use of a test set
  evaluation-best.json, .safetensors  what the last one found, and small pictures of confusions
  check.json, bench.json  where a user put what `check --json` and `bench --json` print
  run.lock          who is writing here, while one is; .evaluations.lock beside it

Each JSON object ends with its own sha256, each line of metrics.jsonl with one of all before it.
"""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leancnn import manifests
from leancnn.errors import DamagedError, LeanCNNError, RunError
from leancnn.locks import Lock, open_lock
from leancnn.safe_files import (
    TEMPORARY,
    Tensors,
    atomic_write,
    check_writable,
    load_pair,
    read_bytes,
    read_edited,
    read_json,
    save_pair,
    write_checked,
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
    "mark_of",
    "now",
    "read_json",
    "read_metrics",
    "read_run",
    "run_of",
    "save_checkpoint",
    "set_aside",
    "sweep",
    "write_checked",
    "write_json",
    "write_metrics",
]

KEPT = 2  # checkpoints of a run that stay on disk
NETWORK = "network.json"  # in the folder of a saved network
Which = Literal["best", "last"]
FOLDERS: tuple[Which, ...] = ("best", "last")  # a run's networks, in the order of preference


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
    save_pair(path, path.with_suffix(".safetensors"), {"step": step, **manifest}, tensors)
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
            tensors_path = path.with_suffix(".safetensors")
            manifest, tensors = load_pair(path, tensors_path, manifests.Numbered)
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


def abandon(folder: Path) -> None:
    """Remove what a run left whose first checkpoint could not be written."""
    if not is_run(folder):
        sweep(folder)
        with contextlib.suppress(OSError):
            (folder / "checkpoints").rmdir()


# What a run says about itself


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.jsonl and metrics.csv, one row per epoch, whole: no epoch twice on resume.

    Each line of the first ends with a sha256 of itself and of all before it.
    """
    text = "".join(f"{line}\n" for line in _chained(rows))
    atomic_write(folder / "metrics.jsonl", text.encode())
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "metrics.csv", table.getvalue().encode())


def _chained(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    before = ""
    for row in rows:
        before = hashlib.sha256(f"{before} {json.dumps(row)}".encode()).hexdigest()[:16]
        yield json.dumps({**row, "sha256": before})


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run, oldest first. Raises `RunError` when it has none, `DamagedError`."""
    path = folder / "metrics.jsonl"
    try:
        lines = read_bytes(path).decode().splitlines()
        rows = [json.loads(line) for line in lines]
        manifests.check(rows, list[manifests.Epoch], path)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; has an epoch ended yet?") from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not readable ({error})") from error
    if any("sha256" in row for row in rows):  # else it is one of leancnn 0.1
        plain = [{k: v for k, v in row.items() if k != "sha256"} for row in rows]
        if lines != [*_chained(plain)] or len(plain) < _epochs(folder):
            raise DamagedError(
                f"{path} is not what was written; 'leancnn train --resume {folder}' writes it anew"
            )
        rows = plain
    return rows


def _epochs(folder: Path) -> int:
    """How many epochs a finished run has had, as run.json says."""
    with contextlib.suppress(RunError, DamagedError, KeyError, TypeError, ValueError):
        return int(read_run(folder, manifests.RunFile)["result"]["epochs"])
    return 0


def add_evaluation(folder: Path, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Note one use of a test set in evaluations.json; returns those before it, oldest first.

    Two processes at once lose nothing: each waits for the other. Raises `WriteError`.
    """
    lock = folder / ".evaluations.lock"
    try:
        handle = open_lock(lock)
    except OSError as error:
        raise write_error(lock, 0, error) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        earlier = evaluations(folder)
        found = [*earlier, {"when": now(), **entry}]
        write_checked(folder / "evaluations.json", {"evaluations": found})
    finally:
        os.close(handle)
    return earlier


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Every use of a test set so far, oldest first. Raises `DamagedError`."""
    path = folder / "evaluations.json"
    try:
        found, state = read_edited(path)
    except RunError:
        return []
    except DamagedError as error:
        raise DamagedError(f"{error}; move it away to count anew") from error
    if state == "plain" and isinstance(found, list):  # by leancnn 0.1
        found, state = {"evaluations": found}, "intact"
    if state != "intact":
        raise DamagedError(f"{path} is not what was written; move it away to count anew")
    manifests.check(found, manifests.Evaluations, f"{path} (move it away to count anew)")
    return list(found["evaluations"])


def read_run(folder: Path, kind: Any = manifests.Run) -> dict[str, Any]:
    """What run.json says; as `manifests.RunFile` it may have no plan.

    Raises `RunError` without a file, `DamagedError`.
    """
    try:
        return dict(read_json(folder / "run.json", kind))
    except DamagedError as error:
        raise DamagedError(f"{error}; 'leancnn train --resume {folder}' writes it anew") from error


def images_of(folder: Path, fallback: str) -> str:
    """Where a run found its images, wherever one stands now; `fallback` where that is not known."""
    with contextlib.suppress(DamagedError, RunError, KeyError, OSError, ValueError):
        there = Path(read_run(folder, manifests.RunFile)["data"]["source"])
        if there.is_absolute() and there.exists():
            return str(there)
    return fallback


def is_run(folder: Path) -> bool:
    """Whether a training run was begun in `folder`."""
    return bool((folder / "run.json").exists() or _checkpoint_steps(folder))


def run_of(path: Path, which: Which | None = None) -> tuple[Path | None, Which | None]:
    """The run that a path belongs to, if any, and which of its networks is meant.

    The path may be the run, its `best` or `last`, a link to one of them, or "." in one of them.
    """
    if path.name not in FOLDERS and path.resolve().name in FOLDERS and not is_run(path):
        path = path.resolve()  # "." or a link
    if path.name in FOLDERS and which is None and is_run(path.parent):
        return path.parent, "best" if path.name == "best" else "last"
    if not is_run(path):
        return None, which
    if which is None:
        which = "best" if (path / "best" / NETWORK).exists() else "last"
    return path, which


def now() -> str:
    """This second, UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


INSTRUCTIONS = (  # that a figure hangs on most, where one name is that of several processors
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)


def machine() -> dict[str, Any]:
    """Where a number was made: system, processor, its vectors, cores, Python; nobody's name."""
    processor, able = platform.processor() or platform.machine(), ""
    with contextlib.suppress(OSError):
        known: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            known.setdefault(key.strip(), value.strip())
        processor = known.get("model name", processor)
        flags = (known.get("flags") or known.get("Features", "")).split()
        able = " ".join(name for name in INSTRUCTIONS if name in flags)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        **({"instructions": able} if able else {}),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def free_folder(stem: str, of_first: Callable[[int], int]) -> Path:
    """The first of runs/stem-1, -2, … that does not exist; `of_first` makes processes agree."""
    number = 1
    while (Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return Path("runs") / f"{stem}-{of_first(number)}"


def mark_of(network: Path) -> str | None:
    """Sixteen hexadecimal digits that the saved networks of one run share; None outside a run."""
    run = network.resolve().parent
    with contextlib.suppress(LeanCNNError, KeyError, TypeError, AttributeError):
        if is_run(run):
            began = read_json(run / "run.json")["began"]
            return hashlib.sha256(f"{began} {run.name}".encode()).hexdigest()[:16]
    return None
