"""Slow: real processes that are asked to end early leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leancnn import weights
from leancnn.bench import untrained
from leancnn.workspaces import PREFIX

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_ended_leaves_nothing_or_the_next_one_sweeps(
    number: int, tmp_path: Path
) -> None:
    weights.save(untrained("resnet8"), tmp_path / "net")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "leancnn", "export", str(tmp_path / "net"), "--to", "c"]
    words += ["--out", str(out)]
    environment = {**os.environ, "LEANCNN_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while not list(out.glob(f"{PREFIX}*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert "interrupted" in error
        assert not list(out.glob(".*"))
    assert subprocess.run(words, cwd=ROOT, env=environment).returncode == 0
    assert not list(out.glob(".*"))
    assert not list((tmp_path / "cache").rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 130)])
def test_a_live_session_that_is_ended_keeps_its_recording(
    number: int, status: int, tmp_path: Path
) -> None:
    recording = tmp_path / "r.csv"
    words = [sys.executable, "-m", "leancnn", "eeg", "run", "--source", "synthetic"]
    words += ["--every", "0.5", "--record", str(recording), "--json"]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    process.stderr.readline()  # the first decision
    process.send_signal(number)
    answer, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert "Traceback" not in error
    account = json.loads(answer)
    assert account["decisions"] >= 1
    assert len(recording.read_text().splitlines()) == 2 + account["samples"]
    check = subprocess.run([*words[:4], "check", str(recording)], cwd=ROOT)
    assert check.returncode == 0
