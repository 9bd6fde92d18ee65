"""Training: it learns, it says what it did, and stops and resumes lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leancnn import learner, models, recipes, runs, weights
from leancnn.errors import (
    DivergedError,
    MismatchError,
    RunError,
    StoppedError,
    UnknownNameError,
    WriteError,
)
from leancnn.learner import Descent
from leancnn.plan import fastest, road_for
from leancnn.process import Stop, keep_pages
from leancnn.train import resume, train
from tests.tiny import RECIPE, make_pictures, tiny

train_module = import_module("leancnn.train")  # `leancnn.train` is the function
ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures") / "data")


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


@pytest.fixture(scope="module")
def quiet(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("quiet") / "run"
    train(pictures, recipe=RECIPE, out=folder, progress=False)
    return folder


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C fall into a step."""
    follow, steps = learner.follow, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            signal.raise_signal(signal.SIGINT)
        follow(*arguments)

    monkeypatch.setattr(train_module, "follow", interrupted)


def test_it_learns_and_leaves_a_run(quiet: Path) -> None:
    history = runs.read_metrics(quiet)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["val_accuracy"] >= 0.8
    run = runs.read_json(quiet / "run.json")
    assert run["state"] == "finished"
    assert run["result"]["best_val_accuracy"] == max(row["val_accuracy"] for row in history)
    assert run["data"]["classes"] == ["class 0", "class 1", "class 2"]
    assert recipes.read(quiet / "recipe.json") == RECIPE
    assert (quiet / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (quiet / "metrics.csv").read_text().startswith("epoch,step,lr,train_loss")
    assert len([*(quiet / "checkpoints").iterdir()]) == 4
    network = weights.load(quiet)
    assert network.classes == ("class 0", "class 1", "class 2")
    assert network.made["recipe"] == "tiny"


def test_the_same_call_gives_the_same_bits(pictures: Path, quiet: Path, tmp_path: Path) -> None:
    trained = train(str(pictures), recipe=RECIPE, out=tmp_path / "run", progress=False)
    assert weights_of(tmp_path / "run") == weights_of(quiet)
    assert metrics_of(tmp_path / "run") == metrics_of(quiet)
    assert trained.history == runs.read_metrics(tmp_path / "run")
    assert trained.images_per_s > 0
    other = train(pictures, recipe=RECIPE, out=tmp_path / "other", progress=False, seed=1)
    assert weights_of(other.folder) != weights_of(quiet)


@pytest.mark.parametrize("step", [1, 3, 4, 7, 16])
def test_a_stopped_run_resumes_to_the_same_bits(
    step: int, pictures: Path, quiet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        with pytest.raises(StoppedError, match=f"stopped at step {step} of 16.*--resume") as caught:
            train(pictures, recipe=RECIPE, out=folder, progress=False)
    assert caught.value.exit_status == 130
    assert runs.read_json(folder / "run.json")["state"] == "stopped"
    resume(folder, progress=False)
    assert weights_of(folder) == weights_of(quiet)
    assert metrics_of(folder) == metrics_of(quiet)
    assert (folder / "metrics.csv").read_text().count("\n") == 5


def test_ctrl_c_is_heard_while_validating(
    pictures: Path, quiet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = train_module.validate

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return validate(*arguments)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "validate", interrupted)
        with pytest.raises(StoppedError, match="step 4 of 16"):
            train(pictures, recipe=RECIPE, out=folder, progress=False)
    resume(folder, progress=False)
    assert metrics_of(folder) == metrics_of(quiet)
    assert weights_of(folder) == weights_of(quiet)


def test_the_second_ctrl_c_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_a_finished_run_says_so_and_is_handed_back(
    quiet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = weights_of(quiet)
    (quiet / "last" / "network.json").unlink()  # as if killed just before its end
    trained = resume(quiet)
    assert "is finished: 4 epochs" in capfd.readouterr().err
    assert weights_of(quiet) == before
    assert trained.history == runs.read_metrics(quiet)


def test_a_damaged_checkpoint_costs_time_and_no_bits(
    pictures: Path, quiet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(13, patch)
        with pytest.raises(StoppedError):
            train(pictures, recipe=RECIPE, out=folder, progress=False)
    newest = folder / "checkpoints" / "step-00000013.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    resume(folder)
    assert "checkpoint of step 13 passed over" in capfd.readouterr().err
    assert weights_of(folder) == weights_of(quiet)
    assert "step 13" in runs.read_json(folder / "run.json")["notes"][0]


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


def test_a_folder_with_a_run_in_it_is_refused(pictures: Path, quiet: Path) -> None:
    with pytest.raises(RunError, match=r"holds a run already.*--resume"):
        train(pictures, recipe=RECIPE, out=quiet)
    with runs.Lock(quiet), pytest.raises(RunError, match="in use by process"):
        resume(quiet)


def test_other_images_or_classes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder = make_pictures(tmp_path / "data"), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(StoppedError):
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


def test_another_torch_is_said_to_change_bits(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(StoppedError):
            train(pictures, recipe=RECIPE, out=folder, progress=False)
    torch.set_num_threads(2)
    monkeypatch.setattr(torch, "__version__", "9.9")
    resume(folder, progress=False)
    assert "not bit-exact from step 3 on: torch: " in capfd.readouterr().err
    assert torch.get_num_threads() == 1  # as the run began


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_the_first_number_that_is_not_finite_ends_it(
    part: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = nn.Linear.forward, 0

    def poisoned(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += self.out_features == 3
        y = forward(self, x)
        if calls == 12 and self.out_features == 3 and self.training:
            if part == "loss":
                return y * torch.nan
            y.register_hook(lambda gradient: gradient * torch.inf)
        return y

    folder = tmp_path / "run"
    monkeypatch.setattr(nn.Linear, "forward", poisoned)
    with pytest.raises(DivergedError, match=rf"the {part} is not finite at step \d+ .*\.png") as e:
        train(pictures, recipe=RECIPE, out=folder, progress=False, save_every_steps=1)
    monkeypatch.undo()
    assert e.value.exit_status == 3
    run = runs.read_json(folder / "run.json")
    assert run["state"] == "diverged"
    assert len(run["diverged"]["files"]) == 16
    checkpoint, skipped = runs.load_checkpoint(folder)
    assert checkpoint is not None
    assert not skipped
    assert checkpoint.step == run["diverged"]["step"]
    assert all(np.isfinite(array).all() for array in checkpoint.tensors.values())


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


def test_wrong_names_are_found_before_any_work(tmp_path: Path) -> None:
    for call, text in (
        ({"model": "henet_r33"}, "did you mean 'henet_r3"),
        ({"recipe": "smokey"}, "did you mean 'smoke'"),
        ({"recipe": RECIPE, "overrides": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"recipe": RECIPE, "arguments": {"widht": 3}}, "did you mean 'width'"),
    ):
        with pytest.raises(UnknownNameError, match=text):
            train("nowhere", out=tmp_path / "run", **call)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        {"mixup": 1.0, "ema": 0.0},
        {"loss": "softmax+center", "decay_on": "caffe"},
        {"loss": "focal", "precision": "bf16", "nesterov": False},
        {"channels": 1, "batch": 500, "scale": [8, 8], "pad": 0, "shift": 2, "border": "reflect"},
        {"epochs": 2.5, "schedule": "multistep", "milestones": [0.5], "precision": "auto"},
        {"engine": "lanes", "precision": "bf16"},
    ],
)
def test_every_kind_of_run_resumes_to_the_same_bits(
    overrides: dict[str, Any], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.changed(**overrides)
    whole = train(pictures, recipe=recipe, out=tmp_path / "whole", progress=False)
    plan = runs.read_json(whole.folder / "run.json")["plan"]
    recipe = recipe.changed(precision=plan["precision"])  # what auto measured
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        rate, steps = train_module.learning_rate, 0

        def interrupted(given: Any, progress: float) -> float:
            nonlocal steps
            steps += 1
            if steps == 2:
                signal.raise_signal(signal.SIGINT)
            return rate(given, progress)

        patch.setattr(train_module, "learning_rate", interrupted)
        with pytest.raises(StoppedError):
            train(pictures, recipe=recipe, out=folder, progress=False)
    resume(folder, progress=False)
    assert weights_of(folder) == weights_of(whole.folder)


def test_without_a_validation_part_the_last_network_is_the_result(
    pictures: Path, tmp_path: Path
) -> None:
    trained = train(
        pictures,
        recipe=RECIPE.changed(epochs=1),
        out=tmp_path / "run",
        progress=False,
        val_share=0,
    )
    assert trained.history[0]["val_accuracy"] is None
    assert not (trained.folder / "best").exists()
    assert trained.network.made["epoch"] == 1


@pytest.mark.parametrize("changes", [{}, {"nesterov": False}, {"decay_on": "caffe"}])
def test_descent_is_torch_sgd_to_the_last_bit(changes: dict[str, Any]) -> None:
    recipe = RECIPE.changed(weight_decay=0.01, **changes)
    torch.manual_seed(1)
    ours, theirs = tiny(), tiny()
    theirs.load_state_dict(ours.state_dict())
    descent = Descent(ours, recipe)
    groups = [
        {
            "params": [dict(theirs.named_parameters())[name] for name in group.names],
            "weight_decay": group.decay,
            "lr": 0.1 * group.rate_share,
        }
        for group in descent.groups
    ]
    sgd = torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov)
    for _ in range(5):
        x = torch.randn(6, 3, 8, 8)
        for body in (ours, theirs):
            body.eval()(x).square().mean().backward()
        descent.step(0.1)
        sgd.step()
        descent.forget_gradients()
        sgd.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_weight_decay_leaves_out_norms_and_biases() -> None:
    decayed = {
        name: group.decay > 0 for group in Descent(tiny(), RECIPE).groups for name in group.names
    }
    assert {name for name, is_decayed in decayed.items() if is_decayed} == {
        "conv.weight",
        "hidden.weight",
        "fc.weight",
    }
    caffe = Descent(tiny(), RECIPE.changed(decay_on="caffe"))
    assert [(g.names, g.decay, g.rate_share) for g in caffe.groups if g.decay == 0] == [
        (["fc.bias"], 0.0, 2.0)
    ]


def test_the_average_follows_the_weights() -> None:
    body, average = tiny(), tiny()
    start = {k: v.clone() for k, v in average.state_dict().items()}
    learner.follow(average, body, 0.75)
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * start[name] + 0.25 * body.state_dict()[name]
            torch.testing.assert_close(value, expected)


def test_the_road_stores_no_less_than_the_network_takes() -> None:
    road = road_for("henet_r2", recipes.get("henet-fast"))
    assert (road.size, road.scale, road.channels) == ((31, 31), (32, 32), 3)
    road = road_for("henet_r2", replace(recipes.get("smoke"), scale=None, channels=1))
    assert (road.size, road.scale, road.channels) == ((31, 31), (31, 31), 1)


def test_the_fastest_way_is_measured_only_where_the_recipe_leaves_it_open() -> None:
    from leancnn.distributed import World

    alone = World(0, 1, torch.device("cpu"))
    images = torch.randn(4, 3, 8, 8)
    assert fastest(tiny(), RECIPE, images, alone, uses_features=False) == ("torch", "fp32")
    body = tiny()
    before = {k: v.clone() for k, v in body.state_dict().items()}
    open_ = RECIPE.changed(precision="auto")
    engine, precision = fastest(body, open_, images, alone, uses_features=False)
    assert engine == "torch"
    assert precision in ("fp32", "bf16")
    assert all(torch.equal(before[k], v) for k, v in body.state_dict().items())
    assert all(p.grad is None for p in body.parameters())


def test_pages_are_kept_on_glibc_and_nothing_happens_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert keep_pages() in (True, False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keep_pages() is False


def test_plain_lines_where_there_is_no_terminal(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(pictures, recipe=RECIPE.changed(epochs=1), out=tmp_path / "run")
    streams = capfd.readouterr()
    assert streams.out == ""
    assert "epoch 1" in streams.err
    assert "\x1b" not in streams.err


def test_henet_trains_on_the_digits(tmp_path: Path) -> None:
    changes = {"epochs": 0.1, "batch": 64, "engine": "torch", "precision": "fp32", "channels": 1}
    trained = train(
        "digits",
        model="henet_r2",
        recipe="smoke",
        overrides=changes,
        arguments={"repeat": 1},
        out=tmp_path / "run",
        progress=False,
    )
    assert trained.network.road.shape == (32, 32, 1)
    assert "repeat" in trained.network.arguments
    assert models.card("henet_r2").image[1:] == trained.network.road.size


# ---- slow: real processes, real signals ----


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
def test_the_same_kills_ruin_a_naive_saver(tmp_path: Path) -> None:
    told = harness(tmp_path, "4", "24", "naive")
    assert told["lost"] + told["different"] > 0


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
