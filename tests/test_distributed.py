"""Several processes as one: what they measure is what one measures."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn import runs
from leancnn.distributed import World
from leancnn.errors import MismatchError

TESTS = Path(__file__).parent
ROOT = TESTS.parent

SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from tiny import RECIPE
from leancnn.train import train
train(sys.argv[1], recipe=RECIPE.changed(**eval(sys.argv[3])), out=sys.argv[2], progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"batch": 16}, {"batch": 16, "mixup": 1.0}, {"batch": 16, "loss": "softmax+center"}],
)
def test_two_processes_measure_what_one_does(
    changes: dict[str, Any], pictures: Path, tmp_path: Path
) -> None:
    # Without dropout, whose masks depend on the process; the sums differ in their last bits.
    changes = {**changes, "epochs": 2, "lr": 0.02}
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(tests=str(TESTS)).replace(
            "from leancnn.train",
            "import tiny; tiny.torch.nn.Dropout.forward = lambda s, x: x\nfrom leancnn.train",
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command, name in (
        ([sys.executable], "one"),
        (
            [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"],
            "two",
        ),
    ):
        done = subprocess.run(
            [*command, str(script), str(pictures), str(tmp_path / name), repr(changes)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (runs.read_metrics(tmp_path / name) for name in ("one", "two"))
    for mine, other in zip(one, two, strict=True):
        for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert other[key] == pytest.approx(mine[key], abs=2e-5), key
        assert mine["images"] == other["images"]
    plan = runs.read_json(tmp_path / "two" / "run.json")["plan"]
    assert plan["processes"] == 2


@pytest.mark.slow
def test_two_processes_choose_a_precision_and_train(pictures: Path, tmp_path: Path) -> None:
    words = ["--nproc-per-node=2", "--standalone", "-m", "leancnn", "train", str(pictures)]
    words += ["--model", "resnet8", "--recipe", "smoke", "--epochs", "1", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plan = runs.read_json(tmp_path / "run" / "run.json")["plan"]
    assert "Warning" not in done.stderr
    assert plan["recipe"]["precision"] == "auto"
    assert plan["precision"] in ("fp32", "bf16")


def test_a_process_alone_has_every_part_and_every_sum() -> None:
    world = World(0, 1, torch.device("cpu"))
    values = torch.arange(3.0)
    assert world.first
    assert world.part([1, 2, 3]) == [1, 2, 3]
    assert world.sum(values) is values
    assert world.of_first(7) == 7
    assert world.first_then_others(lambda: "done") == "done"
    body = torch.nn.Linear(1, 1)
    assert world.share_gradients(body) is body


@given(st.integers(1, 8), st.integers(1, 8))
def test_the_parts_of_all_processes_are_the_batch(size: int, each: int) -> None:
    batch = list(range(size * each))
    parts = [World(rank, size, torch.device("cpu")).part(batch) for rank in range(size)]
    assert [one for part in parts for one in part] == batch
    if size > 1:
        with pytest.raises(MismatchError, match="does not divide"):
            World(0, size, torch.device("cpu")).part([*batch, 0])
