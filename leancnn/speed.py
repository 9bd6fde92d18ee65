"""How long the compiled form of a network takes here: one image, one core, against a whole one."""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from leancnn.export import trial_images
from leancnn.native.build import FAST_FLAGS, compile_library
from leancnn.native.load import Native
from leancnn.targets.c import to_c
from leancnn.weights import Network

ROUNDS = 9
SECONDS = 0.02  # of one program's turn
LIKED = (
    4  # the compiled program's register tiles hold 4, 8 or 12 channels; other widths leave tails
)


class Clock:
    """Times bodies that do a network's work, in turns with the network's own.

    Both run in this process, so what disturbs one disturbs the other; only the medians of the
    rounds count. Raises `MissingDependencyError` without a C compiler, `UnsupportedError`.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._image = trial_images(network, 2)[1:]
        self._whole = self._program(network.body)

    def pair(self, body: nn.Module) -> tuple[float, float]:
        """Microseconds of the network and of another body."""
        programs = [self._whole, self._program(body)]
        found: list[list[float]] = [[], []]
        for turn in range(ROUNDS + 1):
            for program, times in zip(programs, found, strict=True):
                taken = _turn(program)
                if turn:  # the first warms up
                    times.append(taken)
        one, two = (1e6 * float(np.median(times)) for times in found)
        return one, two

    def ratio(self, body: nn.Module) -> float:
        """How many times faster the other body is."""
        one, two = self.pair(body)
        return one / two

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
