"""Processes of one training: whoever is lost is named, and the others end by themselves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leancnn import runs
from leancnn.peers import _alive, watching

ROOT = Path(__file__).parent.parent
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from tiny import RECIPE
from leancnn.train import train
train(sys.argv[1], recipe=RECIPE.changed(epochs=90_000), out=sys.argv[2], progress=False)
"""


def test_a_process_alone_watches_nobody() -> None:
    with watching(0, 1, Path("nowhere")):
        pass


def test_a_process_that_nobody_has_buried_yet_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert _alive(child.pid)
    child.kill()
    until = time.monotonic() + 10
    while _alive(child.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(child.pid)
    child.communicate()


def workers(launcher: int) -> list[int]:
    """The processes that a launcher started, by their rank."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                parent = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (place / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            ranks = [int(word[5:]) for word in words if word.startswith(b"RANK=")]
            if parent == launcher and ranks:
                found[ranks[0]] = int(place.name)
    return [found[rank] for rank in sorted(found)]


@pytest.fixture
def two(pictures: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """Two processes in the midst of a long training, their launcher and what they say."""
    script, said = tmp_path / "script.py", tmp_path / "said"
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests")))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    with said.open("w") as out:
        launcher = subprocess.Popen(
            [*words, str(script), str(pictures), str(tmp_path / "run")],
            stderr=out,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
    until = time.monotonic() + 120
    while time.monotonic() < until and not runs.is_run(tmp_path / "run"):
        time.sleep(0.5)
    time.sleep(4)
    own = workers(launcher.pid)
    assert len(own) == 2, said.read_text()
    yield launcher, own, said
    for process in [*own, launcher.pid]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    launcher.wait()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("whom", "how", "within_s", "text"),
    [
        ("worker", signal.SIGKILL, 30, "has died"),
        ("worker", signal.SIGSTOP, 120, "does not answer for"),
        ("launcher", signal.SIGKILL, 60, "the launcher of these processes is gone"),
    ],
)
def test_when_one_is_lost_the_others_end_and_say_so_in_one_line(
    whom: str, how: signal.Signals, within_s: int, text: str, two: tuple
) -> None:
    launcher, (first, second), said = two
    os.kill(second if whom == "worker" else launcher.pid, how)
    left = [first] if whom == "worker" else [first, second]
    until = time.monotonic() + within_s
    while any(map(_alive, left)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(_alive, left)), said.read_text()
    lines = [line for line in said.read_text().splitlines() if line.startswith("leancnn: ")]
    told = [line for line in lines if text in line]
    assert len(told) == 1, said.read_text()
    assert "go on with 'torchrun --nproc-per-node 2 -m leancnn train --resume" in told[0]
    assert "Traceback" not in "".join(lines)
