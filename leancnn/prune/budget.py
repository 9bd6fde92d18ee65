"""The cuts that are open to a network, and which of them keeps a budget."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.channels.dependencies import ChannelGroup, Dependencies
from leancnn.channels.remove import Keep, cut_body, new_widths
from leancnn.channels.select import best, divisible, legal
from leancnn.channels.sizes import Widths, reshape, widths_of
from leancnn.count import Cost, count
from leancnn.criteria import Scores
from leancnn.errors import MismatchError
from leancnn.fit import Needs, needs
from leancnn.progress import Progress
from leancnn.prune.plan import Layer
from leancnn.weights import Network

STEPS = 256  # shares of channels that a budget tries: 0 (one channel a layer), 1/256, 2/256 …
ANY_WIDTH: Mapping[str, int] = {}  # multiples of channel groups: none has one
MOST_LEGAL = 64  # coupled channels of a channel group whose legal numbers are listed


class Candidates:
    """The cuts of one network, by the scores of one criterion; layers without scores stay."""

    def __init__(
        self,
        network: Network,
        dependencies: Dependencies,
        scores: Scores,
        within: Collection[str] | None = None,
    ) -> None:
        self.network, self.dependencies, self.importance = (
            network,
            dependencies,
            _importance(dependencies, scores),
        )
        names = self.importance if within is None else self.importance.keys() & set(within)
        scored = [
            channel_group
            for channel_group in dependencies.channel_groups
            if channel_group.name in names
        ]
        self.solid = [
            channel_group for channel_group in scored if not divisible(channel_group, dependencies)
        ]
        """Channel groups that groups and shuffles let lose nothing."""
        self.channel_groups = [
            channel_group for channel_group in scored if channel_group not in self.solid
        ]
        self.costs: dict[bytes, Cost] = {}
        self.needed: dict[bytes, Needs] = {}
        self.known: dict[tuple[str, tuple[int, ...]], NDArray[np.bool_]] = {}

    def of(
        self,
        number: Callable[[ChannelGroup, str, int], int],
        among: Sequence[ChannelGroup] | None = None,
    ) -> Keep:
        """`number`: of a group, a layer and its channels, how many it may keep.

        `among`: the groups that are cut; None: all that may be.
        """
        keep = np.ones(self.dependencies.coupled_count, bool)
        for channel_group in self.channel_groups if among is None else among:
            most = {
                path: min(n, max(1, number(channel_group, path, n)))
                for path in channel_group.layers
                for n in (len(self.dependencies.writes[path]),)
            }
            key = channel_group.name, tuple(most.values())
            if key not in self.known:
                self.known[key] = best(
                    channel_group, self.dependencies, self.importance[channel_group.name], most
                )
            keep[channel_group.coupled] = self.known[key]
        return keep

    def keep(self, share: float, multiples: Mapping[str, int] = ANY_WIDTH) -> Keep:
        """The same share of every layer, to the nearest multiple of its channel group's, if any."""
        return self.of(
            lambda channel_group, _, n: _multiple(share * n, multiples.get(channel_group.name, 1))
        )

    def of_widths(self, whole: Widths, other: Widths) -> Keep:
        """What makes sizes `other` of those of `whole`, of which this network may be a cut.

        The layers in which those two differ get the channels of `other`, which must be no more than
        there are; the others stay as they are. Raises `MismatchError`.
        """
        named = {channel_group.name for channel_group in self.channel_groups}
        old, new, here = (
            {p: w[1] for p, w in x.items() if len(w) > 1}
            for x in (whole, other, widths_of(self.network.body))
        )
        differ = [
            f for f in self.dependencies.channel_groups if any(old[p] != new[p] for p in f.layers)
        ]
        for path in (path for channel_group in differ for path in channel_group.layers):
            if new[path] > here[path]:
                raise MismatchError(
                    f"{path} would grow from {here[path]} to {new[path]} channels; a cut takes away"
                )
        among = [channel_group for channel_group in differ if channel_group.name in named]
        return self.of(lambda _, path, n: new[path], among)

    def widest(
        self,
        fits: Callable[[Keep], bool],
        multiples: Mapping[str, int] = ANY_WIDTH,
        shares: int = STEPS,
    ) -> float:
        """The largest of so many shares that fits; 0, one channel a layer, when none does."""
        return _largest(lambda share: fits(self.keep(share, multiples)), shares)

    def filled(self, fits: Callable[[Keep], bool]) -> tuple[Keep, float]:
        """By the widest share, and that; but layers in groups, which go in coarse numbers, take
        back what still fits.
        """
        share = self.widest(fits)
        own = {channel_group.name: share for channel_group in self.channel_groups}
        for channel_group in self.channel_groups:
            if channel_group.equal_splits and fits(self.keep_each(own)):
                own |= self._taken_back(channel_group.name, own, fits)
        return self.keep_each(own), share

    def keep_each(self, shares: Mapping[str, float]) -> Keep:
        """A share of its own for every group."""
        return self.of(lambda channel_group, _, n: _multiple(shares[channel_group.name] * n, 1))

    def _taken_back(
        self, name: str, own: Mapping[str, float], fits: Callable[[Keep], bool]
    ) -> dict[str, float]:
        """The largest of 16 shares of one group that fits, where it is more than its own."""

        def with_share(share: float) -> bool:
            return fits(self.keep_each({**own, name: share}))

        more = _largest(with_share, 16)
        return {name: more} if more > own[name] and with_share(more) else {}

    def check(self, reached: bool, wanted: str, value: float, also: str = "") -> None:
        """Raises `MismatchError`, with the least that can be, for a goal that was not reached."""
        if not reached:
            least = self.cost(self.keep(0))
            raise MismatchError(
                f"{self.network.name} cannot be cut to {wanted} {value:g}: one channel a layer, or "
                f"the fewest its groups allow, leave {least.macs:,} MACs and {least.bytes:,} bytes"
                f"{also}"
            )

    def cost(self, keep: Keep) -> Cost:
        """What the network costs after a cut."""
        key = keep.tobytes()
        if key not in self.costs:
            image = (self.network.preprocessing.channels, *self.network.preprocessing.size)
            self.costs[key] = count(self.shaped(keep), image)
        return self.costs[key]

    def shaped(self, keep: Keep) -> torch.nn.Module:
        """A body of the sizes after a cut, with no weights worth having."""
        body = copy.deepcopy(self.network.body)
        reshape(body, new_widths(body, self.dependencies, keep))
        return body

    def cut(self, keep: Keep) -> torch.nn.Module:
        """The body after a cut."""
        return cut_body(self.network.body, self.dependencies, keep)[0].eval()

    def needs(self, keep: Keep) -> Needs:
        """Flash and RAM of the C after a cut."""
        key = keep.tobytes()
        if key not in self.needed:
            network = copy.copy(self.network)
            network._modules = {"body": self.cut(keep)}
            self.needed[key] = needs(network)
        return self.needed[key]

    def layers(self, keep: Keep) -> tuple[Layer, ...]:
        """The layers that lose channels."""
        found = []
        for group in self.channel_groups:
            importance = np.full(self.dependencies.coupled_count, np.nan)
            importance[group.coupled] = self.importance[group.name]
            for path in group.layers:
                row = self.dependencies.writes[path]
                if keep[row].all():
                    continue
                numbers = importance[row].tolist() if np.isfinite(importance[row]).all() else []
                found.append(
                    Layer(
                        path=path,
                        before=len(row),
                        kept=tuple(np.flatnonzero(keep[row]).tolist()),
                        importance=tuple(float(f"{number:.6g}") for number in numbers),
                    )
                )
        return tuple(found)

    def warnings(
        self, keep: Keep, share: float | None, multiples: Mapping[str, int] = ANY_WIDTH
    ) -> list[str]:
        """Where groups did not allow the share that layers were to keep, if any, or no cut."""
        found = []
        for channel_group in self.channel_groups:
            row = self.dependencies.writes[channel_group.name]
            if share is None or not channel_group.equal_splits:
                continue
            multiple = multiples.get(channel_group.name, 1)
            asked = min(len(row), max(1, _multiple(share * len(row), multiple)))
            got = int(keep[row].sum())
            if asked == got:
                continue
            numbers = (
                legal(channel_group, self.dependencies)
                if len(channel_group.coupled) <= MOST_LEGAL
                else []
            )
            can = f"; its groups allow {_some(numbers)}" if numbers else ""
            found.append(f"{channel_group.name} keeps {got} of {len(row)}, not {asked}{can}")
        if self.solid:
            names = ", ".join(channel_group.name for channel_group in self.solid)
            found.append(f"groups and shuffles allow no cut of {names}")
        return found


def within_memory(
    cuts: Candidates, wanted: str, value: float, *, progress: bool = False
) -> tuple[Keep, float]:
    """The cut of the largest share whose C needs no more than `value` bytes of flash or RAM.

    Raises `MismatchError` with the least that can be, `UnsupportedError` for what has no C.
    """
    with Progress(
        f"writing C of cuts for their {wanted}", STEPS.bit_length(), shown=progress
    ) as bar:

        def fits(keep: Keep) -> bool:
            found: int = getattr(cuts.needs(keep), wanted)
            bar.to(min(bar.done + 1, bar.total), bytes=f"{found:,}")
            return found <= value

        keep, share = cuts.filled(fits)
        reached = fits(keep)
        least = cuts.needs(cuts.keep(0)) if not reached else cuts.needs(keep)
    also = f"; their C needs {least.flash:,} bytes of flash and {least.ram:,} of RAM"
    cuts.check(reached, wanted, value, also)
    return keep, share


def _importance(dependencies: Dependencies, found: Scores) -> dict[str, NDArray[np.float64]]:
    """By channel group, the mean importance of what is coupled, each in its layer's mean."""
    total, times = np.zeros(dependencies.coupled_count), np.zeros(dependencies.coupled_count)
    for path, values in found.items():
        scale = float(np.abs(values).mean()) or 1.0
        np.add.at(total, dependencies.writes[path], values / scale)
        np.add.at(times, dependencies.writes[path], 1)
    importance = total / np.maximum(times, 1)
    scored = [
        channel_group
        for channel_group in dependencies.channel_groups
        if times[channel_group.coupled].any()
    ]
    return {channel_group.name: importance[channel_group.coupled] for channel_group in scored}


def _largest(fits: Callable[[float], bool], shares: int) -> float:
    """The largest of 1/shares, 2/shares … 1 that fits, where smaller ones do; 0 when none does."""
    low, high = 0, shares + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle / shares) else (low, middle)
    return low / shares


def _multiple(number: float, of: int) -> int:
    near = int(number + 0.5)
    return near if near < of else int(number / of + 0.5) * of


def _some(numbers: Sequence[int]) -> str:
    if len(numbers) <= 12:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[:11]))} … {numbers[-1]}"
