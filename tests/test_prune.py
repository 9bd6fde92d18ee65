"""Pruning: which channels hang together, that a cut is exact, and what the command does."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from leancnn import weights
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.count import count
from leancnn.errors import (
    DamagedError,
    MismatchError,
    RunError,
    UnknownNameError,
    UnsupportedError,
    UsageError,
)
from leancnn.fit import CODE, needs
from leancnn.prune import PruningPlan, latency
from leancnn.prune import cut as cut_network
from leancnn.prune import plan as make_plan
from leancnn.prune.baselines import baseline_start
from leancnn.prune.budget import Candidates
from tests import tiny  # noqa: F401 - the network of that name
from tests.few import few


@pytest.mark.parametrize("goal", few([{"macs": 5e6}, {"bytes": 120_000}, {"keep": 0.6}]))
def test_a_plan_keeps_its_budget_survives_json_and_a_cut_survives_the_disk(goal, tmp_path):
    net = untrained("resnet8")
    plan = make_plan(net, criterion="l1", **goal)
    assert PruningPlan.of_json(json.loads(json.dumps(plan.to_json()))) == plan
    for layer in plan.layers:
        gone = set(range(layer.before)) - set(layer.kept)
        assert len(layer.importance) == layer.before
        assert min(layer.importance[i] for i in layer.kept) >= max(
            layer.importance[i] for i in gone
        )
    for key in ("macs", "bytes"):
        assert plan.after[key] <= goal.get(key, plan.before[key])
        assert plan.after[key] > 0.8 * goal.get(key, 0)
    small = cut_network(net, plan)
    cost = count(small.body, (3, 32, 32))
    assert (cost.trainable, cost.macs) == (plan.after["trainable"], plan.after["macs"])
    weights.save(small, tmp_path / "small")
    back = weights.load(tmp_path / "small")
    x = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(back(x), small(x))
    twice = cut_network(back, make_plan(back, criterion="l1", keep=0.5))
    assert count(twice.body, (3, 32, 32)).macs < cost.macs
    weights.save(twice, tmp_path / "twice")
    with torch.no_grad():
        assert torch.equal(weights.load(tmp_path / "twice")(x), twice(x))


@pytest.mark.parametrize(
    ("wanted", "share"),
    few([pytest.param("flash", 0.5, marks=pytest.mark.slow), ("ram", 0.93)], rows=True),
)
def test_the_c_of_a_cut_keeps_the_memory_it_was_given(wanted, share):
    net = untrained("tiny")
    whole = needs(net)
    most = share * (getattr(whole, wanted) - CODE * (wanted == "flash")) + CODE * (
        wanted == "flash"
    )
    plan = make_plan(net, criterion="l1", progress=False, **{wanted: most})
    small = needs(cut_network(net, plan))
    assert small._asdict() == {key: plan.after[key] for key in ("flash", "ram")}
    assert whole._asdict() == {key: plan.before[key] for key in ("flash", "ram")}
    assert 0.7 * most < getattr(small, wanted) <= most
    assert wanted in plan.text()
    with pytest.raises(
        MismatchError, match=r"their C needs [\d,]+ bytes of flash and [\d,]+ of RAM"
    ):
        make_plan(net, criterion="l1", progress=False, **{wanted: 100})


@pytest.mark.parametrize(("goal", "error", "words"), [
    ({}, UsageError, "name one goal"),
    ({"keep": 0.5, "macs": 1e6}, UsageError, "name one goal"),
    ({"keep": 1.5}, MismatchError, "share of channels"),
    ({"keep": 1.0}, MismatchError, "share of channels"),
    ({"macs": 10}, MismatchError, "leave 52,170 MACs"),
    ({"macs": 1e9}, MismatchError, r"macs 1e\+09 leaves resnet8 as it is"),
    ({"keep": 0.999}, MismatchError, "nothing to cut"),
    ({"keep": float("nan")}, MismatchError, "finite number above 0"),
    ({"expansion": 3}, MismatchError, "has no expansion"),
])  # fmt: skip
def test_a_goal_that_cannot_be_is_refused_with_what_can(goal, error, words):
    with pytest.raises(error, match=words):
        make_plan(untrained("resnet8"), criterion="l1", **goal)


@pytest.mark.parametrize(
    ("goal", "asked"), few([({"keep": 0.7}, 17), ({"macs": 3.9e6}, r"\d+")], rows=True)
)
def test_a_plan_says_where_groups_did_not_allow_what_was_asked(goal, asked):
    plan = make_plan(untrained("henet_r2"), criterion="l1", **goal)
    told = rf"conv1 keeps \d+ of 24, not {asked}; its groups allow 12, 24"
    assert [note for note in plan.warnings if re.fullmatch(told, note)], plan.warnings
    (solid,) = (
        note for note in plan.warnings if note.startswith("groups and shuffles allow no cut")
    )
    assert "stages.0.blocks.0.mix" in solid
    assert all(note in plan.text() for note in plan.warnings)


def test_a_wider_expansion_and_a_foreign_plan_are_refused():
    wide = untrained("lbmbnet32_r6")
    with pytest.raises(MismatchError, match="would grow"):
        make_plan(wide, criterion="l1", expansion=7)
    with pytest.raises(UnknownNameError, match="did you mean 'l1'"):
        make_plan(wide, criterion="l11", expansion=3)
    other = make_plan(untrained("resnet8"), criterion="l1", keep=0.5)
    with pytest.raises(MismatchError, match="not for this network"):
        cut_network(wide, other)


def test_a_budget_below_a_sixteenth_of_the_channels_is_kept():
    net = untrained("nvmnet_g4")
    dependencies = find_dependencies(net.body, 3)
    channel_group = "modules_and_pools.4.expand1"
    found = {channel_group: np.arange(128.0)}
    maker = Candidates(net, dependencies, found, {channel_group})
    least = int(maker.keep(1 / 256).sum())
    kept, share = maker.filled(lambda keep: int(keep.sum()) <= least)
    assert int(kept.sum()) == least
    assert share < 1 / 16


def test_a_baseline_leaves_the_pruned_network_to_the_next():
    small = untrained("lbmbnet32_r6")
    before = {key: tensor.clone() for key, tensor in small.body.state_dict().items()}
    drawn, _, _ = baseline_start("random_kernels", small, 5)
    fresh, _, _ = baseline_start("kept_kernels", small, 5)
    for key, tensor in small.body.state_dict().items():
        assert torch.equal(tensor, before[key])
    key = "blocks.0.depthwise.weight"
    assert not torch.equal(drawn.body.state_dict()[key], before[key])
    assert torch.equal(fresh.body.state_dict()[key], before[key])


def test_a_speed_is_measured_once_for_each_shape(monkeypatch):
    asked = []

    class Unsteady:
        """A clock by which the same shape is never as fast again."""

        def __init__(self, network):
            self.whole, self.microseconds = count(network.body, (3, 32, 32)).macs, 100.0

        def ratio(self, body):
            macs = count(body, (3, 32, 32)).macs
            asked.append(macs)
            return self.whole / macs * (1 if asked.count(macs) == 1 else 0.9)

    monkeypatch.setattr(latency, "Clock", Unsteady)
    steps = {"blocks.1.conv1": 16, "blocks.2.conv1": 16}
    monkeypatch.setattr(latency, "channel_multiples", lambda _, dependencies: dict.fromkeys(
        (one.name for one in dependencies.channel_groups), 4) | steps)  # fmt: skip
    plan = make_plan(untrained("resnet8"), criterion="l1", speedup=2)
    assert plan.before["macs"] / 4 < plan.after["macs"] <= plan.before["macs"] / 2
    assert plan.microseconds[0] / plan.microseconds[1] >= 2, "measured anew"
    assert max(map(asked.count, asked)) == 2
    for layer in plan.layers:
        assert len(layer.kept) % steps.get(layer.path, 4) == 0
    assert "multiples of 4 channels" in plan.warnings[0]
    assert (
        "and of 16 in 2 of 6 channel groups, where they lie side by side: "
        f"{plan.after['macs']:,} MACs"
    ) in plan.warnings[0]


def test_a_width_is_the_nearest_multiple_and_the_whole_is_one():
    net = untrained("resnet8")
    dependencies = find_dependencies(net.body, 3)
    maker = Candidates(net, dependencies, {"blocks.2.conv1": np.arange(64.0)}, {"blocks.2.conv1"})
    row = dependencies.writes["blocks.2.conv1"]
    for step in (4, 16):
        for share in np.linspace(1 / 64, 1, 64):
            kept = int(maker.keep(share, {"blocks.2.conv1": step})[row].sum())
            assert kept % step == 0 or kept < step
            assert abs(kept - share * 64) <= step / 2
    whole = maker.keep(1.0, {"blocks.2.conv1": 24})
    assert whole.all()
    assert not maker.warnings(whole, 1.0, {"blocks.2.conv1": 24})


def test_what_cannot_be_timed_is_pruned_all_the_same(monkeypatch):
    monkeypatch.setattr(latency, "LARGEST", 1000)
    plan = make_plan(untrained("resnet8"), criterion="l1", keep=0.5, timed=True)
    assert plan.microseconds is None
    assert plan.warnings[-1].startswith(
        "not timed: resnet8 has 312,744 bytes of weights; above 1,000"
    )
    with pytest.raises(UnsupportedError, match="bytes of weights"):
        make_plan(untrained("resnet8"), criterion="l1", speedup=2)


def test_reconstruction_draws_its_pixels_by_the_seed_of_the_plan(monkeypatch):
    asked = []

    def subject_of(*_, seed, **__):
        asked.append(seed)
        raise RunError("so far and no further")

    monkeypatch.setattr(sys.modules["leancnn.prune.run"], "subject_of", subject_of)
    net = untrained("resnet8")
    plan = make_plan(net, criterion="l1", keep=0.5, seed=7)
    with pytest.raises(RunError, match="so far"):
        cut_network(net, replace(plan, criterion="reconstruction", reconstructed=True))
    assert asked == [7]


@pytest.mark.parametrize("name", ["resnet8", "henet_r2"])
def test_weights_that_are_no_numbers_are_not_scored(name):
    net = untrained(name)
    net.body.conv1.weight.data[0] = float("nan")
    with pytest.raises(MismatchError, match="scores of conv1 are no numbers"):
        make_plan(net, criterion="l1", keep=0.5)


@pytest.mark.long
def test_the_least_is_one_channel_of_every_layer():
    net = untrained("mobilenetv2")
    one = make_plan(net, criterion="l1", keep=1e-9)
    same = make_plan(net, criterion="l1", macs=one.after["macs"])
    assert same.after == one.after
    with pytest.raises(MismatchError, match=f"leave {one.after['macs']:,} MACs"):
        make_plan(net, criterion="l1", macs=one.after["macs"] - 1)


@pytest.mark.parametrize("change", [
    lambda p: p.pop("layers"), lambda p: p.update(layers=None), lambda p: p.pop("reconstructed"),
    lambda p: p.update(new=1), lambda p: p["layers"][0].update(kept=3),
])  # fmt: skip
def test_a_damaged_plan_is_said_to_be(change):
    value = make_plan(untrained("resnet8"), criterion="l1", keep=0.5).to_json()
    change(value)
    with pytest.raises(DamagedError, match=r"is not what leancnn writes|no plan of this version"):
        PruningPlan.of_json(value)
