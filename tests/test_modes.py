"""Whoever is handed a network gives it back as it was: mode, gradients, hooks, threads, chance."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import leancnn
from leancnn import weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.errors import MissingDependencyError
from leancnn.modes import evaluating
from leancnn.preprocess import Preprocessing
from leancnn.prune import cut, plan
from leancnn.prune.importance import scored
from leancnn.prune.latency import Clock
from leancnn.targets import targets
from leancnn.training_data import TrainingImages
from leancnn.weights import Network
from tests.few import few
from tests.tiny import RECIPE

pytestmark = pytest.mark.usefixtures("one_thread")


def made() -> Network:
    """A network in the midst of a training: a frozen norm, gradients kept, a hook of its own."""
    body = weights.build("resnet8", {}, 3, Preprocessing(size=(8, 8)), seed=1)
    network = Network(
        body,
        name="resnet8",
        arguments={},
        classes=("class 0", "class 1", "class 2"),
        preprocessing=Preprocessing(size=(8, 8), scale=(10, 10)),
        mean=(0.4,) * 3,
        std=(0.3,) * 3,
    ).train()
    norms = [part for part in body.modules() if isinstance(part, nn.BatchNorm2d)]
    norms[0].eval()
    body.get_submodule("fc").requires_grad_(False)
    for weight in norms[1].parameters():
        weight.grad = torch.ones_like(weight)
    network.register_forward_hook(lambda *given: None)
    return network


def state(network: Network) -> dict[str, Any]:
    """Everything that a caller would miss."""
    return {
        "mode": [part.training for part in network.modules()],
        "learns": [p.requires_grad for p in network.parameters()],
        "gradients": [None if p.grad is None else p.grad.sum() for p in network.parameters()],
        "weights": weights.digest(network),
        "hooks": [
            (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
            for part in network.modules()
        ],
        "device": network.scale.device,
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "type": torch.get_default_dtype(),
        "chance": torch.get_rng_state().sum().item(),
        "numpy's chance": str(np.random.get_state()),  # noqa: NPY002
    }  # fmt: skip


def _evaluate(network: Network, pictures: Path, out: Path) -> None:
    leancnn.evaluate(network, pictures, picture=out / "confusion.png")


def _train(network: Network, pictures: Path, out: Path) -> None:
    leancnn.train(pictures, start=network, recipe=RECIPE, out=out / "run", progress=False, epochs=1)


def _count(network: Network, pictures: Path, out: Path) -> None:
    leancnn.count(network.body, (3, 8, 8))


def _predict(network: Network, pictures: Path, out: Path) -> None:
    leancnn.predict(network, next(pictures.rglob("*.png")))


def _bench(network: Network, pictures: Path, out: Path) -> None:
    leancnn.bench([network], engines=["torch"], rounds=1, seconds=0.01)


def _export(network: Network, pictures: Path, out: Path) -> None:
    for name in ("c", "onnx", "openvino", "ncnn"):
        if name in targets:
            try:
                leancnn.export(network, to=name, out=out / name)
            except MissingDependencyError:
                continue


CALLS: dict[str, Callable[[Network, Path, Path], Any]] = {
    "bench": _bench,
    "compile": lambda network, pictures, out: leancnn.compile(network),
    "count": _count,
    "evaluate": _evaluate,
    "export": _export,
    "predict": _predict,
    "train": _train,
    "prune.plan": lambda network, pictures, out: plan(network, criterion="l1", keep=0.5),
    "prune.cut": lambda network, pictures, out: cut(
        network, plan(network, criterion="l1", keep=0.5)
    ),
    "save": lambda network, pictures, out: weights.save(network, out / "saved"),
    "clock": lambda network, pictures, out: Clock(network).ratio(network.body),
    **{
        f"scores by {name}": lambda network, pictures, out, name=name: scored(
            network,
            find_dependencies(network.body, 3),
            name,
            TrainingImages(str(pictures)),
            progress=False,
        )
        for name in ("l1", "taylor", "gate_decorator", "reconstruction", "nisp")
    },
}
WITHOUT = {
    "LeanCNNError",
    "CompiledNetwork",
    "Preprocessing",
    "__version__",
    "check",
    "create_model",
    "load",
}
WITHOUT |= {
    "load_dataset",
    "prune",
    "quantize",
    "report",
}  # these are given names and paths, never a network


def test_every_public_function_that_takes_a_network_is_tried_here() -> None:
    assert set(leancnn.__all__) - WITHOUT <= CALLS.keys()
    for name in WITHOUT - {"__version__", "LeanCNNError"}:
        given = inspect.signature(getattr(leancnn, name)).parameters.values()
        assert "weights.Network" not in str([one.annotation for one in given])


@pytest.mark.parametrize(
    "name", few([pytest.param(one, marks=[pytest.mark.slow] * (one == "bench")) for one in CALLS])
)
def test_a_network_is_given_back_as_it_was(name: str, pictures: Path, tmp_path: Path) -> None:
    network = made()
    before = state(network)
    CALLS[name](network, pictures, tmp_path)
    assert state(network) == before


def test_it_is_given_back_also_after_an_error() -> None:
    network = made()
    before = state(network)

    def fails() -> None:
        with evaluating(network, network.body):
            assert not any(part.training for part in network.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert state(network) == before


@contextmanager
def as_set(setting: str) -> Iterator[None]:
    """What a caller may have set for work of another kind."""
    if setting == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield
        return
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def answered(name: str, network: Network, pictures: Path) -> Any:
    """What a function makes of a network, as something to compare."""
    if name == "predict":
        return leancnn.predict(network, next(pictures.rglob("*.png")))[0].top
    if name == "compile":
        return leancnn.compile(network)(np.full((1, 8, 8, 3), 100, np.uint8)).tolist()
    if name == "count":
        return leancnn.count(network.body, (3, 8, 8))
    return str(plan(network, criterion="l1", keep=0.5))


@pytest.mark.parametrize("setting", few(["float64", "autocast"]))
@pytest.mark.parametrize("name", few(["predict", "compile", "count", "prune.plan"]))
def test_a_callers_default_type_and_autocast_change_no_answer(
    name: str, setting: str, pictures: Path
) -> None:
    network = made()
    expected = answered(name, network, pictures)
    before = state(network)
    with as_set(setting):
        assert answered(name, network, pictures) == expected
    assert state(network) == before
