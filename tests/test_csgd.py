"""C-SGD: clusters are drawn together, and merging what is equal changes no answer."""

import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import leancnn
from leancnn import recipes, runs, weights
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body
from leancnn.criteria import Subject, csgd
from leancnn.errors import MismatchError, RunError
from leancnn.parity import trial_images
from leancnn.prune import cut, plan
from leancnn.recipes import learning_rate
from leancnn.train.centripetal import Centripetal, strength
from leancnn.train.rules import rule_of
from leancnn.train.state import SGD
from tests.few import few
from tests.tiny import RECIPE
from tests.tiny_runs import stopped_at, weights_of

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")


def forbidden(mixed=False):
    raise AssertionError("csgd reads weights alone")


def subject_of(network):
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    return Subject(network.body, dependencies, forbidden)


@torch.no_grad()
def lively(network):
    """Statistics, scales and shifts of norms that do something."""
    random = torch.Generator().manual_seed(2)
    for module in network.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=random)
            nn.init.normal_(module.bias, 0, 0.2, generator=random)
            nn.init.normal_(module.running_mean, 0, 0.2, generator=random)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=random)
    return network


@torch.no_grad()
def collapsed(network, goal):
    """The network with all channels of a cluster made equal, as the training ends; the clusters."""
    keep = plan(network, criterion="csgd", progress=False, **goal)
    subject = subject_of(network)
    clusters = csgd.rule(subject, keep.keep(subject.dependencies))["clusters"]
    for path, several in clusters.items():
        for name, tensor in network.body.get_submodule(path).state_dict().items():
            for cluster in several if tensor.ndim else ():
                tensor[cluster] = tensor[cluster].mean(0, keepdim=True)
                assert name
    return clusters


CASES = [
    ("resnet8", {"keep": 0.5}), ("resnet8", {"macs": 5e6}), ("lbmbnet32_r6", {"keep": 0.5}),
    ("resnet20", {"keep": 0.6}), ("squeezenet1_1", {"keep": 0.7}), ("tiny", {"keep": 0.4}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "goal"), few(CASES, rows=True), ids=str)
def test_merging_equal_channels_changes_no_answer(name, goal):
    network = lively(untrained(name))
    clusters = collapsed(network, goal)
    made = plan(network, criterion="csgd", progress=False, **goal)
    small = cut(network, made, progress=False)
    images = torch.from_numpy(trial_images(network, 2))
    with torch.no_grad():
        whole, answer = network.eval()(images), small.eval()(images)
    gone = sum(layer.before - len(layer.kept) for layer in made.layers)
    assert clusters
    assert gone > 10 * (name != "tiny")
    assert (answer - whole).abs().max() < 1e-4 * whole.abs().max()
    merged = [value for each in made.observed["apart"].values() for value in each if value < 1e-6]
    assert merged, "mergers that lose nothing are told as such"


@torch.no_grad()
def test_without_the_merging_the_same_cut_answers_otherwise():
    network = lively(untrained("resnet8"))
    collapsed(network, {"keep": 0.5})
    keep = plan(network, criterion="csgd", keep=0.5, progress=False).keep(
        subject_of(network).dependencies
    )
    body, _ = cut_body(network.body, subject_of(network).dependencies, keep)
    images = torch.from_numpy(trial_images(network, 2))
    whole = network.eval()(images)
    assert (body(network.normalise(images)) - whole).abs().max() > 0.01 * whole.abs().max()


def test_what_is_alike_merges_first_and_groups_are_left_alone():
    network = untrained("resnet8")
    weight = network.body.get_submodule("blocks.1.conv1").weight
    with torch.no_grad():
        weight[7] = weight[3] * (1 + 1e-6)
    scores = csgd.score(subject_of(network))["blocks.1.conv1"]
    assert scores.argmin() == 7  # the lower number of two stays
    assert sorted(scores) == [place / 32 for place in range(1, 33)]
    with pytest.raises(MismatchError, match="merges no channels of groups"):
        csgd.score(subject_of(untrained("henet_r2")))


def made_plan(clusters, **changes):
    """As much of a plan of a training as the rule reads."""

    return SimpleNamespace(
        rule={"name": "centripetal", "clusters": clusters},
        recipe=recipes.read("resnet-paper").changed(**changes),
        steps=400,
        processes=1,
    )


def test_a_step_gives_a_cluster_the_mean_gradient_and_pulls_it_together():
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5))
    rule = rule_of(made_plan({"0": [[0, 2], [1, 3]], "1": [[0, 2], [1, 3]]}), body)
    assert isinstance(rule, Centripetal)
    before = {name: p.detach().clone() for name, p in body.named_parameters()}
    for p in body.parameters():
        p.grad = torch.randn_like(p)
    given = {name: p.grad.clone() for name, p in body.named_parameters()}
    rule(0, torch.empty(0), torch.empty(0))
    for name, p in body.named_parameters():
        for cluster in ([0, 2], [1, 3], [4]):
            mean = given[name][cluster].mean(0)
            pull = before[name][cluster] - before[name][cluster].mean(0)
            torch.testing.assert_close(p.grad[cluster], mean + rule.epsilon * pull)


def test_clusters_become_equal_and_stay_so_whatever_the_loss_asks():
    torch.manual_seed(3)
    body = nn.Sequential()
    body.add_module("conv", nn.Conv2d(2, 6, 3))
    body.add_module("fc", nn.Linear(6, 3))
    clusters = [[0, 1, 4], [2, 5]]
    plan_of_run = made_plan({"conv": clusters}, lr=0.05, schedule="constant")
    rule, sgd = Centripetal(plan_of_run, body), SGD(body, plan_of_run.recipe)
    conv = body.get_submodule("conv").weight
    for step in range(plan_of_run.steps):
        for p in body.parameters():
            p.grad = torch.randn_like(p)
        rule(step, torch.empty(0), torch.empty(0))
        sgd.step(learning_rate(plan_of_run.recipe, step / plan_of_run.steps))
    for cluster in clusters:
        assert (conv[cluster] - conv[cluster].mean(0)).abs().max() < 1e-5
    assert (conv[0] - conv[2]).abs().max() > 0.1
    assert (conv[0] - conv[3]).abs().max() > 0.1


def test_the_pull_is_the_papers_where_that_has_time_to_work():
    paper = recipes.read("resnet-paper")
    assert strength(paper, 64_000) == 0.003
    rates = sum(learning_rate(paper, step / 500) for step in range(500))
    falls = strength(paper, 500) * rates / (1 - paper.momentum)
    assert math.isclose(falls, 20)


@pytest.mark.long
def test_clusters_close_however_much_gradients_are_clipped(quiet, tmp_path):
    recipe = RECIPE.changed(epochs=40, ema=0, batch=4, lr=0.02, clip=1e-6)
    words = {"criterion": "csgd", "finetune": recipe, "keep": 0.5, "progress": False}
    leancnn.prune(quiet, out=tmp_path / "small", **words)
    trained = weights.load(tmp_path / "small" / "before", "last")
    small = weights.load(tmp_path / "small" / "cut")
    images = torch.from_numpy(trial_images(trained, 4))
    with torch.no_grad():
        whole, answer = trained.eval()(images), small.eval()(images)
    assert (answer - whole).abs().max() < 1e-3 * whole.abs().max()


def test_times_choose_no_cut(quiet):
    with pytest.raises(MismatchError, match="csgd trains for one cut"):
        plan(weights.load(quiet), criterion="csgd", speedup=2.0, progress=False)


@pytest.mark.long
def test_pruning_trains_first_and_then_loses_nothing(quiet, pictures, tmp_path):
    recipe = RECIPE.changed(epochs=40, ema=0, batch=4, lr=0.02)
    out = tmp_path / "small"
    words = {"criterion": "csgd", "finetune": recipe, "keep": 0.5, "progress": False}
    pruned = leancnn.prune(quiet, out=out, **words)
    trained, small = weights.load(out / "before", "last"), weights.load(out / "cut")
    images = torch.from_numpy(trial_images(trained, 4))
    with torch.no_grad():
        whole, answer = trained.eval()(images), small.eval()(images)
    assert (answer - whole).abs().max() < 1e-3 * whole.abs().max()
    assert pruned.network.epochs == RECIPE.epochs + 40  # half before the cut and half after it
    run = runs.read_run(out / "before")["plan"]
    assert run["rule"]["name"] == "centripetal"
    assert run["recipe"]["epochs"] == 20
    again = leancnn.prune(quiet, out=out, **words)
    assert weights.digest(again.network) == weights.digest(pruned.network)
    shutil.rmtree(out / "cut")
    with pytest.raises(RunError, match="another pruning"):
        leancnn.prune(quiet, out=out, **{**words, "keep": 0.25})
    with pytest.raises(RunError, match="another pruning"):
        leancnn.prune(quiet, out=out, **words, within=["conv1"])
    with pytest.raises(RunError, match="holds something else"):
        leancnn.prune(quiet, out=quiet, **words)


def test_a_training_before_a_cut_goes_on_to_the_same_bits(quiet, tmp_path):
    recipe = RECIPE.changed(epochs=4, batch=32)
    words = {"criterion": "csgd", "finetune": recipe, "keep": 0.5, "progress": False}
    with stopped_at(3):
        leancnn.prune(quiet, out=tmp_path / "stopped", **words)
    for name in ("stopped", "once"):
        leancnn.prune(quiet, out=tmp_path / name, **words)
    both = [weights_of(tmp_path / name / "before") for name in ("stopped", "once")]
    assert both[0] == both[1]
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "once")


def test_without_a_recipe_it_merges_what_there_is(quiet, tmp_path):
    pruned = leancnn.prune(
        quiet, out=tmp_path / "merged", criterion="csgd", keep=0.75, progress=False
    )
    assert pruned.trained is None
    assert not (tmp_path / "merged" / "before").exists()
    assert np.isfinite(pruned.plans[0].layers[0].importance).all()
