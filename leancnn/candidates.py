"""The cuts that are open to a network, and the plan that one of them becomes."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.allot import best, divisible, legal
from leancnn.count import Cost, count
from leancnn.criteria import Scores
from leancnn.errors import DamagedError, MismatchError
from leancnn.report import table
from leancnn.surgery import Keep, cut_body, new_widths
from leancnn.weights import Network
from leancnn.widths import Widths, reshape, widths_of
from leancnn.wiring import Family, Wiring

STEPS = 256  # shares of channels that a budget tries: 0 (one channel a layer), 1/256, 2/256 …
ANY_WIDTH: Mapping[str, int] = {}  # steps of families: none has one
MOST_LEGAL = 64  # units of a family whose legal numbers are listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a plan: the channels that it keeps writing."""

    path: str
    before: int
    kept: tuple[int, ...]
    """Ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a cut will do; plain data."""

    network: str
    criterion: str
    goal: Mapping[str, float]
    """What was asked for: one of keep, expansion, macs, bytes, speedup, and its number."""
    layers: tuple[Layer, ...]
    """Of the layers that write channels, those that lose some."""
    before: Mapping[str, int]
    """trainable, frozen, macs, bytes."""
    after: Mapping[str, int]
    microseconds: tuple[float, float] | None
    """Of the compiled network here, one image, one core, before and after; None: not timed."""
    notes: tuple[str, ...]
    """Where groups, or the clock, wanted another number than was asked for."""
    seed: int = 0
    """Of the criterion random, and of training again."""
    within: tuple[str, ...] | None = None
    """The families that could be cut; None: all that the criterion scores."""
    mended: bool
    """Whether the criterion fits the kept weights to the old responses."""
    images: str | None = None
    """Hash of the training images that the criterion read; None: it read weights alone."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the criterion saw beside its scores: of `se_gate`, what `--plot-gates` draws."""

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote. Raises `DamagedError` for anything else."""
        try:
            layers = [Layer(**{**layer, "kept": tuple(layer["kept"])}) for layer in value["layers"]]
            times, within = value["microseconds"], value.get("within")
            lists = {
                "microseconds": None if times is None else tuple(times),
                "notes": tuple(value["notes"]),
                "within": None if within is None else tuple(within),
            }
            return cls(**{**value, **lists, "layers": tuple(layers)})
        except (KeyError, TypeError) as error:
            raise DamagedError(f"no plan of this version of leancnn ({error!r})") from error

    def keep(self, wiring: Wiring) -> Keep:
        """The same in units. Raises `MismatchError` for another network's plan."""
        keep = np.ones(wiring.units, bool)
        for layer in self.layers:
            row = wiring.writes.get(layer.path)
            if row is None or len(row) != layer.before:
                raise MismatchError(
                    f"this plan is not for this network: '{layer.path}' of {layer.before} channels"
                )
            keep[row] = False
        for layer in self.layers:
            keep[wiring.writes[layer.path][list(layer.kept)]] = True
        return keep

    def text(self) -> str:
        """The plan for people."""
        rows = [
            {"layer": layer.path, "channels": layer.before, "kept": len(layer.kept)}
            for layer in self.layers
        ]
        costs = [
            {
                "": name,
                "before": f"{self.before[name]:,}",
                "after": f"{self.after[name]:,}",
                "share": f"{self.after[name] / self.before[name]:.1%}",
            }
            for name in ("trainable", "frozen", "macs", "bytes")
            if self.before[name]
        ]
        if self.microseconds:
            one, two = self.microseconds
            times = {"before": f"{one:,.0f}", "after": f"{two:,.0f}", "share": f"{two / one:.1%}"}
            costs.append({"": "µs, compiled", **times})
        goal = " ".join(f"{key} {value:g}" for key, value in self.goal.items())
        lines = [f"{self.network} by {self.criterion}, {goal}", "", table(rows), "", table(costs)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class Candidates:
    """The cuts of one network, by the scores of one criterion; layers without scores stay."""

    def __init__(
        self,
        network: Network,
        wiring: Wiring,
        scores: Scores,
        within: Collection[str] | None = None,
    ) -> None:
        self.network, self.wiring, self.worth = network, wiring, _worth(wiring, scores)
        names = self.worth if within is None else self.worth.keys() & set(within)
        scored = [family for family in wiring.families if family.name in names]
        self.solid = [family for family in scored if not divisible(family, wiring)]
        """Families that groups and shuffles let lose nothing."""
        self.families = [family for family in scored if family not in self.solid]
        self.costs: dict[bytes, Cost] = {}
        self.known: dict[tuple[str, tuple[int, ...]], NDArray[np.bool_]] = {}

    def of(self, number: Callable[[Family, str, int], int]) -> Keep:
        """`number`: of a family, a layer and its channels, how many it may keep."""
        keep = np.ones(self.wiring.units, bool)
        for family in self.families:
            most = {
                path: min(n, max(1, number(family, path, n)))
                for path in family.layers
                for n in (len(self.wiring.writes[path]),)
            }
            key = family.name, tuple(most.values())
            if key not in self.known:
                self.known[key] = best(family, self.wiring, self.worth[family.name], most)
            keep[family.units] = self.known[key]
        return keep

    def keep(self, share: float, steps: Mapping[str, int] = ANY_WIDTH) -> Keep:
        """The same share of every layer, to the nearest multiple of its family's step, if any."""
        return self.of(lambda family, _, n: _multiple(share * n, steps.get(family.name, 1)))

    def like(self, whole: Widths, other: Widths) -> Keep:
        """What makes sizes `other` of those of `whole`, of which this network may be a cut.

        The layers in which those two differ get the channels of `other`, which must be no more than
        there are; the others stay as they are. Raises `MismatchError`.
        """
        named = {family.name for family in self.families}
        old, new, here = (
            {p: w[1] for p, w in x.items() if len(w) > 1}
            for x in (whole, other, widths_of(self.network.body))
        )
        differ = [f for f in self.wiring.families if any(old[p] != new[p] for p in f.layers)]
        for path in (path for family in differ for path in family.layers):
            if new[path] > here[path]:
                raise MismatchError(
                    f"{path} would grow from {here[path]} to {new[path]} channels; a cut takes away"
                )
        self.families = [family for family in differ if family.name in named]
        return self.of(lambda _, path, n: new[path])

    def widest(
        self,
        fits: Callable[[Keep], bool],
        steps: Mapping[str, int] = ANY_WIDTH,
        shares: int = STEPS,
    ) -> float:
        """The largest of so many shares that fits; 0, one channel a layer, when none does."""
        return _largest(lambda share: fits(self.keep(share, steps)), shares)

    def filled(self, fits: Callable[[Keep], bool]) -> tuple[Keep, float]:
        """By the widest share, and that; but layers in groups, whose steps are coarse, take back
        what still fits.
        """
        share = self.widest(fits)
        own = dict.fromkeys((family.name for family in self.families), share)

        def keep() -> Keep:
            return self.of(lambda family, _, n: _multiple(own[family.name] * n, 1))

        def fits_with(name: str, share: float) -> bool:
            own[name] = share
            return fits(keep())

        for family in self.families:
            if family.balances and fits(keep()):
                more = _largest(partial(fits_with, family.name), 16)
                own[family.name] = more if more > share and fits_with(family.name, more) else share
        return keep(), share

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
            image = (self.network.road.channels, *self.network.road.size)
            self.costs[key] = count(self.shaped(keep), image)
        return self.costs[key]

    def shaped(self, keep: Keep) -> torch.nn.Module:
        """A body of the sizes after a cut, with no weights worth having."""
        body = copy.deepcopy(self.network.body)
        reshape(body, new_widths(body, self.wiring, keep))
        return body

    def cut(self, keep: Keep) -> torch.nn.Module:
        """The body after a cut."""
        return cut_body(self.network.body, self.wiring, keep)[0].eval()

    def layers(self, keep: Keep) -> tuple[Layer, ...]:
        """The layers that lose channels."""
        rows = [(p, self.wiring.writes[p]) for f in self.families for p in f.layers]
        return tuple(
            Layer(path=path, before=len(row), kept=tuple(np.flatnonzero(keep[row]).tolist()))
            for path, row in rows
            if not keep[row].all()
        )

    def remarks(
        self, keep: Keep, share: float | None, steps: Mapping[str, int] = ANY_WIDTH
    ) -> list[str]:
        """Where groups did not allow the share that layers were to keep, if any, or no cut."""
        found = []
        for family in self.families:
            row = self.wiring.writes[family.name]
            if share is None or not family.balances:
                continue
            step = steps.get(family.name, 1)
            asked = min(len(row), max(1, _multiple(share * len(row), step)))
            got = int(keep[row].sum())
            if asked == got:
                continue
            numbers = legal(family, self.wiring) if len(family.units) <= MOST_LEGAL else []
            can = f"; its groups allow {_some(numbers)}" if numbers else ""
            found.append(f"{family.name} keeps {got} of {len(row)}, not {asked}{can}")
        if self.solid:
            names = ", ".join(family.name for family in self.solid)
            found.append(f"groups and shuffles allow no cut of {names}")
        return found


def _worth(wiring: Wiring, found: Scores) -> dict[str, NDArray[np.float64]]:
    """By family, the worth of each unit: the mean over its channels, each layer in its own mean."""
    total, times = np.zeros(wiring.units), np.zeros(wiring.units)
    for path, values in found.items():
        scale = float(np.abs(values).mean()) or 1.0
        np.add.at(total, wiring.writes[path], values / scale)
        np.add.at(times, wiring.writes[path], 1)
    worth = total / np.maximum(times, 1)
    scored = [family for family in wiring.families if times[family.units].any()]
    return {family.name: worth[family.units] for family in scored}


def _largest(fits: Callable[[float], bool], steps: int) -> float:
    """The largest of 1/steps, 2/steps … 1 that fits, where smaller ones do; 0 when none does."""
    low, high = 0, steps + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle / steps) else (low, middle)
    return low / steps


def _multiple(number: float, step: int) -> int:
    near = int(number + 0.5)
    return near if near < step else int(number / step + 0.5) * step


def _some(numbers: Sequence[int]) -> str:
    if len(numbers) <= 12:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[:11]))} … {numbers[-1]}"
