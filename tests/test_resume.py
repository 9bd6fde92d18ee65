"""Runs that stop and go on lose nothing: the same bits as one that nothing disturbed."""

import os
import shutil
import signal
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from leancnn import runs
from leancnn.cpu_training import compiler
from leancnn.distributed import World
from leancnn.errors import MismatchError, RunError, StoppedError, WriteError
from leancnn.train import resume, train
from leancnn.train.plan import TrainingPlan
from tests.few import few
from tests.tiny import RECIPE, make_pictures
from tests.tiny_runs import metrics_of, stopped_at, weights_of

loop_module = import_module("leancnn.train.loop")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("step", few([1, 3, 4, 7, 16]))
def test_a_stopped_run_resumes_to_the_same_bits(
    step: int, pictures: Path, quiet: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with stopped_at(step) as caught:
        train(pictures, recipe=RECIPE, out=folder, progress=False)
    assert f"step {step} of 16" in str(caught.value)
    assert "--resume" in str(caught.value)
    assert caught.value.exit_status == 130
    assert runs.read_json(folder / "run.json")["state"] == "stopped"
    resume(folder, progress=False)
    assert weights_of(folder) == weights_of(quiet)
    assert metrics_of(folder) == metrics_of(quiet)
    assert (folder / "metrics.csv").read_text().count("\n") == 5


def test_ctrl_c_is_heard_while_validating(
    pictures: Path, quiet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = loop_module.validate

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return validate(*arguments)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "validate", interrupted)
        with pytest.raises(StoppedError, match="step 4 of 16"):
            train(pictures, recipe=RECIPE, out=folder, progress=False)
    resume(folder, progress=False)
    assert metrics_of(folder) == metrics_of(quiet)
    assert weights_of(folder) == weights_of(quiet)


def test_who_asks_to_stop_behind_the_last_step_hears_so_and_the_run_is_finished(
    quiet: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = loop_module.close_epoch

    def interrupted(counters: Any, plan: TrainingPlan, *rest: Any) -> Any:
        if counters.step == plan.steps:
            signal.raise_signal(signal.SIGINT)
        return close(counters, plan, *rest)

    monkeypatch.setattr(loop_module, "close_epoch", interrupted)
    with pytest.raises(StoppedError, match="is finished") as stopped:
        train(pictures, recipe=RECIPE, out=tmp_path / "run", progress=False)
    assert stopped.value.exit_status == 130
    assert weights_of(tmp_path / "run") == weights_of(quiet)
    assert runs.read_run(tmp_path / "run")["state"] == "finished"


def test_a_finished_run_says_so_and_is_handed_back(
    quiet: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(quiet, tmp_path / "run")
    (folder / "last" / "network.json").unlink()  # as if killed just before its end
    before = (folder / "run.json").stat().st_mtime_ns
    trained = resume(folder)
    assert (folder / "run.json").stat().st_mtime_ns == before
    assert "is finished: 4 epochs" in capfd.readouterr().err
    assert weights_of(folder) == weights_of(quiet)
    assert trained.history == runs.read_metrics(quiet)


def test_a_damaged_checkpoint_costs_time_and_no_bits(
    pictures: Path, quiet: Path, tmp_path: Path, capfd: Any
) -> None:
    folder = tmp_path / "run"
    with stopped_at(13):
        train(pictures, recipe=RECIPE, out=folder, progress=False)
    newest = folder / "checkpoints" / "step-00000013.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    resume(folder)
    assert "checkpoint of step 13 passed over" in capfd.readouterr().err
    assert weights_of(folder) == weights_of(quiet)
    assert "step 13" in runs.read_json(folder / "run.json")["warnings"][0]


def test_no_checkpoint_to_read_is_no_reason_to_start_from_scratch(
    quiet: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for path in (quiet / "checkpoints").glob("*.json"):
        (folder / "checkpoints" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunError, match=r"no checkpoint that can be read.*step 16.*missing"):
        resume(folder)
    with pytest.raises(RunError, match="holds no run"):
        resume(tmp_path / "other")


def test_other_images_or_classes_are_refused(tmp_path: Path) -> None:
    data, folder = make_pictures(tmp_path / "data"), tmp_path / "run"
    with stopped_at(3):
        train(data, recipe=RECIPE, out=folder, progress=False)
    images = [data / "class 0" / f"{number}.png" for number in range(6)]  # some stay in train
    kept = [image.read_bytes() for image in images]
    for image in images:
        image.write_bytes((data / "class 1" / "0.png").read_bytes())
    with pytest.raises(RunError, match="images changed"):
        resume(folder)
    for image, content in zip(images, kept, strict=True):
        image.write_bytes(content)
    (data / "class 2").rename(data / "class 3")
    with pytest.raises(MismatchError, match=r"gone .'class 2'.*new .'class 3'"):
        resume(folder)
    (data / "class 3").rename(data / "class 2")
    data.rename(tmp_path / "moved")
    resume(folder, data=tmp_path / "moved", progress=False)
    assert len(runs.read_metrics(folder)) == 4


def test_a_run_that_goes_on_leaves_the_thread_count_to_the_next(quiet: Path) -> None:
    plan = runs.read_json(quiet / "run.json")["plan"]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(plan["threads"] + 1)
        resume(quiet, progress=False)
        assert torch.get_num_threads() == plan["threads"] + 1
    finally:
        torch.set_num_threads(before)


def test_an_edited_recipe_is_said_to_change_nothing(
    pictures: Path, quiet: Path, tmp_path: Path, capfd: Any
) -> None:
    folder = tmp_path / "run"
    with stopped_at(3):
        train(pictures, recipe=RECIPE, out=folder, progress=False)
    runs.write_json(folder / "recipe.json", RECIPE.changed(lr=0.5).to_json())
    resume(folder, progress=False)
    assert "recipe.json was edited; the run goes on with the recipe" in capfd.readouterr().err
    assert weights_of(folder) == weights_of(quiet)
    earlier = RECIPE.to_json()
    del earlier["size"], earlier["fit"]  # fields that came later, at their usual values
    runs.write_json(folder / "recipe.json", earlier)
    resume(folder, progress=False)
    assert "was edited" not in capfd.readouterr().err
    runs.write_json(folder / "recipe.json", {"epochs": "many"})
    resume(folder, progress=False)
    assert "was edited" in capfd.readouterr().err


def test_a_run_goes_on_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "here" / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with stopped_at(3):
        train("data", recipe=RECIPE.changed(epochs=1), out="run", progress=False)
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume("../here/run", progress=False)
    assert len(runs.read_metrics(Path("../here/run"))) == 1


def test_another_torch_is_said_to_change_bits(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    folder = tmp_path / "run"
    with stopped_at(3):
        train(pictures, recipe=RECIPE, out=folder, progress=False)
    torch.set_num_threads(2)
    monkeypatch.setattr(torch, "__version__", "9.9")
    module, threads = import_module("leancnn.train.run"), []
    begin = module.begin
    monkeypatch.setattr(
        module, "begin", lambda *a: (threads.append(torch.get_num_threads()), begin(*a))[1]
    )
    resume(folder, progress=False)
    assert "not bit-exact from step 3 on: torch: " in capfd.readouterr().err
    assert threads == [1]  # as the run began


def test_a_disk_that_is_full_leaves_the_last_checkpoint(
    pictures: Path, quiet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync, syncs = tmp_path / "run", os.fsync, 0

    def full(handle: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > 40:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=r"bytes not written \(No space left on device\)"):
            train(pictures, recipe=RECIPE, out=folder, progress=False, save_every_steps=1)
    assert not [*folder.glob("**/*.tmp")]
    resume(folder, progress=False)
    assert weights_of(folder) == weights_of(quiet)


def test_another_compiler_is_said_to_change_the_bits_of_the_lanes(quiet: Path) -> None:
    world = World(0, 1, torch.device("cpu"))
    plan = TrainingPlan.of_json(runs.read_json(quiet / "run.json")["plan"])
    assert "compiler" not in plan.machine  # torch's own pass does not depend on it
    assert not plan.differences(world)
    plan = replace(plan, backend="simd")
    assert not plan.differences(world)  # written before compilers were noted
    plan = replace(plan, machine={**plan.machine, "compiler": compiler()})
    assert not plan.differences(world)
    plan = replace(plan, machine={**plan.machine, "compiler": "gcc (Old) 4.9 -O3"})
    assert plan.differences(world) == [f"compiler: gcc (Old) 4.9 -O3 → {compiler()}"]


@pytest.mark.parametrize(
    "overrides",
    few(
        [
            {"mixup": 1.0, "ema": 0.0},
            {"loss": "softmax+center", "decay_on": "caffe"},
            {"loss": "focal", "precision": "bf16", "nesterov": False},
            {
                "channels": 1,
                "batch": 500,
                "scale": [8, 8],
                "pad": 0,
                "shift": 2,
                "border": "reflect",
            },
            {"epochs": 2.5, "schedule": "multistep", "milestones": [0.5], "precision": "auto"},
            {"backend": "simd", "precision": "bf16"},
        ]
    ),
)
def test_every_kind_of_run_resumes_to_the_same_bits(
    overrides: dict[str, Any], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.changed(**{"epochs": 2, **overrides})
    whole = train(pictures, recipe=recipe, out=tmp_path / "whole", progress=False)
    plan = runs.read_json(whole.folder / "run.json")["plan"]
    recipe = recipe.changed(precision=plan["precision"])  # what auto measured
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        rate, steps = loop_module.learning_rate, 0

        def interrupted(given: Any, progress: float) -> float:
            nonlocal steps
            steps += 1
            if steps == 2:
                signal.raise_signal(signal.SIGINT)
            return rate(given, progress)

        patch.setattr(loop_module, "learning_rate", interrupted)
        with pytest.raises(StoppedError):
            train(pictures, recipe=recipe, out=folder, progress=False)
    resume(folder, progress=False)
    assert weights_of(folder) == weights_of(whole.folder)


@pytest.mark.long
def test_a_stopped_run_resumes_to_the_same_bits_with_turns_scales_and_colours(
    pictures: Path, tmp_path: Path
) -> None:
    strong = RECIPE.changed(epochs=2, rotate=20.0, zoom=0.3, colour=0.4)
    train(pictures, recipe=strong, out=tmp_path / "whole", progress=False)
    for step in (3, 5):  # within an epoch, and past its end
        folder = tmp_path / f"stopped at {step}"
        with stopped_at(step):
            train(pictures, recipe=strong, out=folder, progress=False)
        resume(folder, progress=False)
        assert weights_of(folder) == weights_of(tmp_path / "whole")
        assert metrics_of(folder) == metrics_of(tmp_path / "whole")
    for name in ("rotate", "zoom", "colour"):  # each of them is at work, or this would show nothing
        folder = tmp_path / f"without {name}"
        train(pictures, recipe=strong.changed(**{name: 0.0}), out=folder, progress=False)
        assert weights_of(folder) != weights_of(tmp_path / "whole")
