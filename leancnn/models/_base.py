"""What a network is to the house: a card of declared facts and a function that builds it."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from leancnn.errors import ArgumentError
from leancnn.models._limits import within_limits
from leancnn.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Facts that a source prints or that we resolved by arithmetic; a test measures each."""

    name: str
    source: str
    """Authors, title, venue, year, and the table or figure."""
    image: tuple[int, int, int]
    """(channels, height, width) for which `macs` holds."""
    classes: int
    trainable: int
    """Parameters that training changes: weights, biases, batch-norm scales and shifts."""
    macs: int
    """Multiply-accumulates of convolutions and linear layers, groups respected, one image."""
    frozen: int = 0
    """Fixed weights (ternary kernels): stored, never trained."""
    buffers: int = 0
    """Batch-norm running means and variances."""
    smallest: int = 1
    """Least height and width the network takes; one less is a `MismatchError`."""
    published: str = ""
    """What the source prints about this network, in its own units."""
    differs: str = ""
    """Where the source's own numbers do not fit, in a sentence."""
    search: Mapping[str, Sequence[Any]] = field(default_factory=dict, hash=False)
    """What `leancnn search` may give arguments of the builder; of networks that share a builder one
    card says it for all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered network: its card, its builder, and the arguments its name stands for."""

    card: Card
    build: Callable[..., nn.Module]
    fixed: Mapping[str, Any] = field(default_factory=dict)


networks: Registry[Entry] = Registry("network")


def register(card: Card, build: Callable[..., nn.Module], **fixed: Any) -> None:
    """Register a network: `build(classes=..., channels=..., **fixed)` makes it."""
    networks.register(card.name, Entry(card, build, fixed))


def names() -> list[str]:
    """All networks, in the order of their sources."""
    return list(networks)


def card(name: str) -> Card:
    """The declared facts of a network. Raises `UnknownNameError`."""
    return networks[name].card


def arguments(name: str) -> dict[str, Any]:
    """Every argument of a network's builder with the value that `name` gives it."""
    entry = networks[name]
    defaults = {key: p.default for key, p in inspect.signature(entry.build).parameters.items()}
    return {**defaults, **entry.fixed}


def builder(name: str) -> Callable[..., nn.Module]:
    """The function behind a name, with typed arguments. Raises `UnknownNameError`."""
    return networks[name].build


def create_model(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    seed: int | None = None,
    **changes: Any,
) -> nn.Module:
    """Build an untrained network: normalised floats (N, C, H, W) in, logits (N, classes) out.

    Every network is `fc(features(x))`: `features` gives what the classifier reads, (N, F) or maps
    (N, F, H, W), and `fc` has `in_features` = F and `out_features` = classes. `classes` and
    `channels` default to the card's. `changes` are arguments of the network's own builder, such as
    `repeat=5`. With `seed` the weights are a pure function of it; the global generator is left as
    it was. Raises `UnknownNameError` for a name or argument that does not exist, `MismatchError`
    for sizes that do not fit or are beyond use.

    >>> network = leancnn.create_model("henet_r2", classes=4, seed=0)
    >>> network(torch.zeros(2, 3, 31, 31)).shape
    torch.Size([2, 4])
    """
    entry = networks[name]
    usual = arguments(name)
    known: Registry[Any] = Registry(f"argument of {name}")
    known.update(usual)
    for key in changes:
        known[key]
    chosen = {
        **entry.fixed,
        "classes": entry.card.classes if classes is None else classes,
        "channels": entry.card.image[0] if channels is None else channels,
        **changes,
    }
    for key, value in chosen.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ArgumentError(f"{name}: `{key}` is a finite number, not {value}")
        if type(usual[key]) is int and isinstance(value, bool | float | str):
            raise ArgumentError(f"{name}: `{key}` is a whole number, not {value!r}")
    for key in ("classes", "channels"):
        if chosen[key] < 1:
            raise ArgumentError(f"{name} needs `{key}` of 1 or more, not {chosen[key]}")
    sizes = {"classes": chosen["classes"], "channels": chosen["channels"]}
    with within_limits(name, changes or sizes):
        if seed is None:
            return entry.build(**chosen)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return entry.build(**chosen)
