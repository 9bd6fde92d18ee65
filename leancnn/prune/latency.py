"""How long the compiled form of a network takes here, and what cut of it is fast enough.

One image, one core, against the whole network.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from leancnn.channels.dependencies import Dependencies
from leancnn.channels.remove import Keep
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.arena import WIDEST
from leancnn.compiler.import_torch import import_torch, readable
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.errors import CompileError, MissingDependencyError, UnsupportedError
from leancnn.parity import trial_images
from leancnn.progress import Progress
from leancnn.prune.budget import Candidates
from leancnn.targets._c_text import to_c
from leancnn.timing import in_turns, medians, times_faster, turn
from leancnn.toolchain import FAST_FLAGS, compile_library
from leancnn.weights import Network

SHARES = 32  # that a speed tries, each compiled and timed
ROUNDS = 9
SECONDS = 0.02  # of one program's turn
ALONG, BLOCK = 4, WIDEST
"""Channels that fill a kernel: register tiles along lines hold 4, 8 or 12, and on small maps whole
vectors of channels lie side by side; other widths leave tails."""
LARGEST = 2**27  # bytes of weights; the C compiler takes a dozen times as much memory
SILENT = (CompileError, MissingDependencyError, UnsupportedError)
"""What a `Clock` raises for a network that it cannot time here."""


def channel_multiples(network: Network, dependencies: Dependencies) -> dict[str, int]:
    """By channel group, what its widths should be multiples of, so that they fill SIMD vectors.

    By the program of the whole network; a narrower one may lay more channels along lines again.
    """
    shape = (network.preprocessing.channels, *network.preprocessing.size)
    program = lower(simplify(import_torch(network.body, shape)))
    schedule(program)
    named = {kernel.name for kernel in program.kernels if kernel.lays_blocked}
    rows = [row for path, row in dependencies.writes.items() if readable(path) in named]
    blocked = np.concatenate([np.empty(0, np.int64), *rows])
    return {
        channel_group.name: BLOCK if np.isin(blocked, channel_group.coupled).any() else ALONG
        for channel_group in dependencies.channel_groups
    }


class TimedCut(NamedTuple):
    """A cut that reaches a speedup."""

    share: float
    multiples: Mapping[str, int]
    """By channel group, what its widths are multiples of."""
    microseconds: tuple[float, float]
    """Of the network and of the cut."""
    warning: str
    """What those widths cost."""


def cut_to_speedup(cuts: Candidates, speedup: float, *, progress: bool = False) -> TimedCut:
    """The largest share that runs so much faster here, in widths that fill SIMD vectors.

    The share that a search by the clock ends with was lucky, so it is measured again, and the next
    smaller one where it is too slow then. Raises `MismatchError` when no cut is so fast, and as
    `Clock`.
    """
    clock = Clock(cuts.network)
    ratios: dict[bytes, float] = {}  # a second measurement of the same might say otherwise
    multiples = channel_multiples(cuts.network, cuts.dependencies)
    with Progress("timing cuts", 2 * SHARES.bit_length() + 1, shown=progress) as bar:

        def timed(keep: Keep) -> float:
            found = clock.ratio(cuts.cut(keep))
            bar.to(min(bar.done + 1, bar.total), speed=f"{found:.2f} times")
            return found

        def fits(keep: Keep) -> bool:
            key = keep.tobytes()
            ratios[key] = ratios.get(key) or timed(keep)
            return ratios[key] >= speedup

        share = cuts.widest(fits, multiples, SHARES)
        while (anew := timed(keep := cuts.keep(share, multiples))) < speedup and share:
            share = max(0.0, share - 1 / SHARES)
        fastest = max(anew, *ratios.values())
        also = f"; the fastest that was timed ran {fastest:.3g} times as fast"
        cuts.check(anew >= speedup, "speedup", speedup, also)
        free = cuts.cost(cuts.keep(cuts.widest(fits, shares=SHARES))).macs
    wide = sum(multiples[channel_group.name] == BLOCK for channel_group in cuts.channel_groups)
    many = len(cuts.channel_groups)
    also = f", and of {BLOCK} in {wide} of {many} channel groups, where they lie side by side"
    warning = (
        f"widths are multiples of {ALONG} channels, which fill the program's register tiles"
        f"{also if wide else ''}: {cuts.cost(keep).macs:,} MACs remain; with any widths the same "
        f"speed leaves {free:,}"
    )
    return TimedCut(share, multiples, (clock.microseconds, clock.microseconds / anew), warning)


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
        turns = in_turns({"whole": self._whole}, ROUNDS, SECONDS)["whole"]
        self.microseconds = 1e6 * float(np.median(medians(turns)))
        """Of the network itself, before anything else was timed."""

    def pair(self, body: nn.Module) -> tuple[float, float]:
        """Microseconds of the network and of another body."""
        return self.microseconds, self.microseconds / self.ratio(body)

    def ratio(self, body: nn.Module) -> float:
        """How many times faster the other body is."""
        other = self._program(body)
        turn(other, SECONDS)  # warms up
        turns = in_turns({"whole": self._whole, "other": other}, ROUNDS, SECONDS)
        return times_faster(medians(turns["other"]), medians(turns["whole"])).median

    def _program(self, body: nn.Module) -> Callable[[], Any]:
        network = copy.copy(self.network)
        network._modules = {"body": body}
        written = to_c(network)
        library = compile_library(written.source, name=written.prefix, flags=FAST_FLAGS)
        return CompiledNetwork(library).bare(self._image)
