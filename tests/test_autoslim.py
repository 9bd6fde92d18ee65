"""AutoSlim: slices are the networks that a cut leaves, the rule adds theirs, the budget is kept."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import leancnn
from leancnn import criteria, runs, weights
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body
from leancnn.count import count
from leancnn.criteria import Subject, autoslim
from leancnn.errors import MismatchError
from leancnn.prune import plan
from leancnn.prune.budget import Candidates
from leancnn.prune.shares import Trials
from leancnn.train.rules import rule_of
from leancnn.train.sandwich import Sandwich, whole_statistics
from leancnn.training_data import training_images
from tests.few import few
from tests.tiny import RECIPE
from tests.tiny_cuts import assert_one_channel_more_costs_more
from tests.tiny_runs import stopped_at, weights_of

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")


def subject_of(network):
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    return Subject(network.body, dependencies, lambda mixed=False: iter(()))


def sandwich(network, seed=0):
    subject = subject_of(network)
    rule = autoslim.rule(subject, np.ones(subject.dependencies.coupled_count, bool))
    made = SimpleNamespace(rule=rule, seed=seed, processes=1, preprocessing=network.preprocessing)
    return rule_of(made, network.body)


def images_and_labels(number=6, size=32):
    random = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 10, (number,), generator=random)
    return torch.randn(number, 3, size, size, generator=random), labels


@pytest.mark.parametrize("name", few(["resnet8", "resnet20", "lbmbnet32_r6"]))
def test_a_step_adds_the_gradients_of_the_networks_that_cuts_would_leave(name):
    network = untrained(name)
    body, rule = network.body.train(), sandwich(network)
    for module in body.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, labels = images_and_labels()
    logits = body(images)
    aims = logits.detach().softmax(1)
    F.cross_entropy(logits, labels).backward()
    whole = {name: p.grad.clone() for name, p in body.named_parameters()}
    statistics = {name: b.clone() for name, b in body.named_buffers()}
    rule(7, images, logits.detach())
    for key, buffer in body.named_buffers():
        assert torch.equal(buffer, statistics[key]), key
    added = (body.fc.bias.grad - whole["fc.bias"]).clone()
    first = next(iter(body.parameters()))
    change = first.grad - whole[next(iter(whole))]
    expected, expected_first = torch.zeros_like(added), torch.zeros_like(change)
    dependencies = subject_of(network).dependencies
    for keep in rule.widths(7):
        small, _ = cut_body(body, dependencies, keep)
        with whole_statistics(small):
            answers = small(images)
        (-(aims * F.log_softmax(answers, 1)).sum(1).mean()).backward()
        expected += small.fc.bias.grad
        rows = torch.from_numpy(np.flatnonzero(keep[next(iter(dependencies.writes.values()))]))
        expected_first[rows] += next(iter(small.parameters())).grad
    torch.testing.assert_close(added, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(change, expected_first, rtol=1e-2, atol=1e-3)


def test_widths_are_a_function_of_seed_and_step_and_the_smallest_is_among_them():
    network = untrained("resnet8")
    one, same, other = sandwich(network), sandwich(network), sandwich(network, seed=1)
    assert isinstance(one, Sandwich)
    for step in (0, 5):
        assert all(map(np.array_equal, one.widths(step), same.widths(step)))
        assert np.array_equal(one.widths(step)[0], other.widths(step)[0])
        assert not np.array_equal(one.widths(step)[1], other.widths(step)[1])
    assert one.widths(0)[0].sum() < min(keep.sum() for keep in one.widths(0)[1:])


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "lbmbnet32_r6", "squeezenet1_1"])
def test_multiply_accumulates_of_trials_are_those_that_are_counted(name):
    network = untrained(name)
    dependencies = find_dependencies(network.body, 3)
    scores = criteria.get("l1").score(subject_of(network))
    cuts = Candidates(network, dependencies, scores)
    trials = Trials(cuts, "macs", 1.0, lambda mixed=False: iter(()))
    random = np.random.default_rng(1)
    for _ in range(2):
        keep = trials.keep({name: float(random.uniform(0.2, 1)) for name in trials.names})
        assert trials.macs(keep) == cuts.cost(keep).macs


def test_slimming_keeps_the_budget_to_a_channel_and_spares_what_matters(quiet):
    network = weights.load(quiet)
    with torch.no_grad():  # the second half of the map changes nothing
        network.body.conv.weight[4:] = 0
        network.body.bn.weight[4:] = 0
        network.body.bn.bias[4:] = 0
    images = training_images(quiet, None, network)
    most = 0.6 * count(network.body, (3, 8, 8)).macs
    found = plan(network, criterion="autoslim", images=images, macs=most, progress=False)
    again = plan(network, criterion="autoslim", images=images, macs=most, progress=False)
    assert found == again
    assert 0 < found.after["macs"] <= most
    shares = found.observed["shares"]
    assert shares["conv"] <= 0.5 < shares["hidden"]
    assert_one_channel_more_costs_more(network, found, most)


@pytest.mark.parametrize(("goal", "words"), [
    ({"macs": 200.0}, "cannot be cut"), ({"macs": 800.0}, "leaves at least 0.25"),
    ({"flash": 60_000.0}, "under a budget: macs, bytes, or keep"),
])  # fmt: skip
def test_a_budget_out_of_reach_is_refused(quiet, goal, words):
    network = weights.load(quiet)
    images = training_images(quiet, None, network)
    with pytest.raises(MismatchError, match=words):
        plan(network, criterion="autoslim", images=images, progress=False, **goal)


def test_a_share_below_the_least_is_refused_before_it_is_trained_for(quiet, tmp_path):
    words = {"criterion": "autoslim", "finetune": RECIPE, "keep": 0.1, "progress": False}
    with pytest.raises(MismatchError, match=r"leaves at least 0\.25"):
        leancnn.prune(quiet, out=tmp_path / "small", **words)
    assert not list(tmp_path.rglob("last"))


def test_pruning_trains_at_many_widths_first_and_goes_on_to_the_same_bits(quiet, tmp_path):
    recipe = RECIPE.changed(epochs=4, batch=32)
    words = {"criterion": "autoslim", "finetune": recipe, "keep": 0.6, "progress": False}
    with stopped_at(3):
        leancnn.prune(quiet, out=tmp_path / "stopped", **words)
    for name in ("stopped", "once"):
        leancnn.prune(quiet, out=tmp_path / name, **words)
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "once")
    rule = runs.read_run(tmp_path / "once" / "before")["plan"]["rule"]
    assert rule["name"] == "sandwich"


def test_a_narrow_pass_compiles_no_graph(monkeypatch):
    """torch keeps the source of every graph that it compiles, for good."""
    network = untrained("resnet8")
    rule = sandwich(network)
    images = torch.randn(2, 3, 32, 32)
    logits = network.body.train()(images)
    monkeypatch.setattr(torch.fx, "GraphModule", None)
    rule(0, images, logits.detach())
