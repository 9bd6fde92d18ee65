"""PyTorch as it is, on one thread: what every other target is compared with."""

from pathlib import Path

from leancnn.targets._base import EngineSession, Target, register
from leancnn.targets._torch import in_process, write
from leancnn.weights import load as load_network


def load(path: Path) -> EngineSession:
    return in_process(load_network(path))


register(Target("torch", "a saved network, run by PyTorch", "", write, load))
