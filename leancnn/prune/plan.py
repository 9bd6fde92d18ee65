"""What a cut will do: a value that can be printed, stored and compared before anything is cut."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from leancnn import manifests
from leancnn.channels.dependencies import Dependencies
from leancnn.channels.remove import Keep
from leancnn.errors import ArgumentError, DamagedError, MismatchError, UsageError
from leancnn.prune.goal import Goal
from leancnn.renamed_keys import renamed
from leancnn.tables import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a plan: the channels that it keeps writing."""

    path: str
    before: int
    kept: tuple[int, ...]
    """Ascending."""
    importance: tuple[float, ...] = ()
    """Of each channel, in units of the criterion, coupled channels alike; empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """What a cut will do; plain data."""

    network: str
    criterion: str
    goal: Goal
    """What was asked for."""
    layers: tuple[Layer, ...]
    """Of the layers that write channels, those that lose some."""
    before: Mapping[str, int]
    """trainable, frozen, macs, bytes; of a goal of flash or RAM also these."""
    after: Mapping[str, int]
    microseconds: tuple[float, float] | None
    """Of the compiled network here, one image, one core, before and after; None: not timed."""
    warnings: tuple[str, ...]
    """Where groups, or the clock, wanted another number than was asked for."""
    seed: int = 0
    """Of the criterion random, and of training again."""
    within: tuple[str, ...] | None = None
    """The channel groups that could be cut; None: all that the criterion scores."""
    reconstructed: bool
    """Whether the criterion fits the kept weights to the old responses."""
    images: str | None = None
    """Hash of the training images that the criterion read; None: it read weights alone."""
    observed: Mapping[str, Any] = field(default_factory=dict)
    """What the criterion saw beside its scores: of `se_gate`, what `--plot-gates` draws."""

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**asdict(self), "goal": self.goal.to_json()}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "PruningPlan":
        """The plan that `to_json` wrote, now or in 0.1. Raises `DamagedError` for anything else."""
        manifests.check(value, manifests.Pruning, "the plan of a pruning")
        value = renamed(value)
        try:
            layers = [_layer(layer) for layer in value["layers"]]
            times, within = value["microseconds"], value.get("within")
            lists = {
                "microseconds": None if times is None else tuple(times),
                "warnings": tuple(value["warnings"]),
                "within": None if within is None else tuple(within),
            }
            goal = Goal.of(**value["goal"])
            return cls(**{**value, **lists, "goal": goal, "layers": tuple(layers)})
        except (ArgumentError, KeyError, TypeError, UsageError) as error:
            raise DamagedError(f"no plan of this version of leancnn ({error!r})") from error

    def keep(self, dependencies: Dependencies) -> Keep:
        """The same in coupled channels. Raises `MismatchError` for another network's plan."""
        keep = np.ones(dependencies.coupled_count, bool)
        for layer in self.layers:
            row = dependencies.writes.get(layer.path)
            if row is None or len(row) != layer.before:
                raise MismatchError(
                    f"this plan is not for this network: '{layer.path}' of {layer.before} channels"
                )
            keep[row] = False
        for layer in self.layers:
            keep[dependencies.writes[layer.path][list(layer.kept)]] = True
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
            for name in ("trainable", "frozen", "macs", "bytes", "flash", "ram")
            if self.before.get(name)
        ]
        if self.microseconds:
            one, two = self.microseconds
            times = {"before": f"{one:,.0f}", "after": f"{two:,.0f}", "share": f"{two / one:.1%}"}
            costs.append({"": "µs, compiled", **times})
        lines = [
            f"{self.network} by {self.criterion}, {self.goal}",
            "",
            table(rows),
            "",
            table(costs),
        ]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def _layer(value: Mapping[str, Any]) -> Layer:
    lists = {key: tuple(value[key]) for key in ("kept", "importance") if key in value}
    return Layer(**{**value, **lists})
