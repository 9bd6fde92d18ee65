"""How much a pruning cuts: one kind of budget and its number, a value."""

from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from leancnn.errors import ArgumentError, UsageError


class GoalWords(TypedDict, total=False):
    """A goal by its name: one of these; the others are None or absent."""

    keep: float | None
    """Share of the channels of every layer that may be cut, in 0..1."""
    expansion: float | None
    """Of networks that have this argument."""
    macs: float | None
    """The most that may remain."""
    bytes: float | None
    """The most that may remain, of the trainable weights as float32."""
    flash: float | None
    """The most bytes of constants and code that the C may need; see `leancnn.fit.needs`."""
    ram: float | None
    """The most bytes of scratch that the C may need."""
    speedup: float | None
    """Times faster, of the compiled program on this machine."""


KINDS = tuple(GoalWords.__annotations__)


@dataclass(frozen=True, slots=True)
class Goal:
    """What remains of a network: a kind, see `GoalWords`, and its number.

    Raises `UsageError` for another kind, `ArgumentError` for a number that cannot be.

    >>> Goal("macs", 5e6)
    Goal(kind='macs', value=5000000.0)
    >>> print(Goal.of(keep=0.5, macs=None))
    keep 0.5
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"name one goal: {', '.join(KINDS)}; not {self.kind}")
        if self.kind == "speedup" and 0 < self.value <= 1:
            raise ArgumentError(f"a `speedup` is a number above 1, not {self.value:g}")
        if not 0 < self.value < float("inf"):
            raise ArgumentError(f"`{self.kind}` is a finite number above 0, not {self.value}")
        if self.kind == "keep" and self.value >= 1:
            raise ArgumentError(
                "`keep` is the share of channels that stay, above 0 and below 1, not "
                f"{self.value:g}"
            )
        object.__setattr__(self, "value", float(self.value))

    @classmethod
    def of(cls, **words: Unpack[GoalWords]) -> "Goal":
        """The one that is named. Raises `UsageError` for none or several, and as the class."""
        given: dict[str, Any] = {key: value for key, value in words.items() if value is not None}
        if len(given) != 1:
            named = " and ".join(sorted(given)) or "none"
            raise UsageError(f"name one goal: {', '.join(KINDS)}; not {named}")
        ((kind, value),) = given.items()
        return cls(kind, value)

    def to_json(self) -> dict[str, float]:
        """As it is written, and as `of` takes it."""
        return {self.kind: self.value}

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"
