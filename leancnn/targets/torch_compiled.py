"""PyTorch's own compiler, in its default mode."""

from pathlib import Path

import torch

from leancnn.targets._base import EngineSession, Target, register
from leancnn.targets._torch import in_process, write
from leancnn.weights import load as load_network


def load(path: Path) -> EngineSession:
    network = load_network(path).eval()
    return in_process(network, torch.compile(network))


register(Target("torch-compile", "a saved network, run by torch.compile", "", write, load))
