"""Shapes alone through a network: counted as `count` counts, numbers and views left alone."""

import pytest
import torch

from leancnn import count
from leancnn.search.space import architectures
from leancnn.shape_runs import ShapeRun


@pytest.mark.long
def test_a_space_is_counted_as_leancnn_counts():
    for name in ("henet_r3", "lbmbnet32_r6", "mobilenetv3_small", "resnet8", "shufflenet_r3"):
        one, *_ = architectures(classes=10, channels=3, sizes=[(32, 32)], only=[name])
        cost = count(one.build(meta=True), (3, 32, 32))
        assert (one.macs, one.bytes) == (cost.macs, cost.bytes)


def test_a_shape_run_leaves_numbers_views_and_changes_alone():
    numbers = torch.arange(6.0)
    with ShapeRun():
        assert torch.equal(numbers + numbers, torch.arange(0.0, 12.0, 2.0))
        bare = torch.empty(2, 3, device="meta")
        assert bare.view(3, 2)._base is bare
        assert bare.add_(1) is bare
        first, second = (torch.nn.functional.relu(bare) for _ in range(2))
    assert first is not second
    assert first.shape == second.shape == (2, 3)
