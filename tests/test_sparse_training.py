"""Training with `bn_l1`, which makes batch-norm scales sparse before pruning by `bn_scale`."""

from pathlib import Path

import pytest
import torch
from torch import nn

from leancnn.train import resume, train
from leancnn.train.state import SGD
from tests.tiny import RECIPE, tiny
from tests.tiny_runs import stopped_at, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_scales_descend_by_the_sign_of_gamma() -> None:
    torch.manual_seed(1)
    ours, theirs = tiny(), tiny()
    nn.init.normal_(ours.bn.weight)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [SGD(ours, RECIPE.changed(bn_l1=0.01)), SGD(theirs, RECIPE)]
    for _ in range(3):
        x = torch.randn(6, 3, 8, 8)
        losses = [body.eval()(x).square().mean() for body in (ours, theirs)]
        losses[1] = losses[1] + 0.01 * theirs.bn.weight.abs().sum()
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step(0.1)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
    assert not torch.equal(ours.bn.weight, ours.bn.weight.abs()), "signs of both kinds"


def test_sparse_training_resumes_to_the_same_bits(pictures: Path, tmp_path: Path) -> None:
    recipe = RECIPE.changed(bn_l1=0.01, epochs=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(pictures, recipe=recipe, out=whole, progress=False)
    with stopped_at(3):
        train(pictures, recipe=recipe, out=broken, progress=False)
    resume(broken, progress=False)
    assert weights_of(broken) == weights_of(whole)
