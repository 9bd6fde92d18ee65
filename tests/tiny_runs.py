"""What tests of runs share: their weights, their metrics, a Ctrl-C at a chosen step."""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from leancnn import runs
from leancnn.errors import StoppedError
from leancnn.train import state

loop_module = import_module("leancnn.train.loop")


def weights_of(folder: Path) -> list[Mapping[str, str]]:
    """The sha256 of every tensor of the saved networks."""
    return [
        json.loads((folder / name / "network.json").read_text())["tensors"]
        for name in ("best", "last")
    ]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics, without clock readings."""
    timed = ("images_per_s", "seconds", "train_seconds")
    return [{k: v for k, v in row.items() if k not in timed} for row in runs.read_metrics(folder)]


@contextmanager
def stopped_at(step: int, after: int = 0) -> Iterator[pytest.ExceptionInfo[StoppedError]]:
    """Let Ctrl-C fall into a step of the training inside, which must stop there.

    `after` are the steps that were done before.
    """
    update_ema, steps = state.update_ema, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            signal.raise_signal(signal.SIGINT)
        update_ema(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "update_ema", interrupted)
        with pytest.raises(StoppedError, match=f"stopped at step {after + step} of") as caught:
            yield caught
