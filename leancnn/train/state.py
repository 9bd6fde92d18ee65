"""The tensors of a training run: begun from a plan, packed into a checkpoint, and unpacked."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leancnn import losses, weights
from leancnn.distributed import World, whole_batch_norms
from leancnn.losses import Loss
from leancnn.recipes import Recipe
from leancnn.safe_files import Tensors
from leancnn.state_arrays import fill, to_arrays
from leancnn.train.plan import TrainingPlan
from leancnn.weights import Network


class Features:
    """What the classifier was given in the latest forward pass, when the loss uses it: `last`."""

    def __init__(self, body: nn.Module, loss: Loss) -> None:
        self.last: Tensor | None = None
        if loss.uses_features:
            classifier = body.get_submodule("fc")
            classifier.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.last = given[0].float()


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """Parameters that decay and learn alike."""

    names: list[str]
    parameters: list[Tensor]
    momentum: list[Tensor]
    decay: float
    lr_scale: float


class SGD:
    """Stochastic gradient descent with momentum, in groups by `Recipe.decay_on`.

    g ← g + decay·w; m ← momentum·m + g; w ← w − lr·(g + momentum·m), or − lr·m without
    Nesterov: `torch.optim.SGD` to the last bit, whose import alone takes seconds. A test compares.
    Before that the scales of batch norms get g ← g + bn_l1·sign(γ).
    """

    def __init__(self, body: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        norms = (m for m in body.modules() if isinstance(m, _BatchNorm) and m.affine)
        self.scales = [m.weight for m in norms] if recipe.bn_l1 else []
        last = {id(p) for p in body.get_submodule("fc").parameters() if p.ndim == 1}
        sorted_out: dict[tuple[float, float], list[tuple[str, Tensor]]] = {}
        for name, p in body.named_parameters():
            if recipe.decay_on == "caffe":
                kind = (0.0, 2.0) if id(p) in last else (recipe.weight_decay, 1.0)
            else:
                kind = (recipe.weight_decay if p.ndim > 1 else 0.0, 1.0)
            if p.requires_grad:
                sorted_out.setdefault(kind, []).append((name, p))
        self.groups = []
        for (decay, share), named in sorted_out.items():
            parameters = [p for _, p in named]
            momentum = [torch.zeros_like(p, requires_grad=False) for p in parameters]
            self.groups.append(
                ParamGroup([n for n, _ in named], parameters, momentum, decay, share)
            )

    def zero_grad(self) -> None:
        """Before a backward pass."""
        for group in self.groups:
            for p in group.parameters:
                p.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every parameter; all have a gradient after a backward pass."""
        momentum = self.recipe.momentum
        for scale in self.scales:
            if scale.grad is not None:
                scale.grad.add_(scale.sign(), alpha=self.recipe.bn_l1)
        for group in self.groups:
            gradients = [p.grad for p in group.parameters if p.grad is not None]
            if group.decay:
                torch._foreach_add_(gradients, group.parameters, alpha=group.decay)
            torch._foreach_mul_(group.momentum, momentum)
            torch._foreach_add_(group.momentum, gradients)
            if self.recipe.nesterov:
                torch._foreach_add_(gradients, group.momentum, alpha=momentum)
            moves = gradients if self.recipe.nesterov else group.momentum
            torch._foreach_add_(group.parameters, moves, alpha=-lr * group.lr_scale)

    def state(self) -> dict[str, Tensor]:
        """The momentum of each parameter, by its name."""
        return {
            n: m for group in self.groups for n, m in zip(group.names, group.momentum, strict=True)
        }


@dataclass(slots=True)
class TrainState:
    """All that a step changes, but for the counters."""

    network: Network
    optimizer: SGD
    loss: Loss
    features: Features
    average: nn.Module | None
    """Of the weights, when the recipe asks for one."""

    @property
    def tested(self) -> Network:
        """The network that is validated and saved."""
        if self.average is None:
            return self.network
        tested = copy.copy(self.network)
        tested._modules = {"body": self.average}
        return tested


def begin(plan: TrainingPlan, world: World) -> TrainState:
    """The tensors before the first step, a pure function of the plan."""
    recipe = plan.recipe
    body = weights.build(
        plan.model, plan.arguments, len(plan.classes), plan.preprocessing, plan.seed
    )
    if world.size > 1:
        whole_batch_norms(body)
    network = Network(
        body,
        name=plan.model,
        arguments=plan.arguments,
        classes=plan.classes,
        preprocessing=plan.preprocessing,
        mean=plan.mean,
        std=plan.std,
    ).to(world.device)
    loss = losses.create(
        recipe.loss,
        classes=len(plan.classes),
        features=int(body.get_submodule("fc").in_features),  # type: ignore[arg-type]
        label_smoothing=recipe.label_smoothing,
        class_weights=class_weights(plan.counts) if recipe.class_weights == "balanced" else None,
        **dict(recipe.loss_arguments),
    ).to(world.device)
    average = copy.deepcopy(body).requires_grad_(False).eval() if recipe.ema else None
    return TrainState(network, SGD(body, recipe), loss, Features(body, loss), average)


def class_weights(counts: Sequence[int]) -> list[float]:
    """images / (classes · images of the class): 1 on average over the images."""
    return [sum(counts) / (len(counts) * count) for count in counts]


def load_weights(train_state: TrainState, network: Network) -> None:
    """Begin with the weights and statistics of a network of the same sizes."""
    for body in (train_state.network.body, train_state.average):
        if body is not None:
            body.load_state_dict(network.body.state_dict())


@torch.no_grad()
def update_ema(average: nn.Module, body: nn.Module, decay: float) -> None:
    """Move an average of weights and norm statistics a step; counters are copied."""
    ours, theirs = list(average.state_dict().values()), list(body.state_dict().values())
    floats = [place for place, tensor in enumerate(ours) if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[i] for i in floats], [theirs[i] for i in floats], 1 - decay)
    for mine, other in zip(ours, theirs, strict=True):
        if not mine.is_floating_point():
            mine.copy_(other)


def state_dict(train_state: TrainState) -> Tensors:
    """Everything as arrays, under `body/`, `average/`, `loss/` and `momentum/`."""
    return to_arrays(
        {
            f"{part}/{name}": tensor
            for part, state in _parts(train_state)
            for name, tensor in state.items()
        }
    )


def load_state_dict(train_state: TrainState, packed: Tensors, where: Path) -> None:
    """Put back what `state_dict` took. Raises `DamagedError` when it does not fit."""
    for part, state in _parts(train_state):
        start = f"{part}/"
        arrays = {key.removeprefix(start): a for key, a in packed.items() if key.startswith(start)}
        fill(state, arrays, where)


def _parts(train_state: TrainState) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    yield "body", train_state.network.body.state_dict()
    yield "loss", train_state.loss.state_dict()
    yield "momentum", train_state.optimizer.state()
    if train_state.average is not None:
        yield "average", train_state.average.state_dict()
