"""The time of a training, estimated before it begins."""

from importlib import import_module
from pathlib import Path

import pytest

from leancnn import cli, models
from leancnn.train import train
from tests.few import few
from tests.tiny import RECIPE

estimate = import_module("leancnn.train.estimate")


def test_models_are_listed_with_times_in_proportion_to_their_operations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = models.card("resnet20")
    monkeypatch.setattr(estimate, "training_rate", lambda: card.macs * 10_000 / 90)
    assert cli.main(["models", "--time"]) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("resnet20  ")]
    assert " 2 min " in line
    assert "an estimate for 10,000 images on this machine" in said
    assert cli.main(["models"]) == 0
    assert "estimate" not in capsys.readouterr().out


def test_the_rate_is_that_of_a_measured_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "best_step", lambda *_: (0.5, ""))
    macs = models.card(estimate.REFERENCE).macs
    assert estimate.training_rate() == pytest.approx(macs * estimate.BATCH / 0.5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("seconds", "worth", "said"),
    few([(60.0, 1, True), (0.01, 1, False), (60.0, 100, False)], rows=True),
)
def test_a_long_training_says_so_before_its_first_step(
    seconds: float,
    worth: int,
    said: bool,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(estimate, "STEPS_WORTH_ONE", worth)
    monkeypatch.setattr(estimate, "best_step", lambda *_: (seconds, ""))
    train(pictures, recipe=RECIPE, out=tmp_path / "run")  # 16 steps
    text = "an estimate from one step: about 16 min for 4 epochs"
    assert (text in capfd.readouterr().err) == said
