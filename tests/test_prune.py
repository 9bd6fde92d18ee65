"""Pruning: which channels hang together, that a cut is exact, and what the command does."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn import models, weights
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body, silence
from leancnn.channels.select import best, legal
from leancnn.channels.sizes import reshape, widths_of
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
from leancnn.prune.baselines import control_start
from leancnn.prune.budget import Candidates
from tests import tiny  # noqa: F401 - the network of that name

LARGE = {"alexnet", "vgg16"}  # hundreds of MB: in the slow tests
SMALLER = {  # the same blocks, fewer of them
    "lbmbnet59": {"repeats": 2, "expansion": 2},
    "lbmbnet32": {"repeats": 2, "expansion": 2},
    "resnetv2": {"repeats": 2},
}


def arguments(name):
    return SMALLER.get(name.split("_")[0], {})


def body(name, **changes):
    """A network whose norms do something, in double precision."""
    net = models.create_model(name, seed=0, classes=5, **arguments(name), **changes).eval()
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return net if name in LARGE else net.double()


def images(name, net):
    card = models.card(name)
    side = card.image[1] if card.image[1] < 64 else max(card.smallest, 64)
    generator = torch.Generator().manual_seed(2)
    dtype = next(net.parameters()).dtype
    return torch.randn(2, 3, side, side, generator=generator, dtype=dtype)


def kept(dependencies, share, seed=0):
    """Units that stay when every family is cut to a share of its channels."""
    generator = np.random.default_rng(seed)
    keep = np.ones(dependencies.units, bool)
    for channel_group in dependencies.channel_groups:
        most = {
            path: max(1, round(share * len(dependencies.writes[path])))
            for path in channel_group.layers
        }
        keep[channel_group.units] = best(
            channel_group, dependencies, generator.random(len(channel_group.units)), most
        )
    return keep


def check_cut(name, share):
    net = body(name)
    x, dependencies = images(name, net), find_dependencies(net, 3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    keep = kept(dependencies, share)
    small, widths = cut_body(net, dependencies, keep)
    with torch.no_grad():
        features = small.features(x)
        found, expected, whole = small.fc(features), silence(net, dependencies, keep).run(x), net(x)
    assert small.fc.in_features == features.shape[1], "the centre loss asks for it"
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= (1e-5 if name in LARGE else 1e-12) * scale
    assert (whole - expected).abs().max() > 1e-3 * scale, "nothing was cut"
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key]), f"{key} of the whole network changed"
    again = models.create_model(name, seed=3, classes=5, **arguments(name))
    reshape(again, widths)
    assert widths_of(again) == widths_of(small)
    again.to(x.dtype).load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x), found)


FAMILIES = {  # one of each kind in the quick tests
    "henet_r2", "shufflenet_r2", "lbmbnet32_r6", "nvmnet_g4", "rsenet", "resnet20", "resnetv2_56",
    "mobilenetv3_small", "shufflenetv2_x0_5", "squeezenet1_1", "resnet8", "mobilenetv2",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_cut_network_is_the_whole_one_with_those_channels_silent(name):
    check_cut(name, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.25, 0.8])
@pytest.mark.parametrize("name", models.names())
def test_a_cut_of_every_network_is_exact(name, share):
    check_cut(name, share)


@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_every_balance_holds_whatever_is_asked(share, seed):
    dependencies = find_dependencies(models.create_model("henet_r2", repeat=1), 3)
    keep = kept(dependencies, share, seed)
    for channel_group in dependencies.channel_groups:
        for equal_split in channel_group.equal_splits:
            assert len({int(keep[block].sum()) for block in equal_split.blocks}) == 1
    assert int(keep[dependencies.writes["conv1"]].sum()) in (12, 24)


@pytest.mark.parametrize("name", ["resnet20", "shufflenetv2_x0_5"])
def test_every_channel_has_a_unit_those_of_padding_too(name):
    dependencies = find_dependencies(models.create_model(name), 3)
    rows = [
        *dependencies.rows.values(),
        *dependencies.reads.values(),
        *dependencies.writes.values(),
    ]
    assert set(np.concatenate(rows).tolist()) == set(range(dependencies.units))


@pytest.mark.parametrize(("name", "path", "numbers"), [
    ("henet_r2", "conv1", [12, 24]),
    ("henet_r2", "stages.0.blocks.0.mix", [24]),
    ("resnet8", "conv1", list(range(1, 17))),
])  # fmt: skip
def test_the_legal_numbers_are_those_that_groups_allow(name, path, numbers):
    dependencies = find_dependencies(models.create_model(name), 3)
    assert legal(dependencies.family_of(path), dependencies) == numbers


def test_among_equal_numbers_the_worthiest_channels_stay():
    dependencies = find_dependencies(models.create_model("resnet8"), 3)
    channel_group = dependencies.family_of("blocks.0.conv1")
    worth = np.arange(16.0)[::-1] % 7
    stay = best(channel_group, dependencies, worth, {"blocks.0.conv1": 5})
    assert stay.sum() == 5
    assert worth[stay].min() >= worth[~stay].max()


@pytest.mark.parametrize("kept_expansion", [2, 3])
def test_lbmbnet_cut_to_an_expansion_is_the_network_of_that_expansion(kept_expansion):
    net = untrained("lbmbnet32_r6")
    plan = make_plan(net, criterion="l1", expansion=kept_expansion)
    assert plan.after["trainable"] == 508_688 * kept_expansion + 142_278
    assert plan.after["frozen"] == 9 * (1104 * kept_expansion + 32)
    if kept_expansion != 3:
        return
    small = cut_network(net, plan)
    assert small.arguments == {"expansion": 3}
    first = plan.layers[0]
    assert first.path == "blocks.0.expand.0"
    assert list(first.kept) == sorted(first.kept)
    chosen = list(first.kept)
    old, new = net.body.blocks[0], small.body.blocks[0]
    assert torch.equal(new.depthwise.weight, old.depthwise.weight[chosen])
    assert torch.equal(new.depthwise_bn.running_var, old.depthwise_bn.running_var[chosen])
    assert torch.equal(new.gate.reduce.weight, old.gate.reduce.weight[:, chosen])
    assert torch.equal(new.gate.reduce.bias, old.gate.reduce.bias)
    assert torch.equal(new.gate.expand.bias, old.gate.expand.bias[chosen])
    assert torch.equal(new.project[0].weight, old.project[0].weight[:, chosen])


@pytest.mark.parametrize("goal", [{"macs": 5e6}, {"bytes": 120_000}, {"keep": 0.6}])
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


@pytest.mark.parametrize(("wanted", "share"), [("flash", 0.5), ("ram", 0.93)])
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


@pytest.mark.parametrize(("goal", "asked"), [({"keep": 0.7}, 17), ({"macs": 3.9e6}, r"\d+")])
def test_a_plan_says_where_groups_did_not_allow_what_was_asked(goal, asked):
    plan = make_plan(untrained("henet_r2"), criterion="l1", **goal)
    told = rf"conv1 keeps \d+ of 24, not {asked}; its groups allow 12, 24"
    assert [note for note in plan.warnings if re.fullmatch(told, note)], plan.warnings
    (solid,) = (
        note for note in plan.warnings if note.startswith("groups and shuffles allow no cut")
    )
    assert "stages.0.blocks.0.mix" in solid
    assert all(note in plan.text() for note in plan.warnings)


def test_an_expansion_may_follow_a_cut_that_left_enough():
    net = untrained("lbmbnet32_r6")
    cut = cut_network(net, make_plan(net, criterion="l1", keep=0.8))
    plan = make_plan(cut, criterion="l1", expansion=4)
    small = cut_network(cut, plan)
    for index, block in enumerate(small.body.blocks):
        width = net.body.blocks[index].depthwise.channels // 6
        assert block.depthwise.channels == 4 * width
        assert block.project[0].out_channels == cut.body.blocks[index].project[0].out_channels
    assert (
        weights.build(small.name, small.arguments, 10, small.preprocessing).stem[0].out_channels
        == 26
    )
    with pytest.raises(MismatchError, match=r"blocks.0.expand.0 would grow from 77 to 80 channels"):
        make_plan(cut, criterion="l1", expansion=5)
    with pytest.raises(MismatchError, match="expansion 4 leaves lbmbnet32_r6 as it is"):
        make_plan(small, criterion="l1", expansion=4)


def test_an_expansion_without_the_first_convolution_is_no_cut():
    with pytest.raises(MismatchError, match="no cut of this"):
        make_plan(untrained("lbmbnet32_r6"), criterion="l1", expansion=1)


def test_a_wider_expansion_and_a_foreign_plan_are_refused():
    wide = untrained("lbmbnet32_r6")
    with pytest.raises(MismatchError, match="would grow"):
        make_plan(wide, criterion="l1", expansion=7)
    with pytest.raises(UnknownNameError, match="did you mean 'l1'"):
        make_plan(wide, criterion="l11", expansion=3)
    other = make_plan(untrained("resnet8"), criterion="l1", keep=0.5)
    with pytest.raises(MismatchError, match="not for this network"):
        cut_network(wide, other)


def test_widths_that_fit_no_layer_are_refused():
    net = models.create_model("resnet8")
    for widths, words in [
        ({"nowhere": [3]}, "no layer 'nowhere'"),
        ({"conv1": [3, 8]}, "cannot replace"),
        ({"conv1": [3, 8, 2]}, "do not divide"),
        ({"conv1": [3, 0, 1]}, "cannot replace"),
    ]:
        with pytest.raises(MismatchError, match=words):
            reshape(net, widths)


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


def test_a_control_leaves_the_pruned_network_to_the_next():
    small = untrained("lbmbnet32_r6")
    before = {key: tensor.clone() for key, tensor in small.body.state_dict().items()}
    drawn, _, _ = control_start("random_kernels", small, 5)
    fresh, _, _ = control_start("kept_kernels", small, 5)
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
    monkeypatch.setattr(latency, "liked", lambda _, dependencies: dict.fromkeys(
        (one.name for one in dependencies.channel_groups), 4) | steps)  # fmt: skip
    plan = make_plan(untrained("resnet8"), criterion="l1", speedup=2)
    assert plan.before["macs"] / 4 < plan.after["macs"] <= plan.before["macs"] / 2
    assert plan.microseconds[0] / plan.microseconds[1] >= 2, "measured anew"
    assert max(map(asked.count, asked)) == 2
    for layer in plan.layers:
        assert len(layer.kept) % steps.get(layer.path, 4) == 0
    assert "multiples of 4 channels" in plan.warnings[0]
    assert (
        f"and of 16 in 2 of 6 families, where they lie abreast: {plan.after['macs']:,} MACs"
        in (plan.warnings[0])
    )


def test_a_liked_width_is_the_nearest_one_and_the_whole_is_liked():
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


def test_mending_draws_its_pixels_by_the_seed_of_the_plan(monkeypatch):
    asked = []

    def subject_of(*_, seed, **__):
        asked.append(seed)
        raise RunError("so far and no further")

    monkeypatch.setattr(sys.modules["leancnn.prune.run"], "subject_of", subject_of)
    net = untrained("resnet8")
    plan = make_plan(net, criterion="l1", keep=0.5, seed=7)
    with pytest.raises(RunError, match="so far"):
        cut_network(net, replace(plan, criterion="reconstruction", mended=True))
    assert asked == [7]


@pytest.mark.parametrize("name", ["resnet8", "henet_r2"])
def test_weights_that_are_no_numbers_are_not_scored(name):
    net = untrained(name)
    net.body.conv1.weight.data[0] = float("nan")
    with pytest.raises(MismatchError, match="scores of conv1 are no numbers"):
        make_plan(net, criterion="l1", keep=0.5)


def test_the_least_is_one_channel_of_every_layer():
    net = untrained("mobilenetv2")
    one = make_plan(net, criterion="l1", keep=1e-9)
    same = make_plan(net, criterion="l1", macs=one.after["macs"])
    assert same.after == one.after
    with pytest.raises(MismatchError, match=f"leave {one.after['macs']:,} MACs"):
        make_plan(net, criterion="l1", macs=one.after["macs"] - 1)


@pytest.mark.parametrize("change", [
    lambda p: p.pop("layers"), lambda p: p.update(layers=None), lambda p: p.pop("mended"),
    lambda p: p.update(new=1), lambda p: p["layers"][0].update(kept=3),
])  # fmt: skip
def test_a_damaged_plan_is_said_to_be(change):
    value = make_plan(untrained("resnet8"), criterion="l1", keep=0.5).to_json()
    change(value)
    with pytest.raises(DamagedError, match=r"is not what leancnn writes|no plan of this version"):
        PruningPlan.of_json(value)
