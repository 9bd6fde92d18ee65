"""What a run leaves on disk: checkpoints, metrics, evaluations, the lock."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leancnn import runs
from leancnn.errors import RunError, WriteError

ROOT = Path(__file__).parent.parent


def tensors(step: int) -> dict[str, np.ndarray]:
    return {"w": np.full(50, step, np.float32)}


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 15):
        runs.save_checkpoint(tmp_path, step, {"plan": {}}, tensors(step))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{s:08d}.{e}" for s in (10, 15) for e in ("json", "safetensors")]
    checkpoint, skipped = runs.load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 15
    assert not skipped


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    for step in (5, 10):
        runs.save_checkpoint(tmp_path, step, {}, tensors(step))
    newest = tmp_path / "checkpoints" / "step-00000010.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    checkpoint, skipped = runs.load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 5
    assert "step 10" in skipped[0]
    runs.set_aside(tmp_path, newer_than=5)
    assert runs.load_checkpoint(tmp_path)[1] == []


def test_a_checkpoint_under_another_name_is_damaged(tmp_path: Path) -> None:
    runs.save_checkpoint(tmp_path, 5, {}, tensors(5))
    for path in (tmp_path / "checkpoints").iterdir():
        path.rename(path.with_name(path.name.replace("5", "7")))
    checkpoint, skipped = runs.load_checkpoint(tmp_path)
    assert checkpoint is None
    assert "holds step 5" in skipped[0]


def test_what_kills_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    runs.save_checkpoint(tmp_path, 5, {}, tensors(5))
    (tmp_path / "best").mkdir()
    litter = [
        tmp_path / ".run.json.123.tmp",
        tmp_path / "best" / ".weights.safetensors.next.9.tmp",
        tmp_path / "checkpoints" / "step-00000006.safetensors",
        tmp_path / "checkpoints" / "step-00000007.safetensors.next",
    ]
    foreign = [tmp_path / ".mine.tmp", tmp_path / "photos" / ".cat.jpg.7.tmp"]
    (tmp_path / "photos").mkdir()
    for path in litter + foreign:
        path.write_bytes(b"")
    assert sorted(runs.sweep(tmp_path)) == sorted(litter)
    assert runs.load_checkpoint(tmp_path)[0] is not None
    assert all(path.exists() for path in foreign)


def test_metrics_are_read_as_written(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_accuracy": 0.5}, {"epoch": 2, "val_accuracy": None}]
    runs.write_metrics(tmp_path, rows)
    assert runs.read_metrics(tmp_path) == rows
    assert (tmp_path / "metrics.csv").read_text() == "epoch,val_accuracy\n1,0.5\n2,\n"
    with pytest.raises(RunError, match="has an epoch ended"):
        runs.read_metrics(tmp_path / "no run")


def test_every_opening_of_a_test_set_is_kept(tmp_path: Path) -> None:
    assert runs.evaluations(tmp_path) == []
    assert runs.add_evaluation(tmp_path, {"accuracy": 0.5}) == []
    earlier = runs.add_evaluation(tmp_path, {"accuracy": 0.6})
    assert [entry["accuracy"] for entry in earlier] == [0.5]
    assert [entry["accuracy"] for entry in runs.evaluations(tmp_path)] == [0.5, 0.6]


def test_processes_that_open_at_once_lose_no_opening(tmp_path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            for turn in range(5):
                runs.add_evaluation(tmp_path, {"who": [number, turn]})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    found = [tuple(entry["who"]) for entry in runs.evaluations(tmp_path)]
    assert sorted(found) == [(number, turn) for number in range(4) for turn in range(5)]


def test_runs_do_not_load_torch() -> None:
    code = "import sys, leancnn.runs, leancnn.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_machine_is_json() -> None:
    assert json.loads(json.dumps(runs.machine()))["cores"] >= 1


def test_a_disk_that_is_full_before_the_first_checkpoint_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "a"

    def full() -> None:
        with runs.Lock(folder):
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "step-00000000.safetensors.next").write_bytes(b"half")
            runs.abandon(folder)
            raise WriteError("full")

    with pytest.raises(WriteError, match="full"):
        full()
    assert not (tmp_path / "runs").exists()
