"""How long a training will take on this machine, before it begins: estimates, and said to be."""

import torch

from leancnn import models, weights
from leancnn.distributed import World
from leancnn.preprocess import Preprocessing
from leancnn.train.backend import best_step
from leancnn.train.plan import TrainingPlan

REFERENCE = "resnet20"
BATCH = 16  # images in a step of the reference
STEPS_WORTH_ONE = 100  # a run of so many is measured on two more of them
LONG_S = 600  # from which on the time to go is told


def duration(seconds: float) -> str:
    """Seconds for people: 40 s, 12 min, 3 h 20 min, 2 days 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"


def training_rate() -> float:
    """Multiply-accumulates of forward passes for each second of training steps, on the CPU.

    Measured on two steps of `REFERENCE`, dense convolutions, in plain torch, after one to warm up.
    Depthwise and grouped convolutions are slower for each operation, and SIMD batches are faster.

        seconds = images * models.card("resnet18").macs / training_rate()
    """
    card = models.card(REFERENCE)
    with torch.random.fork_rng(devices=[]):
        body = weights.build(
            card.name, {}, card.classes, Preprocessing(size=card.image[1:])
        ).train()
        seconds, _ = best_step(body, ("torch", "fp32"), torch.randn(BATCH, *card.image), 2)
    return card.macs * BATCH / seconds


def forecast(plan: TrainingPlan, body: torch.nn.Module, images: torch.Tensor, world: World) -> str:
    """What to say of a run that will be long, from two of its steps on copies; empty for others.

    `images` is one normalised batch. All processes of a run call this together.
    """
    if plan.steps < STEPS_WORTH_ONE:
        return ""
    way = plan.backend, plan.precision
    with torch.random.fork_rng(devices=[]):
        seconds, _ = best_step(body, way, images, 1)
    total = world.of_first(round(seconds * 1e6)) / 1e6 * plan.steps
    if total <= LONG_S:
        return ""
    return f"an estimate from one step: about {duration(total)} for {plan.recipe.epochs:g} epochs"
