"""What is compared with what: epochs that count, baselines that cost no more, the device."""

import shutil
from dataclasses import replace
from importlib import import_module

import pytest
import torch

import leancnn
from leancnn import distributed, models, recipes, runs, weights
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.count import count
from leancnn.errors import DivergedError, MismatchError, RunError
from leancnn.held_out import HeldOut
from leancnn.preprocess import Preprocessing
from leancnn.prune.baselines import baseline_start
from leancnn.prune.compare import _baseline_recipe, _epochs, _recipe, compare
from leancnn.prune.importance import scored
from leancnn.train import train
from leancnn.train.plan import TrainingPlan
from leancnn.training_data import TrainingImages, preprocessing_for
from tests.few import few
from tests.tiny import RECIPE as TINY
from tests.tiny import make_pictures
from tests.tiny_runs import stopped_at

RECIPE = TINY.changed(epochs=0.5, size=(8, 8))


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A run of a network that can be cut; no pictures are drawn."""
    out = tmp_path_factory.mktemp("comparison") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("leancnn.train.loop"), "training_curve", lambda epochs: b"")
        patch.setattr(import_module("leancnn.prune.compare"), "pruning_picture", lambda lines: b"")
        train(pictures, model="resnet8", recipe=RECIPE, out=out, progress=False)
        yield out


@pytest.fixture
def whole(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.long
def test_a_baseline_trains_as_long_as_all_that_led_to_the_pruned_network(
    trained, pictures, tmp_path
):
    small, again = tmp_path / "small", tmp_path / "again"
    longer = RECIPE.changed(epochs=1)
    leancnn.prune(trained, out=small, criterion="l1", keep=0.8, finetune=longer, progress=False)
    assert (_epochs(trained), _epochs(small)) == (0.5, 1.5)
    found = compare(
        small, out=tmp_path / "cmp", criteria=["l1"], keep=0.8, timed=False, progress=False,
        finetune=RECIPE,
    )  # fmt: skip
    rows = [(row.label, row.epochs) for row in found.rows]
    assert rows == [("whole", 1.5), ("l1", 2), ("scratch", 2)]
    baseline = recipes.of_json(runs.read_json(tmp_path / "cmp" / "scratch-seed0" / "recipe.json"))
    assert baseline.epochs == 2
    assert weights.load(tmp_path / "cmp" / "l1-seed0").epochs == 2
    train(pictures, start=small, recipe=RECIPE, out=again, progress=False)
    assert _epochs(again) == 2


def test_a_training_that_was_stopped_counts_as_far_as_it_came(pictures, tmp_path):
    with stopped_at(6):
        train(pictures, recipe=TINY, out=tmp_path / "run", progress=False)
    plan = TrainingPlan.of_json(runs.read_json(tmp_path / "run" / "run.json")["plan"])
    assert plan.steps_per_epoch < 6 < 2 * plan.steps_per_epoch
    assert _epochs(tmp_path / "run") == 1


def test_what_is_named_twice_is_compared_once(whole, tmp_path):
    found = compare(
        whole, out=tmp_path / "cmp", criteria=["l1", "l1"], baselines=["scratch", "scratch"],
        keep=0.5, timed=False, progress=False,
    )  # fmt: skip
    assert [row.label for row in found.rows] == ["whole", "l1", "scratch"]


def test_a_goal_out_of_reach_is_refused_before_the_test_part_is_opened(whole, tmp_path):
    with pytest.raises(MismatchError, match="MACs"):
        compare(
            whole, out=tmp_path / "cmp", criteria=["l1"], baselines=(), macs=1, timed=False,
            progress=False,
        )  # fmt: skip
    assert not runs.evaluations(whole)
    compare(
        whole, out=tmp_path / "cmp", criteria=["l1"], baselines=(), keep=0.8, timed=False,
        progress=False,
    )  # fmt: skip
    assert len(runs.evaluations(whole)) == 1


def test_networks_of_older_versions_know_their_epoch_at_least():
    network = untrained("resnet8")
    assert network.epochs == 0
    network.made = {"cut from": {"cut from": {"epoch": 3}, "plan": {}}, "plan": {}}
    assert network.epochs == 3


@pytest.mark.parametrize(("name", "size", "channels", "baseline"), few([
    ("resnet8", 32, 3, "shufflenetv2_x0_5"),
    ("resnet8", 24, 3, "shufflenetv2_x0_5"),
    ("henet_r4", 40, 1, "shufflenet_r4"),
], rows=True))  # fmt: skip
def test_there_is_a_smaller_model_at_the_size_that_a_run_was_trained_at(
    name, size, channels, baseline
):
    network = untrained(name)
    network.preprocessing = Preprocessing(size=(size, size), channels=channels, scale=(size, size))
    network.body = models.create_model(name, channels=channels)
    assert baseline_start("smaller_model", network, 0) == (None, baseline, {})
    image = (channels, size, size)
    own, others = (
        count(models.create_model(one, channels=channels), image).macs for one in (name, baseline)
    )
    assert others <= own


def test_a_network_that_costs_nearly_nothing_has_no_smaller_model():
    network = untrained("resnet8")
    network.body = torch.nn.Conv2d(3, 1, 1)
    with pytest.raises(MismatchError, match="no network for images of 32×32 costs so little"):
        baseline_start("smaller_model", network, 0)


def test_baselines_take_the_images_of_the_whole_network():
    recipe = TINY.changed(scale=None)  # it knows nothing of how the whole network was trained
    preprocessing = Preprocessing(size=(16, 12), channels=1, scale=(20, 20), fit="contain")
    for baseline, model in (("scratch", "tiny"), ("smaller_model", "resnet8")):
        assert (
            preprocessing_for(model, _baseline_recipe(baseline, model, recipe, preprocessing))
            == preprocessing
        )
    named = preprocessing_for(
        "henet_r2", _baseline_recipe("henet_r2", "henet_r2", recipe, preprocessing)
    )
    assert (named.size, named.channels, named.fit) == ((31, 31), 1, "contain")
    assert _baseline_recipe("kept_kernels", None, recipe, preprocessing) is recipe
    begun = _baseline_recipe("scratch", "tiny", recipe, preprocessing_for("tiny", recipe))
    assert begun is recipe, "a comparison that was begun goes on"


def test_the_device_is_the_first_gpu_or_that_of_this_process_else_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.own_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for rank, place in ((None, 0), ("1", 1), ("2", 0)):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if rank is not None:
            monkeypatch.setenv("LOCAL_RANK", rank)
        assert distributed.own_device() == torch.device("cuda", place)
        assert distributed.join().device == chosen[-1] == torch.device("cuda", place)


def test_scoring_testing_and_comparing_are_done_where_training_is(
    whole, pictures, tmp_path, monkeypatch
):
    gpu, asked = torch.device("cuda", 0), []

    def on(network, device):
        """The copy stays on the processor: there need not be a GPU here."""
        asked.append(device)
        return network

    monkeypatch.setattr(weights.Network, "on", on)
    for module in ("prune.importance", "evaluate"):
        monkeypatch.setattr(import_module(f"leancnn.{module}"), "own_device", lambda: gpu)
    network = weights.load(whole)
    for criterion in ("taylor", "reconstruction"):
        scored(
            network,
            find_dependencies(network.body, 3),
            criterion,
            TrainingImages(str(pictures)),
            progress=False,
        )
    assert asked == [gpu, gpu]
    leancnn.evaluate(whole)
    assert asked == [gpu] * 3
    compare(
        whole, out=tmp_path / "cmp", criteria=["l1"], keep=0.5, timed=False, progress=False,
        baselines=[],
    )  # fmt: skip
    assert asked == [gpu] * 6, "whole, cut, trained again"


def test_a_network_is_where_it_is_or_copied():
    network = untrained("resnet8")
    assert network.on(torch.device("cpu")) is network
    elsewhere = network.on(torch.device("meta"))
    assert elsewhere.scale.is_meta
    assert all(p.is_meta for p in elsewhere.body.parameters())
    assert not any(p.is_meta for p in network.body.parameters())


def test_other_images_than_those_of_the_run_are_refused(whole, tmp_path, monkeypatch):
    make_pictures(tmp_path / "fewer", each=16)
    monkeypatch.setattr(HeldOut, "recut", lambda *_: False)
    with pytest.raises(RunError, match="the images changed"):
        compare(
            whole, out=tmp_path / "cmp", data=tmp_path / "fewer", criteria=["l1"], keep=0.5,
            timed=False, progress=False,
        )  # fmt: skip
    assert not runs.evaluations(whole)


def test_one_precision_for_all_and_no_penalty_after_the_cut(whole):
    begun = TrainingPlan.of_json(runs.read_json(whole / "run.json")["plan"])
    begun = replace(begun, precision="bf16", recipe=RECIPE.changed(precision="auto", bn_l1=1e-4))
    recipe = _recipe(begun, None, {})
    assert (recipe.precision, recipe.bn_l1) == ("bf16", 0)
    assert _recipe(begun, None, {"bn_l1": 1e-3, "precision": "fp32"}).bn_l1 == 1e-3
    assert _recipe(begun, begun.recipe, {"precision": "fp32"}).precision == "fp32"
    assert _recipe(begun, begun.recipe, {}).bn_l1 == 1e-4, "asked for by name"


def test_baselines_are_of_the_first_criterion_also_where_its_training_diverged(
    whole, tmp_path, monkeypatch
):
    module = import_module("leancnn.prune.compare")
    prune = module.prune_network

    def diverges(network, request, *rest, **options):
        found = prune(network, request, *rest, **options)
        if request.criterion == "l1":
            raise DivergedError("the loss is not finite")
        return found

    monkeypatch.setattr(module, "prune_network", diverges)
    found = compare(
        whole, out=tmp_path / "cmp", criteria=["l1"], keep=0.5, timed=False, progress=False
    )
    assert [row.label for row in found.rows] == ["whole", "scratch"]
    assert found.rows[1].trainable < found.rows[0].trainable
    assert found.left_out == ("l1, seed 0: the loss is not finite",)


def test_a_named_baseline_takes_its_own_size_where_the_run_had_another(tmp_path):
    recipe = RECIPE.changed(size=(48, 48), scale=(52, 52))
    preprocessing = Preprocessing(size=(48, 48), scale=(52, 52))
    named = preprocessing_for(
        "resnet20", _baseline_recipe("resnet20", "resnet20", recipe, preprocessing)
    )
    assert (named.size, named.scale) == ((32, 32), (32, 32))
    same = TINY.changed(size=None, scale=(36, 36))
    kept = preprocessing_for(
        "resnet20", _baseline_recipe("resnet20", "resnet20", same, Preprocessing(size=(32, 32)))
    )
    assert kept.scale == (36, 36), "a margin to crop from"


def test_a_cut_and_a_cut_that_is_trained_again_are_not_taken_for_each_other(whole, tmp_path):
    once, again = tmp_path / "once", tmp_path / "again"
    leancnn.prune(whole, out=once, criterion="l1", keep=0.5, progress=False)
    with pytest.raises(RunError, match="leancnn train DATA --init-from"):
        leancnn.prune(whole, out=once, criterion="l1", keep=0.5, finetune=RECIPE, progress=False)
    leancnn.prune(whole, out=again, criterion="l1", keep=0.5, finetune=RECIPE, progress=False)
    with pytest.raises(RunError, match=r"trained again after the cut, which is .*cut;"):
        leancnn.prune(whole, out=again, criterion="l1", keep=0.5, progress=False)


def test_a_retraining_on_other_images_is_not_taken_for_this_one(whole, tmp_path):
    make_pictures(tmp_path / "fewer", each=16)
    same = {"out": tmp_path / "small", "criterion": "l1", "keep": 0.5, "finetune": RECIPE}
    leancnn.prune(whole, **same, progress=False)
    with pytest.raises(RunError, match="was trained on other images"):
        leancnn.prune(whole, **same, data=tmp_path / "fewer", progress=False)
