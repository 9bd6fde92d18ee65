"""The tensors of a run: descent, decay, the average."""

from typing import Any

import pytest
import torch

from leancnn.train import state
from leancnn.train.state import SGD
from tests.tiny import RECIPE, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("changes", [{}, {"nesterov": False}, {"decay_on": "caffe"}])
def test_descent_is_torch_sgd_to_the_last_bit(changes: dict[str, Any]) -> None:
    recipe = RECIPE.changed(weight_decay=0.01, **changes)
    torch.manual_seed(1)
    ours, theirs = tiny(), tiny()
    theirs.load_state_dict(ours.state_dict())
    optimizer = SGD(ours, recipe)
    groups = [
        {
            "params": [dict(theirs.named_parameters())[name] for name in group.names],
            "weight_decay": group.decay,
            "lr": 0.1 * group.lr_scale,
        }
        for group in optimizer.groups
    ]
    sgd = torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov)
    for _ in range(5):
        x = torch.randn(6, 3, 8, 8)
        for body in (ours, theirs):
            body.eval()(x).square().mean().backward()
        optimizer.step(0.1)
        sgd.step()
        optimizer.zero_grad()
        sgd.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_weight_decay_leaves_out_norms_and_biases() -> None:
    decayed = {
        name: group.decay > 0 for group in SGD(tiny(), RECIPE).groups for name in group.names
    }
    assert {name for name, is_decayed in decayed.items() if is_decayed} == {
        "conv.weight",
        "hidden.weight",
        "fc.weight",
    }
    caffe = SGD(tiny(), RECIPE.changed(decay_on="caffe"))
    assert [(g.names, g.decay, g.lr_scale) for g in caffe.groups if g.decay == 0] == [
        (["fc.bias"], 0.0, 2.0)
    ]


def test_the_average_follows_the_weights() -> None:
    body, average = tiny(), tiny()
    start = {k: v.clone() for k, v in average.state_dict().items()}
    state.update_ema(average, body, 0.75)
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * start[name] + 0.25 * body.state_dict()[name]
            torch.testing.assert_close(value, expected)
