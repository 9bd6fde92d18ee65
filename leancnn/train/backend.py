"""Which forward pass trains here, in which precision, and why."""

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from leancnn.distributed import World
from leancnn.recipes import Backend, Recipe
from leancnn.runs import machine
from leancnn.timing import turn
from leancnn.train.fake_quantization import FakeQuantized

TRIALS = 2  # timed steps of each way to train, after one to warm up; the fastest counts
TURNS = 2  # of all ways, one after the other: a machine may change its speed meanwhile
LOOK = 16  # images of a first look, which leaves out what is
HOPELESS = 3  # times slower than the fastest, as bfloat16 is on processors that have it not
Way = tuple[Backend, str]
"""A backend and a precision."""
SHOWN: dict[Backend, str] = {
    "simd": "SIMD batches",
    "torch": "plain torch",
    "channels_last": "plain torch with channels last",
    "fake_quantized": "torch with fake quantization",
}
SHORT = {"simd": "in SIMD batches", "torch": "in torch", "channels_last": "with channels last"}


@dataclass(frozen=True, slots=True)
class Choice:
    """How a run goes forward and backward."""

    backend: Backend
    precision: str
    why: str

    def __str__(self) -> str:
        return f"training in {SHOWN[self.backend]}, {self.precision}: {self.why}"


def environment(device: torch.device, backend: Backend) -> dict[str, Any]:
    """What bit-exactness depends on, besides the thread count."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    known = machine()
    found = {
        "torch": torch.__version__,
        "numpy": known["numpy"],
        "processor": known["processor"],
        "device": name,
    }
    if backend == "simd":
        from leancnn.cpu_training import compiler

        found["compiler"] = compiler()
    return found


def training_forward(
    body: nn.Module, backend: Backend, precision: str, device: torch.device
) -> nn.Module:
    """What the loop calls on normalised images: the body, or a faster pass of the same weights."""
    if backend == "simd" and device.type == "cpu":
        from leancnn.cpu_training import accelerate

        return accelerate(body, half=precision == "bf16")
    if backend == "fake_quantized":
        return FakeQuantized(body)
    return ChannelsLast(body) if backend == "channels_last" else body


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


def autocast(backend: Backend, precision: str, device: torch.device) -> Any:
    """The context of a forward pass in that precision; SIMD batches have their own."""
    if backend == "simd" or precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def choose(
    body: nn.Module, recipe: Recipe, images: Tensor, world: World, *, uses_features: bool
) -> Choice:
    """The recipe's backend and precision, or what a few steps on copies measure as the fastest.

    `images` is one normalised batch. Every backend is timed in every precision the recipe leaves
    open, in turns, but for those that are hopeless on a few images: torch may be the slowest in
    fp32 and the fastest in bf16. SIMD batches are for one process on a CPU and for losses that look
    at logits only; where they cannot run, torch does, and `why` says so. Several processes measure
    together, for their norms wait for each other, and the first one's clock decides.
    """
    with torch.random.fork_rng(devices=[]):  # dropout draws; the caller's chance stays as it was
        return _choose(body, recipe, images, world, uses_features=uses_features)


def _choose(
    body: nn.Module, recipe: Recipe, images: Tensor, world: World, *, uses_features: bool
) -> Choice:
    coarse = recipe.backend == "fake_quantized"  # bf16 has no more digits than its steps
    both = ("fp32",) if coarse else ("fp32", "bf16")
    precisions = both if recipe.precision == "auto" else (recipe.precision,)
    backends, no_simd = _backends(body, recipe, images, precisions[0], world, uses_features)
    ways = [(backend, precision) for backend in backends for precision in precisions]
    if len(ways) == 1:
        return Choice(*ways[0], "the recipe says so")
    ways = _hopeful(body, ways, images, world)
    turns = [[best_step(body, way, images, TRIALS)[0] for way in ways] for _ in range(TURNS)]
    steps = [min(of_way) for of_way in zip(*turns, strict=True)]
    backend, precision = ways[world.of_first(steps.index(min(steps)))]
    if len(backends) == 1:
        return Choice(backend, precision, "the recipe says so")
    best: dict[Backend, float] = {}
    for (each, _), step in zip(ways, steps, strict=True):
        best[each] = min(step, best.get(each, step))
    why = ", ".join(
        f"{best[each]:.3g} s {SHORT[each]}" if each in best else f"far slower {SHORT[each]}"
        for each in backends
    ).replace(" s ", " s a step ", 1)
    return Choice(backend, precision, f"not in SIMD batches: {no_simd}; {why}" if no_simd else why)


def _hopeful(body: nn.Module, ways: list[Way], images: Tensor, world: World) -> list[Way]:
    """The ways that are not far slower than the fastest on a few images."""
    if len(images) < 2 * LOOK:
        return ways
    few = images[:LOOK]
    seconds = [best_step(body, way, few, 1)[0] for way in ways]
    most = HOPELESS * min(seconds)
    for at, way in enumerate(ways):
        if world.of_first(int(seconds[at] > most)):  # another look: a machine may have hesitated
            seconds[at] = min(seconds[at], best_step(body, way, few, 1)[0])
    keeps = [world.of_first(int(took <= most)) for took in seconds]
    return [way for way, keep in zip(ways, keeps, strict=True) if keep]


def _backends(
    body: nn.Module,
    recipe: Recipe,
    images: Tensor,
    precision: str,
    world: World,
    uses_features: bool,
) -> tuple[list[Backend], str]:
    """What may go forward here, and why SIMD batches are not among them."""
    if recipe.backend != "auto" and recipe.backend != "simd":  # all others run everywhere
        return [recipe.backend], ""
    no_simd = _no_simd(recipe, world, uses_features)
    if not no_simd:
        no_simd = best_step(body, ("simd", precision), images, 0)[1]
    if no_simd:
        return ["torch", "channels_last"], no_simd
    return ["simd"] if recipe.backend == "simd" else ["simd", "torch", "channels_last"], ""


def _no_simd(recipe: Recipe, world: World, uses_features: bool) -> str:
    """Why SIMD batches are not even tried; empty when they are."""
    if world.device.type != "cpu":
        return f"they are for processors, and this is {world.device.type}"
    if world.size > 1:
        return f"they are for one process, and these are {world.size}"
    if uses_features:
        return f"the loss {recipe.loss} reads features, not only logits"
    return ""


def best_step(body: nn.Module, way: Way, images: Tensor, trials: int) -> tuple[float, str]:
    """Seconds of the fastest of some steps after one to warm up, or why there can be none."""
    forward = training_forward(copy.deepcopy(body).train(), *way, images.device).train()
    step = partial(_step, forward, way, images)
    seconds = turn(step, 0)
    why_not = str(getattr(forward, "why_not", ""))
    if trials and not why_not:
        seconds = turn(step, 0, least=trials)
    return min(seconds), why_not


def _step(forward: nn.Module, way: Way, images: Tensor) -> None:
    """One forward and backward pass, to its end."""
    with autocast(*way, images.device):
        logits = forward(images)
    logits.float().logsumexp(1).sum().backward()
    if images.device.type == "cuda":
        torch.cuda.synchronize()
