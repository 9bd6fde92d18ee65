"""What may be searched: networks with their arguments and image sizes, and how they are trained.

Which arguments of a network may change stands beside its card (`Card.search`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch

from leancnn import models, weights
from leancnn.count import BYTES_PER_WEIGHT
from leancnn.errors import LeanCNNError, UsageError
from leancnn.preprocess import Preprocessing
from leancnn.recipes import Recipe
from leancnn.search.integer_bytes import Joins, of_layers, watched
from leancnn.shape_runs import ShapeRun

Size = tuple[int, int]
"""(height, width) of images."""
SIZES = (32, 48, 64, 96)
"""Sides of images that are tried beside the one on a network's card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network that may be trained, and what it costs: everything but its weights."""

    network: str
    arguments: Mapping[str, Any]
    """Those that differ from what the name stands for."""
    size: Size
    """Of its images."""
    channels: int
    classes: int
    macs: int
    """Multiply-accumulates for one image."""
    bytes: int
    """Of the trainable weights as float32, as everywhere in leancnn."""
    int8_bytes: int = 0
    """Of what its form in integers stores, nearly; see `integer_bytes`."""

    @property
    def key(self) -> str:
        """The architecture in a word that is the same each time."""
        arguments = [f"{key}={value}" for key, value in sorted(self.arguments.items())]
        sizes = [f"{self.size[0]}x{self.size[1]}", f"c{self.channels}", f"n{self.classes}"]
        return " ".join([self.network, *arguments, *sizes])

    @property
    def title(self) -> str:
        """The architecture for people."""
        arguments = ", ".join(f"{key}={value}" for key, value in self.arguments.items())
        height, width = self.size
        return f"{self.network}{f' ({arguments})' if arguments else ''} at {height}×{width}"

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {**asdict(self), "arguments": dict(self.arguments), "size": list(self.size)}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Architecture":
        """What `to_json` gave."""
        return cls(**{**value, "size": tuple(value["size"])})

    def build(self, *, meta: bool = False) -> torch.nn.Module:
        """The network with fresh weights, or on the meta device with none."""
        taken = Preprocessing(size=self.size, channels=self.channels)
        with torch.device("meta" if meta else "cpu"):
            seed = None if meta else 0
            return weights.build(self.network, self.arguments, self.classes, taken, seed=seed)


def searched() -> dict[str, dict[str, Sequence[Any]]]:
    """By network: what each of its arguments may be.

    Of networks that share a builder the one whose card declares a search stands for all; where none
    does, each stands for itself. Those of signals are left out.

    >>> searched()["resnet8"]
    {'width': (8, 12, 16, 24, 32)}
    """
    pictures = [name for name in models.names() if models.card(name).image[0] in (1, 3)]
    declared = {models.builder(name) for name in pictures if models.card(name).search}
    return {
        name: dict(models.card(name).search)
        for name in pictures
        if models.card(name).search or models.builder(name) not in declared
    }


def architectures(
    *,
    classes: int,
    channels: int,
    sizes: Sequence[Size] | None = None,
    only: Sequence[str] | None = None,
) -> Iterator[Architecture]:
    """Every architecture that takes such images, with its counts; `only` names networks.

    `sizes`: of the images; None: those of each card and `SIZES`. Nothing is computed: shapes alone
    run through the networks. Raises `UnknownNameError`, `UsageError` for a name that is searched
    under another.
    """
    for name in only or ():
        models.card(name)
        if name not in searched():
            of_one = ", ".join(searched())
            raise UsageError(f"{name} is searched under another name; there are: {of_one}")
    for name in searched():
        if only is not None and name not in only:
            continue
        own = {models.card(name).image[1:], *((side, side) for side in SIZES)}
        for arguments in choices(name):
            known: dict[str, Any] = {"arguments": arguments, "channels": channels}
            known["classes"] = classes
            plain = Architecture(network=name, size=(1, 1), macs=0, bytes=0, **known)
            yield from counted(plain, sorted(sizes or own))


def choices(name: str) -> list[dict[str, Any]]:
    """Every choice of a network's arguments, as what differs from what its name stands for."""
    allowed, usual = searched()[name], models.arguments(name)
    return [
        {key: value for key, value in zip(allowed, values, strict=True) if usual[key] != value}
        for values in product(*allowed.values())
    ]


def counted(plain: Architecture, sizes: Sequence[Size]) -> Iterator[Architecture]:
    """The same for images of these sizes, with its counts; without those that it does not take."""
    found = []
    with ShapeRun() as run, suppress(LeanCNNError), torch.no_grad():
        body = plain.build(meta=True).eval()
        weight = sum(one.numel() for one in body.parameters() if one.requires_grad)
        maps = watched(body)
        for size in sizes:
            run.macs = 0
            with suppress(LeanCNNError), Joins() as joins:
                body(torch.empty(1, plain.channels, *size, device="meta"))
                costs = {"macs": run.macs, "bytes": BYTES_PER_WEIGHT * weight}
                costs["int8_bytes"] = of_layers(body, maps) + joins.bytes
                found.append(replace(plain, size=size, **costs))
    yield from found


AUGMENT: dict[str, dict[str, Any]] = {
    "less": {"cutout": 0, "mixup": 0.0, "rotate": 0.0, "zoom": 0.0, "colour": 0.0},
    "own": {},
    "more": {"rotate": 10.0, "zoom": 0.15, "colour": 0.2},
}
"""Fields of a recipe by how strongly images are changed, beside those it has itself."""
FACTORS = (1 / 3, 3.0)  # of a recipe's own rate and decay


@dataclass(frozen=True, slots=True)
class Change:
    """How a trial departs from the recipe of its network."""

    lr: float = 1.0
    """Times the recipe's own peak rate, as `weight_decay` times its own decay."""
    weight_decay: float = 1.0
    augment: str = "own"
    """A key of `AUGMENT`."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def of_params(cls, params: Mapping[str, Any]) -> "Change":
        """From whatever else holds these keys; one that was not drawn is the recipe's own."""
        return cls(
            **{key: params[key] for key in ("lr", "weight_decay", "augment") if key in params}
        )

    def overrides(self, recipe: Recipe) -> dict[str, Any]:
        """Fields of a recipe with their new values."""
        found = dict(AUGMENT[self.augment])
        for key in ("lr", "weight_decay"):
            if (factor := getattr(self, key)) != 1:
                found[key] = float(f"{factor * getattr(recipe, key):.4g}")
        return found

    def __str__(self) -> str:
        """The change for people; empty for none."""
        words = [f"rate ×{self.lr:.2f}"] if self.lr != 1 else []
        words += [f"decay ×{self.weight_decay:.2f}"] if self.weight_decay != 1 else []
        words += [f"{self.augment} augmentation"] if self.augment != "own" else []
        return ", ".join(words)


def changes(drawn: Any) -> Change:
    """A change that an Optuna trial draws."""
    low, high = FACTORS
    return Change(
        drawn.suggest_float("lr", low, high, log=True),
        drawn.suggest_float("weight_decay", low, high, log=True),
        drawn.suggest_categorical("augment", list(AUGMENT)),
    )
