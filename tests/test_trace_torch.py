"""Graphs without torch.export: the same program, whoever hands over the operators."""

import pytest
import torch
from torch import nn

from leancnn import count, create_model, models
from leancnn.compiler import trace_torch as tracing
from leancnn.compiler.cycles import cycles
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.search.space import searched, shapes
from leancnn.shape_runs import ShapeRun

QUICK = ("resnet8", "nvmnet_g4")


def cost(graph):
    return cycles(schedule(lower(simplify(graph))))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in searched()],
)
def test_a_traced_network_is_the_program_that_export_gives(name, monkeypatch):
    body, image = create_model(name, seed=0).eval(), models.card(name).image
    exported = cost(import_torch(body, image))

    def none(*_):
        raise AssertionError(f"{name} was not traced")

    monkeypatch.setattr(tracing, "import_torch", none)
    assert cost(trace_torch(body, image)) == exported


class Careful(nn.Module):
    """Changes a view of what it reads later, which a trace of names alone would get wrong."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 36, 2)

    def forward(self, x):
        y = self.conv(x)
        y.view(1, 4, 36).relu_()
        return self.fc(y.flatten(1))


def test_what_is_changed_through_a_view_is_left_to_export():
    body = Careful().eval()
    assert cost(trace_torch(body, (3, 8, 8))) == cost(import_torch(body, (3, 8, 8)))


def test_a_space_is_counted_as_leancnn_counts():
    for name in ("henet_r3", "lbmbnet32_r6", "mobilenetv3_small", "resnet8", "shufflenet_r3"):
        one, *_ = shapes(classes=10, channels=3, sizes=[(32, 32)], only=[name])
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
