"""Channels: which hang together, which numbers of them are legal, and cuts that are exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn import models, weights
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.select import best, legal
from leancnn.channels.sizes import reshape
from leancnn.errors import (
    MismatchError,
)
from leancnn.prune import cut as cut_network
from leancnn.prune import plan as make_plan
from tests import tiny  # noqa: F401 - the network of that name
from tests.cuts import FAMILIES, check_cut, kept
from tests.few import few


@pytest.mark.parametrize("name", few(sorted(FAMILIES)))
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
    assert set(np.concatenate(rows).tolist()) == set(range(dependencies.coupled_count))


@pytest.mark.parametrize(("name", "path", "numbers"), [
    ("henet_r2", "conv1", [12, 24]),
    ("henet_r2", "stages.0.blocks.0.mix", [24]),
    ("resnet8", "conv1", list(range(1, 17))),
])  # fmt: skip
def test_the_legal_numbers_are_those_that_groups_allow(name, path, numbers):
    dependencies = find_dependencies(models.create_model(name), 3)
    assert legal(dependencies.group_of(path), dependencies) == numbers


def test_among_equal_numbers_the_worthiest_channels_stay():
    dependencies = find_dependencies(models.create_model("resnet8"), 3)
    channel_group = dependencies.group_of("blocks.0.conv1")
    importance = np.arange(16.0)[::-1] % 7
    stay = best(channel_group, dependencies, importance, {"blocks.0.conv1": 5})
    assert stay.sum() == 5
    assert importance[stay].min() >= importance[~stay].max()


@pytest.mark.parametrize("kept_expansion", few([2, 3]))
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


@pytest.mark.long
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
