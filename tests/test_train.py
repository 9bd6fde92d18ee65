"""Training: it learns, it says what it did, and refuses what cannot be."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from leancnn import models, recipes, runs, weights
from leancnn.commands.train import answer
from leancnn.errors import DataError, DivergedError, RunError, UnknownNameError, UsageError
from leancnn.train import resume, train
from leancnn.train.state import SGD
from tests.few import few
from tests.tiny import RECIPE
from tests.tiny_runs import metrics_of, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_folder_with_a_run_in_it_is_refused(pictures: Path, quiet: Path) -> None:
    with pytest.raises(RunError, match=r"holds a run already.*--resume"):
        train(pictures, recipe=RECIPE, out=quiet)
    with runs.Lock(quiet), pytest.raises(RunError, match="in use by process"):
        resume(quiet)


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


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_the_first_number_that_is_not_finite_ends_it(
    part: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = nn.Linear.forward, 0

    def poisoned(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += self.out_features == 3 and self.training
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
    told = answer(trained)
    assert told.value["best_val_accuracy"] is None
    assert "images/s, no validation\n" in told.text


def test_plain_lines_where_there_is_no_terminal(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(pictures, recipe=RECIPE.changed(epochs=1), out=tmp_path / "run")
    streams = capfd.readouterr()
    assert streams.out == ""
    assert "epoch 1" in streams.err
    assert "\x1b" not in streams.err


def test_henet_trains_on_the_digits(tmp_path: Path) -> None:
    changes = {"epochs": 0.1, "batch": 64, "backend": "torch", "precision": "fp32", "channels": 1}
    trained = train(
        "digits",
        model="henet_r2",
        recipe="smoke",
        overrides=changes,
        arguments={"repeat": 1},
        out=tmp_path / "run",
        progress=False,
    )
    assert trained.network.preprocessing.shape == (32, 32, 1)
    assert "repeat" in trained.network.arguments
    assert models.card("henet_r2").image[1:] == trained.network.preprocessing.size


def test_data_that_cannot_be_used_leaves_no_folder(pictures: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    shutil.copytree(pictures / "class 0", one / "class 0")
    for data, error, text in (
        (tmp_path / "nowhere", DataError, "no folder at"),
        ("digitz", DataError, "did you mean 'digits'"),
        (one, DataError, "one class, 'class 0'; a classifier tells two"),
    ):
        with pytest.raises(error, match=text):
            train(data, recipe=RECIPE, out=tmp_path / "runs" / "a", progress=False)
        assert not (tmp_path / "runs").exists()


def test_an_empty_name_is_not_this_folder(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the name of the run's folder is empty"):
        train(pictures, recipe=RECIPE, out="", progress=False)
    assert not [*tmp_path.iterdir()]


def test_what_one_should_know_is_said_at_the_start_and_kept(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("class 0", "class 1"):
        (data / "train" / name).mkdir(parents=True)
        for number in range(6):
            image = (pictures / name / f"{number}.png").read_bytes()
            (data / "train" / name / f"{number}.png").write_bytes(image)
    trained = train(data, recipe=RECIPE.changed(epochs=1), out=tmp_path / "run", progress=False)
    told = capfd.readouterr().err.splitlines()
    assert "has no test part, so 'leancnn evaluate' will have nothing to open" in told[0]
    assert "all 10 images to train on make one step, for the recipe's batch is 16" in told[1]
    assert len(told) == 2
    kept = runs.read_json(trained.folder / "run.json")["warnings"]
    assert [f"leancnn: {text}" for text in kept] == told


def test_a_network_trains_at_another_size_and_knows_it(pictures: Path, tmp_path: Path) -> None:
    trained = train(
        pictures,
        model="resnet8",
        recipe=RECIPE.changed(epochs=0.2),
        overrides={"size": [12, 9]},
        out=tmp_path / "run",
        progress=False,
    )
    network = weights.load(trained.folder)
    assert (network.preprocessing.size, network.preprocessing.scale) == ((12, 9), (12, 9))
    assert network(torch.zeros(2, 12, 9, 3, dtype=torch.uint8)).shape == (2, 3)
    assert recipes.read(trained.folder / "recipe.json").size == (12, 9)


@pytest.mark.parametrize(
    ("options", "channels"),
    few([({}, 1), ({"channels": 3}, 3), ({"recipe": RECIPE.changed(epochs=1)}, 3)], rows=True),
    ids=["nobody asked", "three were asked for", "a recipe was named"],
)
def test_images_that_are_all_gray_make_a_network_of_one_channel(
    options: dict[str, Any], channels: int, pictures: Path, tmp_path: Path, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(recipes, "for_network", lambda name: RECIPE.changed(epochs=1))
    data = tmp_path / "gray"
    for path in pictures.rglob("*.png"):
        place = data / path.relative_to(pictures)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").convert("RGB").save(place)
    trained = train(data, model="tiny", out=tmp_path / "run", progress=False, **options)
    assert trained.network.preprocessing.channels == channels
    assert runs.read_run(tmp_path / "run")["plan"]["recipe"]["channels"] in (channels, None)
    assert ("the network takes" in capsys.readouterr().err) == (channels == 1)
    for path in sorted(data.rglob("*.png"))[:9]:  # one of them at least is not for the test
        Image.new("RGB", (10, 10), (250, 0, 0)).save(path)
    coloured = train(data, model="tiny", out=tmp_path / "other", progress=False)
    assert coloured.network.preprocessing.channels == 3


def test_a_sound_start_has_no_warnings(quiet: Path) -> None:
    assert runs.read_json(quiet / "run.json")["warnings"] == []


@pytest.mark.parametrize(
    ("val_share", "what"), [(None, "the validation loss"), (0, "the (loss|gradient)")]
)
def test_weights_that_a_step_broke_are_neither_kept_nor_a_result(
    val_share: float | None,
    what: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss of the step itself is finite; what comes after it is not."""
    step, done = SGD.step, 0

    def breaks(self: SGD, lr: float) -> None:
        nonlocal done
        step(self, lr)
        done += 1
        if done == 4:  # the last one of an epoch
            for group in self.groups:
                for weight in group.parameters:
                    weight.data.mul_(1e30)

    monkeypatch.setattr(SGD, "step", breaks)
    recipe, folder = RECIPE.changed(ema=0.0, epochs=2), tmp_path / "run"
    with pytest.raises(DivergedError, match=rf"{what} is not finite at step [34] "):
        train(
            pictures, recipe=recipe, out=folder, progress=False, save_every_steps=1,
            val_share=val_share,
        )  # fmt: skip
    assert not (folder / "best").exists()
    checkpoint, _ = runs.load_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert max(np.abs(array).max() for array in checkpoint.tensors.values()) < 1e6


def test_what_goes_on_from_a_network_validates_on_what_that_did_not_see(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = RECIPE.changed(epochs=0.2)
    first = train(pictures, recipe=short, out=tmp_path / "a", seed=5, progress=False)
    train(pictures, start=first.network, recipe=short, out=tmp_path / "b", progress=False)
    plans = [runs.read_json(tmp_path / name / "run.json")["plan"] for name in "ab"]
    assert plans[1]["split_seed"] == 5
    assert plans[1]["val_share"] == plans[0]["val_share"]
    assert "trained on before" not in capfd.readouterr().err
    train(
        pictures,
        start=first.network,
        recipe=short,
        out=tmp_path / "c",
        progress=False,
        split_seed=6,
    )
    assert "set apart for validation were trained on before" in capfd.readouterr().err
