"""Evaluation mode, and quiet, for a while: whoever is handed a network gives it back as it was."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(*modules: "nn.Module") -> Iterator[None]:
    """Put modules into evaluation mode; every part then gets its own mode back.

    What else a caller may have set is set aside for that time, too: autocast, under which answers
    are bfloat16's, and a default type other than float32, which images made here would have.

    Part by part, because a network may be trained with some of its batch norms frozen. Every
    function that runs a network of a caller's goes through here: one left in evaluation mode would
    train its next epoch with frozen batch norms, without a word.

        with evaluating(network):
            logits = network(images)
    """
    import torch

    kind = torch.get_default_dtype()
    devices = {p.device.type for module in modules for p in module.parameters()} | {"cpu"}
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        torch.set_default_dtype(torch.float32)
        with ExitStack() as plain:
            for device in devices - {"meta"}:
                plain.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        torch.set_default_dtype(kind)
        for part, mode in modes:
            part.training = mode


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Let another library's logger say errors only, for a while."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(level)
