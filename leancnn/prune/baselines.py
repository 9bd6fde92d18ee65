"""What a pruned network has to beat: never pruned, or with the wrong kernels.

* scratch: the sizes that pruning left, all weights drawn anew
* kept_kernels: the same, with the ternary kernels that pruning kept
* random_kernels: the pruned weights, with ternary kernels drawn anew
* smaller_model: the costliest network of the zoo that costs no more
* the name of a network
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from leancnn import models, weights
from leancnn.count import count
from leancnn.errors import MismatchError, UnknownNameError
from leancnn.layers import LocalBinaryConv2d
from leancnn.weights import Network

SMALLER = "smaller_model"
OLD = {"zoo": SMALLER}  # what 0.1 called it
FAR = 3  # times: what a network costs at another size is not further from its share of the pixels
BASELINES = ("scratch", "kept_kernels", "random_kernels", SMALLER)


def check_baseline(name: str) -> None:
    """Refuse, with `UnknownNameError`, what is no baseline."""
    if name not in BASELINES and name not in models.names():
        known = ", ".join((*BASELINES, "or the name of a network"))
        raise UnknownNameError(f"no baseline named '{name}'; there are: {known}")


def baseline_start(
    name: str, small: Network, seed: int
) -> tuple[Network | None, str | None, Mapping[str, Any]]:
    """What a baseline starts from: a network, or a name and arguments.

    `small` is the pruned network. Raises `UnknownNameError`, and `MismatchError` for a baseline
    that this network cannot have.
    """
    if name == SMALLER:
        return None, _next_smaller(small), {}
    check_baseline(name)
    if name not in BASELINES:
        return None, name, {}
    if name == "scratch":
        return None, small.name, small.arguments
    small = copy.deepcopy(small)
    kernels = [m for m in small.body.modules() if isinstance(m, LocalBinaryConv2d)]
    if not kernels:
        raise MismatchError(f"{name}: {small.name} has no ternary kernels")
    if name == "random_kernels":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in kernels:
                module.weight.copy_(module.drawn(module.channels))
        return small, None, {}
    fresh = weights.build(
        small.name, small.arguments, len(small.classes), small.preprocessing, seed
    )
    old = dict(small.body.named_modules())
    for path, module in fresh.named_modules():
        if isinstance(module, LocalBinaryConv2d):
            module.weight.copy_(old[path].weight)
    small._modules["body"] = fresh
    return small, None, {}


def _next_smaller(network: Network) -> str:
    """The costliest network of the zoo that costs no more on these images. `MismatchError`.

    Those are asked that were made for images of this size, or for those of this network.
    """
    size = network.preprocessing.size
    image = (network.preprocessing.channels, *size)
    most = count(network.body, image).macs
    found = (0, "")
    for guess, name in sorted(_made_for(network), reverse=True):
        if guess > FAR * most or FAR * guess < found[0]:
            continue  # to count takes longer
        with contextlib.suppress(MismatchError), torch.device("meta"):  # it takes no such images
            body = models.create_model(name, classes=len(network.classes), channels=image[0])
            macs = count(body, image).macs
            found = max(found, (macs, name)) if macs <= most else found
    if not found[1]:
        raise MismatchError(
            f"{SMALLER}: no network for images of {size[0]}×{size[1]} costs so little"
        )
    return found[1]


def _made_for(network: Network) -> Iterator[tuple[float, str]]:
    """The other networks for such images, each with what it would cost if maps shrank in parts."""
    height, width = network.preprocessing.size
    sizes = {(height, width), models.card(network.name).image[1:]}
    for name in models.names():
        card = models.card(name)
        if name != network.name and card.image[1:] in sizes:
            yield card.macs * height * width / (card.image[1] * card.image[2]), name
