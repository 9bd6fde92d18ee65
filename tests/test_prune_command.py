"""leancnn prune: from a run to a smaller run, stopped and gone on with, compared and drawn."""

import json
import shutil
from dataclasses import replace
from importlib import import_module

import pytest
import torch

import leancnn
from leancnn import models, recipes, runs, weights
from leancnn.bench import untrained
from leancnn.cli import main
from leancnn.comparison import _Test, compare
from leancnn.errors import DivergedError, MismatchError, RunError
from leancnn.evaluate import evaluate
from leancnn.models._base import Card, networks, put
from leancnn.models.lbmbnet import lbmbnet
from leancnn.scoring import source_of
from leancnn.train import train
from tests.tiny import RECIPE
from tests.tiny_runs import stopped_at, weights_of


def answer(capsys, *words):
    """What a command prints with --json."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def tiny_gates(
    *, classes: int = 3, channels: int = 3, repeats: int = 1, expansion: int = 4
) -> torch.nn.Module:
    return lbmbnet(classes=classes, channels=channels, repeats=repeats, expansion=expansion)


@pytest.fixture(scope="module")
def shelf():
    """A small LB-MBNet for 8×8 images among the networks."""
    put(
        Card(
            name="tiny_gates", source="none: for tests", image=(3, 8, 8), classes=3, trainable=0,
            macs=0,
        ),
        tiny_gates,
    )  # fmt: skip
    yield
    networks.pop("tiny_gates")


@pytest.fixture(scope="module", autouse=True)
def no_curves():
    """Other tests draw them; a picture takes longer than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("leancnn.train"), "training_curve", lambda epochs: b"")
        yield


@pytest.fixture(scope="module")
def wide(shelf, pictures, tmp_path_factory):
    """It has seen pictures for a few steps."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("prune") / "wide"
    recipe = RECIPE.changed(epochs=0.5)
    train(pictures, model="tiny_gates", recipe=recipe, out=out, progress=False)
    return out


def small_files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


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
        for name in ("cut", "plan", "train"):  # a finished pruning is not done again
            patch.setattr(import_module("leancnn.prune"), name, None)
        assert answer(capsys, *words)["trained"]["epochs"] == 1
    assert main([*words, "--change", "lr=0.01"]) == 1
    assert "another recipe" in capsys.readouterr().err
    assert main([*words[:2], "--keep", "0.5", "--out", str(small)]) == 1
    assert "another pruning" in capsys.readouterr().err


def test_a_retraining_that_was_stopped_ends_in_the_same_bits(wide, small, tmp_path):
    out, recipe = tmp_path / "broken", wide / "recipe.json"
    with stopped_at(1):
        leancnn.prune(wide, out=out, expansion=2, finetune=recipe, progress=False)
    assert runs.read_json(out / "run.json")["state"] == "stopped"
    leancnn.prune(wide, out=out, expansion=2, finetune=recipe, progress=False)
    assert weights_of(out) == weights_of(small)


def test_a_schedule_cuts_trains_and_cuts_again(wide, tmp_path):
    def prune(*schedule):
        return leancnn.prune(
            wide, out=tmp_path / "steps", criterion="l1", schedule=schedule, progress=False,
            finetune=wide / "recipe.json",
        )  # fmt: skip

    pruned = prune(4, 3, 2)  # it has 4 already, as the r80 that the paper's schedule begins with
    assert [plan.goal for plan in pruned.plans] == [{"expansion": 3.0}, {"expansion": 2.0}]
    assert pruned.network.arguments["expansion"] == 2
    between = tmp_path / "steps" / "steps" / "1-r3"
    assert runs.is_run(between)
    last_cut = weights.load(tmp_path / "steps" / "cut")
    assert last_cut.made["cut from"] == weights.load(between).made, "the first cut, trained again"
    assert prune(3, 2).plans == pruned.plans


def test_a_schedule_is_refused_before_its_first_step_is_trained(wide, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("leancnn.prune"), "scored", None)
    for schedule, words in (((3, 1), "no cut of this"), ((3, 2, 0), "expansion of 1 or more")):
        with pytest.raises(MismatchError, match=words):
            leancnn.prune(wide, out=tmp_path / "no", schedule=schedule, progress=False)
    with pytest.raises(MismatchError, match="no cut of this"):
        leancnn.prune(wide, out=tmp_path / "no", expansion=1, progress=False)
    assert not (tmp_path / "no").exists()


def test_another_seed_trains_otherwise_and_validates_on_the_same_images(wide, compared):
    folders = [wide, *(compared[0] / f"se_gate-seed{seed}" for seed in (0, 1))]
    plans = [runs.read_json(folder / "run.json")["plan"] for folder in folders]
    assert [plan["seed"] for plan in plans] == [0, 0, 1]
    assert plans[0]["data_sha256"] == plans[1]["data_sha256"] == plans[2]["data_sha256"]
    assert weights_of(folders[1]) != weights_of(folders[2])
    with pytest.raises(RunError, match="seed 1"):
        leancnn.prune(wide, out=folders[2], expansion=2, seed=2, progress=False)


def test_a_network_without_a_choice_of_first_weights_is_pruned_too(wide, tmp_path):
    assert "init" not in models.arguments("tiny_gates")
    pruned = leancnn.prune(wide, out=tmp_path / "cut", criterion="l1", keep=0.5, progress=False)
    assert "cut" in pruned.network.arguments


@pytest.mark.parametrize(("words", "reason"), [
    (["--keep", "0.5", "--macs", "5e6"], "name one goal"),
    ([], "name one goal"),
    (["--schedule", "2,3"], "goes down"),
    (["--keep", "0.5", "--criterion", "se_gat"], "did you mean 'se_gate'"),
    (["--keep", "0.5", "--seeds", "3"], "belong to --compare"),
    (["--keep", "0.5", "--change", "epochs=1"], "--finetune"),
    (["--keep", "0.5", "--seeds", "0"], "belong to --compare"),
    (["--keep", "0.5", "--criterion", "random", "--seed", "-1"], "a seed is 0 to"),
    (["--keep", "0.5", "--finetune", "nosuch"], "no recipe named 'nosuch'"),
    (["--compare", "--seeds", "0"], "seeds are 1 or more"),
    (["--keep", "0.5", "--finetune", "smoke", "--change", "size=[9,9]"], "leave out size"),
    (["--compare", "--change", "fit=contain"], "leave out fit"),
    (["--compare", "--criteria", ","], "no names such as l1,random"),
    (["--compare", "--controls", "scrath"], "no control named 'scrath'"),
    (["--keep", "1"], "share of channels"),
    (["--speedup", "1"], "above 1"),
    (["--compare", "--seed", "0"], "--compare has no use for --seed"),
    (["--compare", "--dry-run", "--which", "last"], "no use for --which, --dry-run"),
    (["--keep", "0.5", "--dry-run", "--finetune", "smoke"], "--dry-run has no use for --out, --fi"),
    (["--gates", "x.png", "--keep", "0.5", "--no-time"], "use for --keep, --out, --no-time"),
    (["--macs", "1"], "cannot be cut to macs 1"),
])  # fmt: skip
def test_bad_words_get_one_line(wide, tmp_path, capsys, words, reason):
    assert main(["prune", str(wide), *words, "--out", str(tmp_path / "no")]) != 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert reason in said
    assert not (tmp_path / "no").exists()


CRITERIA, CONTROLS = ["se_gate", "random"], ["scratch", "random_kernels"]


@pytest.fixture(scope="module")
def compared(wide, tmp_path_factory):
    """The folder of a comparison, and what stood there after every row."""
    out, seen = tmp_path_factory.mktemp("prune") / "cmp", []
    compare(
        wide, out=out, criteria=CRITERIA, controls=CONTROLS, seeds=2, timed=False, progress=False,
        expansion=2, told=lambda _: seen.append(runs.read_json(out / "comparison.json")),
    )  # fmt: skip
    return out, seen


def test_a_comparison_has_a_row_for_each_seed_a_verdict_and_a_picture(compared):
    out, seen = compared
    found = runs.read_json(out / "comparison.json")
    each = [*CRITERIA, *CONTROLS]
    rows = [(row["label"], row["seed"]) for row in found["rows"]]
    assert rows == [("whole", 0), *((name, seed) for seed in (0, 1) for name in each)]
    cut = [row for row in found["rows"] if row["kind"] != "whole"]
    assert len({(row["macs"], row["trainable"]) for row in cut}) == 1
    assert [(line["network"], line["runs"]) for line in found["means"]] == [
        ("whole", 1), *((name, 2) for name in each)
    ]  # fmt: skip
    assert found["verdict"].startswith("se_gate is ")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    recipe = recipes.of_json(runs.read_json(out / "scratch-seed0" / "recipe.json"))
    assert recipe.epochs == 1.0  # as long as the whole network and the retraining together
    assert [one["rows"] for one in seen] == [found["rows"][:n] for n in range(2, 10)]


def test_a_finished_comparison_trains_nothing_and_opens_no_test_part_again(
    compared, wide, capsys, monkeypatch
):
    out, _ = compared
    before = runs.read_json(out / "comparison.json")
    for name in ("comparison", "prune"):
        monkeypatch.setattr(import_module(f"leancnn.{name}"), "train", None)
    words = ["prune", "--compare", str(wide), "--to-expansion", "2", "--out", str(out)]
    words += ["--criteria", ",".join(CRITERIA), "--controls", ",".join(CONTROLS)]
    found = answer(capsys, *words, "--seeds", "2", "--no-time", "--quiet")
    assert found == before
    for folder in out.glob("*-seed?"):
        assert len(runs.evaluations(folder)) == 1
        if (folder / "cut").exists():
            assert len(runs.evaluations(folder / "cut")) == 1
    assert [one["which"] for one in runs.evaluations(wide)] == ["best"]


def test_a_control_that_cannot_be_trained_does_not_end_a_comparison(wide, tmp_path, monkeypatch):
    def trained(folder, *_):
        raise DivergedError("no") if "scratch" in folder.name else MismatchError("too small")

    monkeypatch.setattr(import_module("leancnn.comparison"), "_trained", trained)
    found = compare(
        wide, out=tmp_path / "cmp", criteria=["l1"], controls=["scratch", "henet_r2"], keep=0.5,
        timed=False, progress=False,
    )  # fmt: skip
    assert [row.label for row in found.rows] == ["whole", "l1"]
    assert found.left_out == ("scratch, seed 0: no", "too small")


@pytest.mark.parametrize(("criterion", "control", "goal", "differs"), [
    ("l1", "scratch", {"keep": 0.5}, "expansion 2, not unset; cut"),
    ("fpgm", "random_kernels", {"expansion": 2}, "start"),
])  # fmt: skip
def test_a_control_of_another_comparison_is_not_taken_for_this_one(
    compared, wide, criterion, control, goal, differs
):
    with pytest.raises(RunError, match=rf"another control \({differs}\); choose another --out"):
        compare(
            wide, out=compared[0], criteria=[criterion], controls=[control], timed=False,
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
    found = answer(capsys, "prune", *several, "--gates", str(tmp_path / "gates.png"), "--quiet")
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    assert list(found) == several
    before, after = found.values()
    assert before.keys() == after.keys()
    assert len(after["blocks.0.gate.gate"]["mean"]) * 2 == len(before["blocks.0.gate.gate"]["mean"])
    for gates in found.values():
        assert all(0 < mean < 1 for gate in gates.values() for mean in gate["mean"])


def test_a_saved_network_is_not_written_over_nor_taken_for_another(tmp_path, capsys):
    one, other, small = (tmp_path / name for name in ("one", "other", "small"))
    for place, factor in ((one, 1), (other, 2)):
        network = untrained("resnet8")
        network.body.get_parameter("conv1.weight").data *= factor
        weights.save(network, place)
    words = ["--criterion", "l1", "--keep", "0.5", "--no-time", "--out"]
    for out in (one, other):
        before = (out / "network.json").read_bytes()
        assert main(["prune", str(one), *words, str(out)]) == 1
        assert "holds something else" in capsys.readouterr().err
        assert (out / "network.json").read_bytes() == before
    assert main(["prune", str(one), *words, str(small)]) == 0
    (small / "plan.json").rename(small / ".plan.json.77.tmp")  # a kill before the plan was whole
    assert main(["prune", str(one), *words, str(small)]) == 0
    assert main(["prune", str(other), *words, str(small)]) == 1
    assert "another network" in capsys.readouterr().err
    renamed = untrained("resnet8")
    renamed.made = {"epoch": 3}  # of the same weights
    weights.save(renamed, tmp_path / "same")
    assert main(["prune", str(tmp_path / "same"), *words, str(small)]) == 0


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("weights.safetensors", "mine"),
        ("network.json", "[1]"),
        ("cut", "mine"),
        ("cut/notes.txt", "mine"),
        ("cut/network.json", "{}"),
        ("cut/weights.safetensors", "mine"),
    ],
)
def test_files_that_pruning_did_not_write_stay_as_they_are(tmp_path, capsys, file, text):
    weights.save(untrained("resnet8"), tmp_path / "whole")
    theirs = tmp_path / "out" / file
    theirs.parent.mkdir(parents=True)
    theirs.write_text(text)
    words = ["--criterion", "l1", "--keep", "0.5", "--no-time", "--out", str(tmp_path / "out")]
    assert main(["prune", str(tmp_path / "whole"), *words]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert theirs.read_text() == text


def test_a_picture_without_a_name_is_refused_before_anything_is_scored(wide, capsys):
    assert main(["prune", str(wide), "--gates", ""]) == 2
    assert "--gates is empty" in capsys.readouterr().err


def test_a_schedule_is_refused_where_another_pruning_stands_before_its_first_step(tmp_path, capsys):
    wide = untrained("lbmbnet32_r6")
    weights.save(wide, tmp_path / "wide")
    words = ["prune", str(tmp_path / "wide"), "--criterion", "l1", "--no-time", "--out"]
    out = tmp_path / "out"
    assert main([*words, str(out), "--to-expansion", "2"]) == 0
    assert main([*words, str(out), "--schedule", "3,2"]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert not (out / "steps").exists()


@pytest.mark.parametrize("criterion", ["l1", "random", "se_gate"])
def test_a_network_without_numbers_is_called_so(wide, tmp_path, capsys, pictures, criterion):
    broken = weights.load(wide)
    next(broken.body.parameters()).data.view(-1)[0] = float("nan")
    weights.save(broken, tmp_path / "broken")
    words = ["--keep", "0.5", "--no-time", "--data", str(pictures), "--out", str(tmp_path / "out")]
    assert main(["prune", str(tmp_path / "broken"), "--criterion", criterion, *words]) == 1
    assert "has its training diverged?" in capsys.readouterr().err


@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_images_that_are_not_there_are_no_wish(tmp_path, capsys, criterion):
    weights.save(untrained("resnet8"), tmp_path / "whole")
    words = ["--criterion", criterion, "--keep", "0.5", "--data", str(tmp_path / "nowhere")]
    assert main(["prune", str(tmp_path / "whole"), *words, "--out", str(tmp_path / "out")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["prune", "/", "--criterion", criterion, "--keep", "0.5"]) == 1
    assert "/: no run" in capsys.readouterr().err


def test_a_network_in_the_folder_where_one_stands_goes_beside_it(tmp_path, monkeypatch):
    weights.save(untrained("resnet8"), tmp_path / "small")
    monkeypatch.chdir(tmp_path / "small")
    assert main(["prune", ".", "--criterion", "l1", "--keep", "0.5", "--no-time"]) == 0
    assert (tmp_path / "small-l1-keep0.5" / "plan.json").exists()


def test_a_run_that_is_not_finished_is_cut_and_said_to_be(wide, tmp_path, capsys):
    words = ["--keep", "0.5", "--criterion", "l1", "--dry-run", "--no-time"]
    assert main(["prune", str(wide), *words]) == 0
    assert capsys.readouterr().err == ""
    shutil.copytree(wide, tmp_path / "wide")
    told = runs.read_json(wide / "run.json")
    runs.write_json(tmp_path / "wide" / "run.json", {**told, "state": "stopped"})
    for place in ("wide", "wide/last"):
        assert main(["prune", str(tmp_path / place), *words]) == 0
        assert "wide is stopped; 'leancnn train --resume" in capsys.readouterr().err


def test_an_empty_name_is_not_beside_the_network(tmp_path, capsys):
    weights.save(untrained("resnet8"), tmp_path / "small")
    for words in (["--keep", "0.5"], ["--compare"]):
        assert main(["prune", str(tmp_path / "small"), *words, "--out", ""]) == 2
        assert "--out is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_what_training_again_would_refuse_is_refused_before_the_cut(wide, tmp_path, capsys):
    words = ["prune", str(wide), "--criterion", "l1", "--keep", "0.5", "--out", str(tmp_path / "n")]
    words += ["--finetune", str(wide / "recipe.json")]
    assert main([*words, "--change", "loss=center"]) == 1
    assert "never trains the classifier" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path / "nowhere")]) == 1
    assert not (tmp_path / "n").exists()


def test_a_pruning_belongs_to_its_images_and_says_when_they_are_others(
    wide, pictures, tmp_path, capsys
):
    others = tmp_path / "others"
    shutil.copytree(pictures, others)
    for parts in (["--dry-run"], ["--out", str(tmp_path / "small")]):
        words = ["prune", str(wide), "--keep", "0.5", "--no-time", "--data", str(others), *parts]
        assert "scored on other images" not in str(answer(capsys, *words))
    first, *rest = sorted(path for path in others.rglob("*") if path.is_file())
    for path in rest:
        shutil.copy(first, path)
    assert main(words) == 1
    assert "holds another pruning (images" in capsys.readouterr().err
    found = answer(capsys, *words[:-2], "--dry-run")
    assert found["notes"][0] == "scored on other images than the network was trained on"


def test_a_plan_that_does_not_fit_its_network_is_damaged(tmp_path, capsys):
    weights.save(untrained("resnet8"), tmp_path / "whole")
    words = ["prune", str(tmp_path / "whole"), "--criterion", "l1", "--keep", "0.5", "--no-time"]
    words += ["--out", str(tmp_path / "small")]
    assert main(words) == 0
    plan = runs.read_json(tmp_path / "small" / "plan.json")
    plan["layers"][0]["kept"] = [0]
    runs.write_json(tmp_path / "small" / "plan.json", plan)
    assert main(words) == 1
    told = "it keeps 1 channels of 'conv1', and the network beside it has 8"
    assert told in capsys.readouterr().err


def own_words(*, classes: int = 3, channels: int = 3, init: str = "orthogonal") -> torch.nn.Module:
    return models.create_model("resnet8", classes=classes, channels=channels)


def test_a_network_with_first_weights_of_its_own_is_pruned_too(tmp_path):
    card = Card(name="own", source="none", image=(3, 8, 8), classes=3, trainable=0, macs=0)
    put(card, own_words)
    try:
        weights.save(untrained("own"), tmp_path / "whole")
        out = tmp_path / "small"
        leancnn.prune(tmp_path / "whole", out=out, criterion="l1", keep=0.5, progress=False)
        assert weights.load(out).body.conv1.out_channels == 8
    finally:
        networks.pop("own")


def test_no_pruning_lies_in_its_images(tmp_path, capsys):
    weights.save(untrained("resnet8"), tmp_path / "small")
    (tmp_path / "photos").mkdir()
    words = ["--criterion", "taylor", "--keep", "0.5", "--data", str(tmp_path / "photos")]
    out = tmp_path / "photos" / "cut"
    assert main(["prune", str(tmp_path / "small"), *words, "--out", str(out)]) == 1
    assert "lies in the data" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("compared", [False, True])
def test_two_prunings_do_not_write_into_one_folder(wide, tmp_path, monkeypatch, compared):
    out, said = tmp_path / "small", []
    module = import_module("leancnn.prune")
    cut = module.cut

    def meanwhile(*given, **named):
        """What another process would do while this one is at work."""
        other = compare if compared else leancnn.prune
        one = {"criteria": ["l1"], "timed": False} if compared else {"criterion": "l1"}
        with pytest.raises(RunError, match=r"in use by process \d+") as refused:
            other(wide, out=out, keep=0.5, progress=False, **one)
        said.append(str(refused.value))
        return cut(*given, **named)

    monkeypatch.setattr(module, "cut", meanwhile)
    leancnn.prune(wide, out=out, criterion="l1", keep=0.5, progress=False)
    assert len(said) == 1
    assert "\n" not in said[0]
    assert not (out / ".prune").exists()
    assert leancnn.prune(wide, out=out, criterion="l1", keep=0.5).folder == out


def test_each_network_is_measured_on_images_of_its_own_size(wide):
    source = source_of(wide, None, weights.load(wide))
    test = _Test(weights.load(wide), source)
    other = untrained("henet_r2")
    other.road = replace(other.road, channels=1, scale=(31, 31))
    gray = weights.build("henet_r2", {}, 3, other.road, seed=0)
    other = weights.Network(
        gray, name="henet_r2", arguments={}, classes=weights.load(wide).classes, road=other.road,
        mean=[0.5], std=[0.5],
    )  # fmt: skip
    assert 0 <= test.accuracy(other) <= 1
    assert {road.channels for road in test.splits} == {1, weights.load(wide).road.channels}
