"""Evaluation mode for a while: whoever is handed a network gives it back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(*modules: "nn.Module") -> Iterator[None]:
    """Put modules into evaluation mode; every part then gets its own mode back.

    Part by part, because a network may be trained with some of its batch norms frozen. Every
    function that runs a network of a caller's goes through here: one left in evaluation mode would
    train its next epoch with frozen batch norms, without a word.

        with evaluating(network):
            logits = network(images)
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode
