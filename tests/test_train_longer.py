"""Runs of another length than planned: lengthened, or ended by patience."""

import shutil
from pathlib import Path

import pytest

from leancnn import cli, recipes, runs
from leancnn.errors import MismatchError
from leancnn.recipes import learning_rate
from leancnn.train import resume, train
from tests.tiny import RECIPE
from tests.tiny_runs import metrics_of, stopped_at, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_finished_run_is_lengthened_on_a_stretched_schedule(
    quiet: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(quiet, folder)
    before = runs.read_metrics(folder)
    done = before[-1]["step"]
    trained = resume(folder, epochs=6, progress=False)
    longer = RECIPE.changed(epochs=6)
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4, 5, 6]
    assert metrics_of(folder)[:4] == metrics_of(quiet)
    steps = trained.history[-1]["step"]
    for row in trained.history[4:]:
        assert row["lr"] == pytest.approx(learning_rate(longer, (row["step"] - 1) / steps))
    said = capfd.readouterr().err
    now = learning_rate(longer, done / steps)
    assert "from 4 to 6 epochs: the schedule one-cycle is stretched over all of them" in said
    assert f"the rate goes from 0 to {now:.3g} at step {done} and ends at 0" in said
    assert recipes.read(folder / "recipe.json") == longer
    assert runs.read_json(folder / "run.json")["plan"]["recipe"]["epochs"] == 6


def test_a_lengthened_run_is_the_same_when_it_is_stopped_on_the_way(
    quiet: Path, tmp_path: Path
) -> None:
    for name in ("whole", "stopped"):
        shutil.copytree(quiet, tmp_path / name)
    resume(tmp_path / "whole", epochs=6, progress=False)
    with stopped_at(3, after=runs.read_metrics(quiet)[-1]["step"]):
        resume(tmp_path / "stopped", epochs=6, progress=False)
    resume(tmp_path / "stopped", progress=False)
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")
    assert metrics_of(tmp_path / "stopped") == metrics_of(tmp_path / "whole")


def test_a_run_is_not_shortened_to_less_than_is_done(quiet: Path, tmp_path: Path) -> None:
    shutil.copytree(quiet, tmp_path / "run")
    for epochs in (4 - 1e-9, 2):
        with pytest.raises(MismatchError, match="4 epochs are done; a run is lengthened to more"):
            resume(tmp_path / "run", epochs=epochs, progress=False)
    assert weights_of(tmp_path / "run") == weights_of(quiet)


def test_patience_ends_a_run_after_so_many_epochs_without_a_better_one(
    pictures: Path, tmp_path: Path
) -> None:
    """The rate is next to nothing, so that the first epoch stays the best."""
    still = RECIPE.changed(epochs=9, lr=1e-12, schedule="constant", warmup=0.0, ema=0.0)
    first = train(pictures, recipe=still, out=tmp_path / "a", patience=3, progress=False)
    assert len(first.history) == 4
    result = runs.read_json(tmp_path / "a" / "run.json")["result"]
    assert (result["stopped_early"], result["best_epoch"]) == (True, 1)
    again = resume(tmp_path / "a", progress=False)
    assert len(again.history) == 4
    longer = resume(tmp_path / "a", patience=5, progress=False)
    best = runs.read_json(tmp_path / "a" / "run.json")["result"]["best_epoch"]
    assert len(longer.history) == min(9, best + 5) > 4
    assert len(resume(tmp_path / "a", patience=0, progress=False).history) == 9


def test_patience_needs_a_validation_part(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(MismatchError, match="patience looks at the validation part"):
        train(pictures, recipe=RECIPE, out=out, val_share=0, patience=2, progress=False)
    assert not out.exists()


def test_the_command_lengthens_and_refuses_all_else(
    quiet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(quiet, folder)
    assert cli.main(["train", "--resume", str(folder), "--epochs", "5", "--quiet"]) == 0
    assert len(runs.read_metrics(folder)) == 5
    capsys.readouterr()
    assert cli.main(["train", "--resume", str(folder), "--lr", "0.1"]) != 0
    assert "takes no option that changes it but --epochs and --patience" in capsys.readouterr().err
