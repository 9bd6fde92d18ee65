"""Graphs without torch.export: the same program, whoever hands over the operators."""

import pytest
from torch import nn

from leancnn import create_model, models
from leancnn.compiler import trace_torch as tracing
from leancnn.compiler.cycles import cycles
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.search.space import searched
from tests.few import few

QUICK = ("resnet8", "nvmnet_g4")


def cost(graph):
    return cycles(schedule(lower(simplify(graph))))


@pytest.mark.parametrize(
    "name",
    few(
        [
            name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
            for name in searched()
        ]
    ),
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
