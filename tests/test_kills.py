"""Slow: real processes and real signals; several processes as one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leancnn import cpu_training, runs

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent


def harness(folder: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(TESTS / "kill_training.py"), str(folder), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print(told, f"95 % bound of the share lost: {3 / told['kills']:.1%}")
    return told


@pytest.mark.slow
def test_sixty_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    told = harness(tmp_path, "6", "60")
    assert told["runs"] >= 6
    assert told["kills"] >= 60
    assert told["in_saves"] >= 12
    assert told["after_last"] >= 1
    assert (told["lost"], told["different"]) == (0, 0), told["reasons"]


@pytest.mark.slow
def test_kills_change_nothing_in_simd_batches_either(tmp_path: Path) -> None:
    if cpu_training.compiler() == "none":
        pytest.skip("SIMD batches need a C compiler")
    told = harness(tmp_path, "2", "16", "simd")
    assert told["runs"] >= 2
    assert told["kills"] >= 16
    assert told["in_saves"] >= 4
    assert (told["lost"], told["different"]) == (0, 0), told["reasons"]


@pytest.mark.slow
def test_the_same_kills_ruin_a_naive_saver(tmp_path: Path) -> None:
    told = harness(tmp_path, "4", "24", "naive")
    assert told["lost"] + told["different"] > 0
    assert all(why.startswith("RunError: lost") for why in told["reasons"])  # for no other reason


@pytest.mark.slow
def test_a_damaged_checkpoint_is_never_loaded(quiet: Path, tmp_path: Path) -> None:
    import random
    import shutil

    dice = random.Random(2)
    shutil.copytree(quiet / "checkpoints", tmp_path / "checkpoints")
    newest = sorted((tmp_path / "checkpoints").iterdir())[-2:]
    wholes = [path.read_bytes() for path in newest]
    step = runs.load_checkpoint(quiet)[0].step
    refused = 0
    for trial in range(600):
        which = dice.choices((0, 1), [len(whole) for whole in wholes])[0]
        bad = bytearray(wholes[which])
        place = dice.randrange(len(bad))
        if trial < 500:
            bad[place] ^= 1 << dice.randrange(8)
        else:
            del bad[place:]
        newest[which].write_bytes(bad)
        checkpoint, skipped = runs.load_checkpoint(tmp_path)
        refused += checkpoint is not None and checkpoint.step < step and len(skipped) == 1
        newest[which].write_bytes(wholes[which])
    assert refused == 600


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_ends_in_time(number: int, pictures: Path, tmp_path: Path) -> None:
    for trial in range(5):
        folder = tmp_path / str(trial)
        command = [
            sys.executable,
            "-m",
            "leancnn",
            "train",
            str(pictures),
            "--model",
            "resnet8",
            "--recipe",
            "smoke",
            "--out",
            str(folder),
            "--epochs",
            "500",
            "--quiet",
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while not (folder / "run.json").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(0.1 * trial)
        started = time.monotonic()
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        seconds = time.monotonic() - started
        print(f"{seconds:.2f} s")
        assert process.returncode == 130
        assert f"leancnn train --resume {folder}" in error
        assert "Traceback" not in error
        assert runs.load_checkpoint(folder)[0] is not None
