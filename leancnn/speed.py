"""How long the compiled form of a network takes here: one image, one core, against a whole one."""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from leancnn.errors import CompileError, MissingDependencyError, UnsupportedError
from leancnn.export import trial_images
from leancnn.native.build import FAST_FLAGS, compile_library
from leancnn.native.load import Native
from leancnn.targets.c import to_c
from leancnn.weights import Network

ROUNDS = 9
SECONDS = 0.02  # of one program's turn
LIKED = 4
"""Channels: along lines, register tiles hold 4, 8 or 12, and other widths leave tails. Small maps,
with 16 channels abreast, would like 16 more; that is not asked for yet."""
LARGEST = 2**27  # bytes of weights; the C compiler takes a dozen times as much memory
SILENT = (CompileError, MissingDependencyError, UnsupportedError)
"""What a `Clock` raises for a network that it cannot time here."""


class Clock:
    """Times bodies that do a network's work, in turns with the network's own.

    Both run in this process in short turns, so what disturbs one disturbs the other: the median of
    the turns' ratios counts, and times are told in the whole network's first. Raises
    `MissingDependencyError` without a C compiler, `CompileError`, `UnsupportedError`.
    """

    def __init__(self, network: Network) -> None:
        size = sum(p.numel() * p.element_size() for p in network.body.parameters())
        if size > LARGEST:
            raise UnsupportedError(
                f"{network.name} has {size:,} bytes of weights; above {LARGEST:,} a network is not "
                "compiled to be timed"
            )
        self.network = network
        self._image = trial_images(network, 2)[1:]
        self._whole = self._program(network.body)
        self.microseconds = 1e6 * float(np.median([_turn(self._whole) for _ in range(ROUNDS)]))
        """Of the network itself, before anything else was timed."""

    def pair(self, body: nn.Module) -> tuple[float, float]:
        """Microseconds of the network and of another body."""
        return self.microseconds, self.microseconds / self.ratio(body)

    def ratio(self, body: nn.Module) -> float:
        """How many times faster the other body is."""
        other = self._program(body)
        _turn(other)  # warms up
        return float(np.median([_turn(self._whole) / _turn(other) for _ in range(ROUNDS)]))

    def _program(self, body: nn.Module) -> Callable[[], Any]:
        network = copy.copy(self.network)
        network._modules = {"body": body}
        written = to_c(network.eval())
        library = compile_library(written.source, name=written.prefix, flags=FAST_FLAGS)
        return Native(library).bare(self._image)


def _turn(program: Callable[[], Any]) -> float:
    """Seconds of one call: the median of a turn."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        program()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
