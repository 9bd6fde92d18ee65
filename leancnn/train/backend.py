"""Which forward pass trains here, in which precision, and why."""

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leancnn.distributed import World
from leancnn.recipes import Recipe
from leancnn.runs import machine

TRIALS = 2  # timed steps of each way to train, after one to warm up; the fastest counts
TURNS = 2  # of the precisions, one after the other: a machine may change its speed meanwhile
SHOWN = {
    "lanes": "the lanes",
    "torch": "plain torch",
    "channels_last": "plain torch with channels last",
}
SHORT = {"lanes": "in the lanes", "torch": "in torch", "channels_last": "with channels last"}


@dataclass(frozen=True, slots=True)
class Choice:
    """How a run goes forward and backward."""

    engine: str
    precision: str
    why: str

    def __str__(self) -> str:
        return f"training in {SHOWN[self.engine]}, {self.precision}: {self.why}"


def facts(device: torch.device, engine: str) -> dict[str, Any]:
    """What bit-exactness depends on, besides the thread count."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    known = machine()
    found = {
        "torch": torch.__version__,
        "numpy": known["numpy"],
        "processor": known["processor"],
        "device": name,
    }
    if engine == "lanes":
        from leancnn.cpu_training import compiler

        found["compiler"] = compiler()
    return found


def training_forward(
    body: nn.Module, engine: str, precision: str, device: torch.device
) -> nn.Module:
    """What the loop calls on normalised images: the body, or a faster pass of the same weights."""
    if engine == "lanes" and device.type == "cpu":
        from leancnn.cpu_training import accelerate

        return accelerate(body, half=precision == "bf16")
    return ChannelsLast(body) if engine == "channels_last" else body


class ChannelsLast(nn.Module):
    """The body on images that lie pixel by pixel in memory; torch hands that order on.

    Only activations change their order: parameters and all that an optimiser keeps stay as they
    are, for the last bits of a step depend on it.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits. Gray ones too: `contiguous` would leave those alone."""
        turned = torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
        return self.body(turned)  # type: ignore[no-any-return]


def autocast(engine: str, precision: str, device: torch.device) -> Any:
    """The context of a forward pass in that precision; the lanes have their own."""
    if engine == "lanes" or precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def choose(
    body: nn.Module, recipe: Recipe, images: Tensor, world: World, *, uses_features: bool
) -> Choice:
    """The recipe's engine and precision, or what a few steps on copies measure as the fastest.

    `images` is one normalised batch. The engines are compared in fp32, then the precisions of the
    fastest. The lanes are for one process on a CPU and for losses that look at logits only; where
    they cannot run, torch does, and `why` says so. Several processes measure together, for their
    norms wait for each other, and the first one's clock decides.
    """
    with torch.random.fork_rng(devices=[]):  # dropout draws; the caller's chance stays as it was
        return _choose(body, recipe, images, world, uses_features=uses_features)


def _choose(
    body: nn.Module, recipe: Recipe, images: Tensor, world: World, *, uses_features: bool
) -> Choice:
    precisions = ("fp32", "bf16") if recipe.precision == "auto" else (recipe.precision,)
    engine, why = _engine(body, recipe, images, world, precisions[0], uses_features=uses_features)
    precision = precisions[0]
    if len(precisions) > 1:
        ways = [(engine, each) for each in precisions]
        turns = [[best_step(body, way, images, TRIALS)[0] for way in ways] for _ in range(TURNS)]
        steps = [min(of_way) for of_way in zip(*turns, strict=True)]
        precision = precisions[world.of_first(steps.index(min(steps)))]
    return Choice(engine, precision, why)


def _engine(
    body: nn.Module,
    recipe: Recipe,
    images: Tensor,
    world: World,
    precision: str,
    *,
    uses_features: bool,
) -> tuple[str, str]:
    """The recipe's engine or the fastest, and why."""
    if recipe.engine in ("torch", "channels_last"):
        return recipe.engine, "the recipe says so"
    seconds: dict[str, float] = {}
    no_lanes = _no_lanes(recipe, world, uses_features)
    if not no_lanes:
        trials = 0 if recipe.engine == "lanes" else TRIALS
        seconds["lanes"], no_lanes = best_step(body, ("lanes", precision), images, trials)
        if not no_lanes and recipe.engine == "lanes":
            return "lanes", "the recipe says so"
        if no_lanes:
            del seconds["lanes"]
    for each in ("torch", "channels_last"):
        seconds[each], _ = best_step(body, (each, precision), images, TRIALS)
    engines = list(seconds)
    engine = engines[world.of_first(engines.index(min(engines, key=lambda each: seconds[each])))]
    told = ", ".join(f"{value:.3g} s {SHORT[each]}" for each, value in seconds.items())
    told = told.replace(" s ", " s a step ", 1)
    return engine, f"not in the lanes: {no_lanes}; {told}" if no_lanes else told


def _no_lanes(recipe: Recipe, world: World, uses_features: bool) -> str:
    """Why the lanes are not even tried; empty when they are."""
    if world.device.type != "cpu":
        return f"they are for processors, and this is {world.device.type}"
    if world.size > 1:
        return f"they are for one process, and these are {world.size}"
    if uses_features:
        return f"the loss {recipe.loss} reads features, not only logits"
    return ""


def best_step(
    body: nn.Module, way: tuple[str, str], images: Tensor, trials: int
) -> tuple[float, str]:
    """Seconds of the fastest of some steps after one to warm up, or why there can be none."""
    forward = training_forward(copy.deepcopy(body).train(), *way, images.device).train()
    warm_up = _seconds_of_step(forward, way, images)
    why_not = str(getattr(forward, "why_not", ""))
    timed = range(0 if why_not else trials)
    return min((_seconds_of_step(forward, way, images) for _ in timed), default=warm_up), why_not


def _seconds_of_step(forward: nn.Module, way: tuple[str, str], images: Tensor) -> float:
    """One forward and backward pass."""
    started = time.perf_counter()
    with autocast(*way, images.device):
        logits = forward(images)
    logits.float().logsumexp(1).sum().backward()
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
