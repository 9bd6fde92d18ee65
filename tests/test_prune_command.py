"""leancnn prune: from a run to a smaller run, stopped and gone on with."""

import shutil
from importlib import import_module

import pytest
import torch

import leancnn
from leancnn import models, runs, weights
from leancnn.bench import untrained
from leancnn.cli import main
from leancnn.errors import MismatchError
from leancnn.evaluate import evaluate
from leancnn.models._base import Card, networks, register
from tests.few import few
from tests.tiny_gates import answer, small_files
from tests.tiny_runs import stopped_at, weights_of

pytestmark = pytest.mark.usefixtures("no_curves")


def test_a_dry_run_names_every_channel_and_writes_nothing(wide, capsys):
    before = small_files(wide.parent)
    plan = answer(capsys, "prune", str(wide), "--to-expansion", "2", "--dry-run", "--no-time")
    assert small_files(wide.parent) == before
    assert plan["criterion"] == "se_gate"
    assert plan["after"]["trainable"] < plan["before"]["trainable"]
    for layer in plan["layers"]:
        assert layer["kept"] == sorted(set(layer["kept"]))
        assert len(layer["kept"]) * 2 == layer["before"]


@pytest.fixture(scope="module")
def small(wide, tmp_path_factory):
    """The run of a pruned network that was trained again."""
    out = tmp_path_factory.mktemp("prune") / "small"
    leancnn.prune(wide, out=out, expansion=2, finetune=wide / "recipe.json", progress=False)
    return out


@pytest.mark.long
def test_pruned_and_trained_again_is_a_run_and_the_same_call_goes_on(
    wide, small, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "one"
    words = ["prune", str(wide), "--to-expansion", "1"]
    assert main([*words, "--out", str(out)]) == 1  # expansion 1 has no first convolution
    assert "no cut of this" in capsys.readouterr().err
    assert not out.exists()
    network = weights.load(small)
    assert network.arguments == {"expansion": 2}
    assert 0 <= evaluate(small).accuracy <= 1
    words = ["prune", str(wide), "--to-expansion", "2", "--no-time", "--out", str(small)]
    words += ["--finetune", str(wide / "recipe.json"), "--quiet"]
    with monkeypatch.context() as patch:
        for place, name in (("run", "cut"), ("run", "find_plan"), ("retrain", "train_on")):
            patch.setattr(import_module(f"leancnn.prune.{place}"), name, None)  # not done again
        assert answer(capsys, *words)["trained"]["epochs"] == 1
    assert main([*words, "--override", "lr=0.01"]) == 1
    assert "another recipe" in capsys.readouterr().err
    assert main([*words[:2], "--keep-ratio", "0.5", "--out", str(small)]) == 1
    assert "another pruning" in capsys.readouterr().err


def test_a_retraining_that_was_stopped_ends_in_the_same_bits(wide, small, tmp_path):
    out, recipe = tmp_path / "broken", wide / "recipe.json"
    with stopped_at(1):
        leancnn.prune(wide, out=out, expansion=2, finetune=recipe, progress=False)
    assert runs.read_json(out / "run.json")["state"] == "stopped"
    leancnn.prune(wide, out=out, expansion=2, finetune=recipe, progress=False)
    assert weights_of(out) == weights_of(small)


@pytest.mark.long
def test_a_schedule_cuts_trains_and_cuts_again(wide, tmp_path):
    def prune(*schedule):
        return leancnn.prune(
            wide, out=tmp_path / "small", criterion="l1", schedule=schedule, progress=False,
            finetune=wide / "recipe.json",
        )  # fmt: skip

    pruned = prune(4, 3, 2)  # it has 4 already, as the r80 that the paper's schedule begins with
    assert [str(plan.goal) for plan in pruned.plans] == ["expansion 3", "expansion 2"]
    assert pruned.network.arguments["expansion"] == 2
    between = tmp_path / "small" / "iterations" / "1-r3"
    assert runs.is_run(between)
    last_cut = weights.load(tmp_path / "small" / "cut")
    assert last_cut.made["cut from"] == weights.load(between).made, "the first cut, trained again"
    between.parent.rename(between.parent.with_name("steps"))  # as 0.1 called it
    assert prune(3, 2).plans == pruned.plans
    assert not between.exists()


def test_a_schedule_is_refused_before_its_first_step_is_trained(wide, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("leancnn.prune.planning"), "scored", None)
    for schedule, words in (((3, 1), "no cut of this"), ((3, 2, 0), "expansion of 1 or more")):
        with pytest.raises(MismatchError, match=words):
            leancnn.prune(wide, out=tmp_path / "no", schedule=schedule, progress=False)
    with pytest.raises(MismatchError, match="no cut of this"):
        leancnn.prune(wide, out=tmp_path / "no", expansion=1, progress=False)
    assert not (tmp_path / "no").exists()


def test_a_network_without_a_choice_of_first_weights_is_pruned_too(wide, tmp_path):
    assert "init" not in models.arguments("tiny_gates")
    pruned = leancnn.prune(wide, out=tmp_path / "cut", criterion="l1", keep=0.5, progress=False)
    assert "cut" in pruned.network.arguments


@pytest.mark.parametrize(("words", "reason"), few([
    (["--keep-ratio", "0.5", "--macs", "5e6"], "name one goal"),
    ([], "name one goal"),
    (["--schedule", "2,3"], "goes down"),
    (["--keep-ratio", "0.5", "--criterion", "se_gat"], "did you mean 'se_gate'"),
    (["--keep-ratio", "0.5", "--seeds", "3"], "belong to --compare"),
    (["--keep-ratio", "0.5", "--override", "epochs=1"], "--finetune"),
    (["--keep-ratio", "0.5", "--seeds", "0"], "belong to --compare"),
    (["--keep-ratio", "0.5", "--criterion", "random", "--seed", "-1"], "a --seed is 0 to"),
    (["--keep-ratio", "0.5", "--finetune", "nosuch"], "no recipe named 'nosuch'"),
    (["--compare", "--seeds", "0"], "--seeds are 1 or more"),
    (["--keep-ratio", "0.5", "--finetune", "smoke", "--override", "size=[9,9]"], "leave out size"),
    (["--compare", "--override", "fit=contain"], "leave out fit"),
    (["--compare", "--criteria", ","], "no names such as l1,random"),
    (["--compare", "--baselines", "scrath"], "no baseline named 'scrath'"),
    (["--keep-ratio", "1"], "share of channels"),
    (["--speedup", "1"], "above 1"),
    (["--compare", "--seed", "0"], "--compare has no use for --seed"),
    (["--compare", "--dry-run", "--checkpoint", "last"], "no use for --checkpoint, --dry-run"),
    (["--keep-ratio", "0.5", "--dry-run", "--finetune", "smoke"], "--dry-run has no use for --out"),
    (["--plot-gates", "x.png", "--keep-ratio", "0.5", "--no-time"], "for --keep-ratio, --out, "),
    (["--macs", "1"], "cannot be cut to macs 1"),
], rows=True))  # fmt: skip
def test_bad_words_get_one_line(wide, tmp_path, capsys, words, reason):
    assert main(["prune", str(wide), *words, "--out", str(tmp_path / "no")]) != 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert reason in said
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("criterion", ["l1", "random", "se_gate"])
def test_a_network_without_numbers_is_called_so(wide, tmp_path, capsys, pictures, criterion):
    broken = weights.load(wide)
    next(broken.body.parameters()).data.view(-1)[0] = float("nan")
    weights.save(broken, tmp_path / "broken")
    words = [
        "--keep-ratio",
        "0.5",
        "--no-time",
        "--data",
        str(pictures),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["prune", str(tmp_path / "broken"), "--criterion", criterion, *words]) == 1
    assert "has its training diverged?" in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_cut_and_said_to_be(wide, tmp_path, capsys):
    words = ["--keep-ratio", "0.5", "--criterion", "l1", "--dry-run", "--no-time"]
    assert main(["prune", str(wide), *words]) == 0
    assert capsys.readouterr().err == ""
    shutil.copytree(wide, tmp_path / "wide")
    told = runs.read_json(wide / "run.json")
    runs.write_json(tmp_path / "wide" / "run.json", {**told, "state": "stopped"})
    for place in ("wide", "wide/last"):
        assert main(["prune", str(tmp_path / place), *words]) == 0
        assert "wide is stopped; 'leancnn train --resume" in capsys.readouterr().err


def test_what_training_again_would_refuse_is_refused_before_the_cut(wide, tmp_path, capsys):
    words = [
        "prune",
        str(wide),
        "--criterion",
        "l1",
        "--keep-ratio",
        "0.5",
        "--out",
        str(tmp_path / "n"),
    ]
    words += ["--finetune", str(wide / "recipe.json")]
    assert main([*words, "--override", "loss=center"]) == 2
    assert "never trains the classifier" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path / "nowhere")]) == 1
    assert not (tmp_path / "n").exists()


def own_words(*, classes: int = 3, channels: int = 3, init: str = "orthogonal") -> torch.nn.Module:
    return models.create_model("resnet8", classes=classes, channels=channels)


def test_a_network_with_first_weights_of_its_own_is_pruned_too(tmp_path):
    card = Card(name="own", source="none", image=(3, 8, 8), classes=3, trainable=0, macs=0)
    register(card, own_words)
    try:
        weights.save(untrained("own"), tmp_path / "whole")
        out = tmp_path / "small"
        leancnn.prune(tmp_path / "whole", out=out, criterion="l1", keep=0.5, progress=False)
        assert weights.load(out).body.conv1.out_channels == 8
    finally:
        networks.pop("own")
