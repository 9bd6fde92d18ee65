"""leancnn prune --compare and --plot-gates: one protocol, a conclusion, pictures."""

import shutil
from dataclasses import replace
from importlib import import_module

import pytest

import leancnn
from leancnn import recipes, runs, weights
from leancnn.bench import untrained
from leancnn.cli import main
from leancnn.errors import DivergedError, MismatchError, RunError
from leancnn.prune.compare import compare
from leancnn.prune.measure import TestAccuracy
from leancnn.training_data import training_images
from tests.few import few
from tests.tiny_gates import answer
from tests.tiny_runs import weights_of

pytestmark = pytest.mark.usefixtures("no_curves")
CRITERIA, BASELINES = ["se_gate", "random"], ["scratch", "random_kernels"]


@pytest.mark.long
def test_another_seed_trains_otherwise_and_validates_on_the_same_images(wide, compared):
    folders = [wide, *(compared[0] / f"se_gate-seed{seed}" for seed in (0, 1))]
    plans = [runs.read_json(folder / "run.json")["plan"] for folder in folders]
    assert [plan["seed"] for plan in plans] == [0, 0, 1]
    assert plans[0]["data_sha256"] == plans[1]["data_sha256"] == plans[2]["data_sha256"]
    assert weights_of(folders[1]) != weights_of(folders[2])
    with pytest.raises(RunError, match="seed 1"):
        leancnn.prune(wide, out=folders[2], expansion=2, seed=2, progress=False)


@pytest.fixture(scope="module")
def compared(wide, tmp_path_factory):
    """The folder of a comparison, and what stood there after every row."""
    out, seen = tmp_path_factory.mktemp("prune") / "cmp", []
    compare(
        wide, out=out, criteria=CRITERIA, baselines=BASELINES, seeds=2, timed=False, progress=False,
        expansion=2, on_row=lambda _: seen.append(runs.read_json(out / "comparison.json")),
    )  # fmt: skip
    return out, seen


def test_a_comparison_has_a_row_for_each_seed_a_conclusion_and_a_picture(compared):
    out, seen = compared
    found = runs.read_json(out / "comparison.json")
    each = [*CRITERIA, *BASELINES]
    rows = [(row["label"], row["seed"]) for row in found["rows"]]
    assert rows == [("whole", 0), *((name, seed) for seed in (0, 1) for name in each)]
    cut = [row for row in found["rows"] if row["kind"] != "whole"]
    assert len({(row["macs"], row["trainable"]) for row in cut}) == 1
    assert [(line["network"], line["runs"]) for line in found["means"]] == [
        ("whole", 1), *((name, 2) for name in each)
    ]  # fmt: skip
    assert found["conclusion"].startswith("se_gate is ")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    recipe = recipes.of_json(runs.read_json(out / "scratch-seed0" / "recipe.json"))
    assert recipe.epochs == 1.0  # as long as the whole network and the retraining together
    assert [one["rows"] for one in seen] == [found["rows"][:n] for n in range(2, 10)]


@pytest.mark.long
def test_a_finished_comparison_trains_nothing_and_opens_no_test_part_again(
    compared, wide, capsys, monkeypatch
):
    out, _ = compared
    before = runs.read_json(out / "comparison.json")
    for name in ("compare", "retrain"):
        monkeypatch.setattr(import_module(f"leancnn.prune.{name}"), "train_on", None)
    words = ["prune", "--compare", str(wide), "--to-expansion", "2", "--out", str(out)]
    words += ["--criteria", ",".join(CRITERIA), "--baselines", ",".join(BASELINES)]
    found = answer(capsys, *words, "--seeds", "2", "--no-time", "--quiet")
    assert found == before
    for folder in out.glob("*-seed?"):
        assert len(runs.evaluations(folder)) == 1
        if (folder / "cut").exists():
            assert len(runs.evaluations(folder / "cut")) == 1
    assert [one["which"] for one in runs.evaluations(wide)] == ["best"]


@pytest.mark.long
def test_a_baseline_that_cannot_be_trained_does_not_end_a_comparison(wide, tmp_path, monkeypatch):
    def trained(folder, *_):
        raise DivergedError("no") if "scratch" in folder.name else MismatchError("too small")

    monkeypatch.setattr(import_module("leancnn.prune.compare"), "_trained", trained)
    found = compare(
        wide, out=tmp_path / "cmp", criteria=["l1"], baselines=["scratch", "henet_r2"], keep=0.5,
        timed=False, progress=False,
    )  # fmt: skip
    assert [row.label for row in found.rows] == ["whole", "l1"]
    assert found.left_out == ("scratch, seed 0: no", "too small")


@pytest.mark.parametrize(("criterion", "baseline", "goal", "differs"), few([
    ("l1", "scratch", {"keep": 0.5}, "expansion 2, not unset; cut"),
    ("fpgm", "random_kernels", {"expansion": 2}, "start"),
], rows=True))  # fmt: skip
def test_a_baseline_of_another_comparison_is_not_taken_for_this_one(
    compared, wide, criterion, baseline, goal, differs
):
    with pytest.raises(RunError, match=rf"another baseline \({differs}\); choose another --out"):
        compare(
            wide, out=compared[0], criteria=[criterion], baselines=[baseline], timed=False,
            progress=False, **goal,
        )  # fmt: skip


def test_no_comparison_tests_on_images_that_may_have_been_trained_on(wide, tmp_path):
    shutil.copytree(wide, tmp_path / "wide")
    told = runs.read_json(tmp_path / "wide" / "run.json")
    told["data"]["cuts"]["test"]["names"] = "of other files"
    runs.write_json(tmp_path / "wide" / "run.json", told)
    with pytest.raises(RunError, match="other files than when"):
        compare(tmp_path / "wide", out=tmp_path / "cmp", criteria=["l1"], keep=0.5, progress=False)
    assert not (tmp_path / "cmp" / "l1-seed0").exists()


def test_the_gates_of_several_networks_are_drawn(wide, compared, tmp_path, capsys):
    several = [str(wide), str(compared[0] / "se_gate-seed0")]
    found = answer(
        capsys, "prune", *several, "--plot-gates", str(tmp_path / "gates.png"), "--quiet"
    )
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    assert list(found) == several
    before, after = found.values()
    assert before.keys() == after.keys()
    assert len(after["blocks.0.gate.gate"]["mean"]) * 2 == len(before["blocks.0.gate.gate"]["mean"])
    for gates in found.values():
        assert all(0 < mean < 1 for gate in gates.values() for mean in gate["mean"])


def test_a_picture_without_a_name_is_refused_before_anything_is_scored(wide, capsys):
    assert main(["prune", str(wide), "--plot-gates", ""]) == 2
    assert "--plot-gates is empty" in capsys.readouterr().err


def test_each_network_is_measured_on_images_of_its_own_size(wide, tmp_path):
    data = training_images(wide, None, weights.load(wide)).data
    test = TestAccuracy(weights.load(wide), data)
    other = untrained("henet_r2")
    other.preprocessing = replace(other.preprocessing, channels=1, scale=(31, 31))
    gray = weights.build("henet_r2", {}, 3, other.preprocessing, seed=0)
    other = weights.Network(
        gray, name="henet_r2", arguments={}, classes=weights.load(wide).classes,
        preprocessing=other.preprocessing,
        mean=[0.5], std=[0.5],
    )  # fmt: skip
    assert 0 <= test.accuracy(other, tmp_path) <= 1
    assert {preprocessing.channels for preprocessing in test._opened} == {
        1,
        weights.load(wide).preprocessing.channels,
    }
