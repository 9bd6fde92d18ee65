"""What is decided before the first step and kept to the last: a value, in every checkpoint.

Together with the data it determines every weight, on the same machine, thread count and torch
version.
"""

import copy
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leancnn import models, recipes
from leancnn.data import Dataset
from leancnn.distributed import World
from leancnn.errors import MismatchError, RunError
from leancnn.images import Road
from leancnn.recipes import Recipe
from leancnn.runs import machine

VAL_SHARE = 0.1  # of the train part, where a data set brings no val part
TRIALS = 2  # timed steps of each way to train; the fastest step counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """See the module. `data` is a path or a name, as `load_dataset` takes it."""

    data: str
    data_sha256: Mapping[str, str]
    """By part."""
    val_share: float
    classes: tuple[str, ...]
    images: int
    """Of the train part."""
    model: str
    arguments: Mapping[str, Any]
    recipe: Recipe
    road: Road
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    """Of the weights, the order, the augmentation and the cut of the val part."""
    engine: str
    precision: str
    threads: int
    processes: int
    machine: Mapping[str, Any]
    """What the numbers may depend on: versions, processor, device."""
    save_every_s: float
    save_every_steps: int | None

    @property
    def batch(self) -> int:
        """Images per step: the recipe's, or all there are."""
        return min(self.recipe.batch, self.images)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the rest has its turn in another epoch's order."""
        return self.images // self.batch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.recipe.epochs * self.steps_per_epoch))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**asdict(self), "recipe": self.recipe.to_json(), "road": self.road.to_json()}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote."""
        lists = {key: tuple(value[key]) for key in ("classes", "mean", "std")}
        recipe, road = recipes.of_json(value["recipe"]), Road.from_json(value["road"])
        return cls(**{**value, **lists, "recipe": recipe, "road": road})

    def check_data(self, dataset: Dataset) -> None:
        """Refuse to go on with other data: `MismatchError` for classes, `RunError` for images."""
        if dataset.classes != self.classes:
            gone = sorted(set(self.classes) - set(dataset.classes))
            new = sorted(set(dataset.classes) - set(self.classes))
            raise MismatchError(
                f"{self.data}: the classes changed; gone {gone}, new {new}; begin another run"
            )
        if dataset.manifest["sha256"] != self.data_sha256:
            raise RunError(f"{self.data}: the images changed; put them back, or begin another run")

    def differences(self, world: World) -> list[str]:
        """Why a resumed run may not be bit-exact here."""
        here = {**facts(world.device), "processes": world.size}
        then = {**self.machine, "processes": self.processes}
        return [f"{key}: {then[key]} → {here[key]}" for key in here if here[key] != then.get(key)]


def road_for(model: str, recipe: Recipe) -> Road:
    """From image files to what a network takes under a recipe. Raises `UnknownNameError`."""
    channels, height, width = models.card(model).image
    scale = recipe.scale or (height, width)
    return Road(
        size=(height, width),
        channels=recipe.channels or channels,
        scale=(max(scale[0], height), max(scale[1], width)),
    )


def facts(device: torch.device) -> dict[str, Any]:
    """What bit-exactness depends on, besides the thread count."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    known = machine()
    return {
        "torch": torch.__version__,
        "numpy": known["numpy"],
        "processor": known["processor"],
        "device": name,
    }


def training_forward(
    body: nn.Module, engine: str, precision: str, device: torch.device
) -> nn.Module:
    """What the loop calls on normalised images: the body, or a faster pass of the same weights."""
    if engine == "lanes" and device.type == "cpu":
        from leancnn.lanes import accelerate

        return accelerate(body, half=precision == "bf16")
    return body


def autocast(engine: str, precision: str, device: torch.device) -> Any:
    """The context of a forward pass in that precision; the lanes have their own."""
    if engine == "lanes" or precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def fastest(
    body: nn.Module, recipe: Recipe, images: Tensor, world: World, *, uses_features: bool
) -> tuple[str, str]:
    """(engine, precision): the recipe's, or what a few steps on copies measure as the fastest.

    `images` is one normalised batch. The engines are compared in fp32, then the precisions of the
    faster one. The lanes are for one process on a CPU and for losses that look at logits only. With
    several processes the first one's clock decides.
    """
    engines = ("lanes", "torch") if recipe.engine == "auto" else (recipe.engine,)
    if world.size > 1 or world.device.type != "cpu" or uses_features:
        engines = ("torch",)
    precisions = ("fp32", "bf16") if recipe.precision == "auto" else (recipe.precision,)
    best = _fastest([(engine, precisions[0]) for engine in engines], body, images, world)
    return _fastest([(best[0], precision) for precision in precisions], body, images, world)


def _fastest(
    ways: list[tuple[str, str]], body: nn.Module, images: Tensor, world: World
) -> tuple[str, str]:
    """The way whose best step is the shortest; one way needs no clock."""
    seconds = [math.inf] * len(ways)
    for place, way in enumerate(ways if len(ways) > 1 and world.first else ()):
        forward = training_forward(copy.deepcopy(body).train(), *way, world.device).train()
        for trial in range(TRIALS + 1):
            taken = _seconds_of_step(forward, way, images)
            if trial and not getattr(forward, "why_not", ""):  # the first warms up
                seconds[place] = min(taken, seconds[place])
    return ways[world.of_first(seconds.index(min(seconds)))]


def _seconds_of_step(forward: nn.Module, way: tuple[str, str], images: Tensor) -> float:
    """One forward and backward pass."""
    started = time.perf_counter()
    with autocast(*way, images.device):
        logits = forward(images)
    logits.float().logsumexp(1).sum().backward()
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
