"""The tutorial, typed block by block as it stands, with fewer epochs unless there is time."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|c)\n(.*?)```", TEXT, re.S)
CROSS = "aarch64-linux-gnu-gcc"
SHORTER = {"--epochs 6": "--epochs 0.5", "epochs=3": "epochs=0.1"}


def typed(place: Path, replaced: dict[str, str]) -> list[str]:
    """Run every block in a folder; what each of the shell's printed."""
    commands = place / "bin"
    commands.mkdir()
    python = commands / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    leancnn = commands / "leancnn"
    leancnn.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m leancnn "$@"\n')
    for script in (python, leancnn):
        script.chmod(0o755)
    (place / "examples").symlink_to(ROOT / "examples")
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LEANCNN_CACHE": str(place / "cache"),
    }
    printed = []
    for kind, block in BLOCKS:
        if kind == "c":
            name = re.match(r"/\* (\w+\.c):", block)[1]
            (place / name).write_text(block)
            continue
        if CROSS in block and shutil.which(CROSS) is None:
            continue
        for old, new in replaced.items():
            block = block.replace(old, new)
        done = subprocess.run(
            ["sh", "-e"],
            input=block,
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, block + done.stderr
        printed.append(done.stdout)
    return printed


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs(tmp_path):
    printed = typed(tmp_path, SHORTER)
    assert "go" in printed[0].splitlines()
    answer = next(text for text in printed if re.fullmatch(r"\d 0\.\d+\n|\d 1\.000\n", text))
    emulated(tmp_path, answer)


@pytest.mark.slow
def test_as_it_stands_the_tutorial_reads_a_three(tmp_path):
    printed = typed(tmp_path, {})
    assert any(re.match(r"3 (0\.[5-9]|1\.0)", text) for text in printed)


def emulated(place, answer):
    """The device's program gives the same class, where there is an emulator."""
    if shutil.which("qemu-aarch64") is None or not (place / "classify-arm64").exists():
        return
    with (place / "three.ppm").open("rb") as picture:
        done = subprocess.run(
            ["qemu-aarch64", str(place / "classify-arm64")],
            stdin=picture,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split()[0] == answer.split()[0]
