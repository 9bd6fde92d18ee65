"""What a network may cost and must achieve: a value, and the candidates that are held to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, Literal

from leancnn.errors import ArgumentError, MismatchError
from leancnn.search.space import Architecture

Form = Literal["float32", "int8", "pruned"]
"""What a network is when it counts."""
AGAIN = 1 / 3  # epochs of training after a cut, for each before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits, each None where there is none: what is measured may reach it and not exceed it.

    >>> print(Budget(microseconds=150, accuracy=0.9))
    at most 150 µs, at least 90.00% correct
    """

    microseconds: float | None = None
    """For one image on one core, as a compiled program, on this machine."""
    bytes: float | None = None
    """Of the trainable weights as float32, as `leancnn count` says; of a network of integers, of
    all that it stores."""
    macs: float | None = None
    """Multiply-accumulates for one image."""
    accuracy: float | None = None
    """Share of images, 0..1, at least."""

    def check(self, classes: int) -> None:
        """Refuse, with `ArgumentError`, what no network could mean."""
        for name, value in (("bytes", self.bytes), ("macs", self.macs)):
            if value is not None and not 1 <= value < float("inf"):
                raise ArgumentError(f"`{name}` is 1 or more, not {value:g}")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise ArgumentError(f"`accuracy` is a share above 0, at most 1, not {self.accuracy:g}")
        if self.accuracy is not None and self.accuracy <= 1 / classes:
            raise ArgumentError(
                f"an `accuracy` of {self.accuracy:g} is what guessing among {classes} classes "
                "gives; ask for more"
            )

    def costs(self) -> dict[str, float]:
        """The limits on what a network costs, by the field of `Candidate` that each is held to."""
        found = {"microseconds": self.microseconds, "bytes": self.bytes, "macs": self.macs}
        return {name: limit for name, limit in found.items() if limit is not None}

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """The budget for people."""
        words = [f"at most {amount(name, limit)}" for name, limit in self.costs().items()]
        if self.accuracy is not None:
            words.append(f"at least {self.accuracy:.2%} correct")
        return ", ".join(words) or "no limit"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture in one of its forms, with the time that the latency model predicts here."""

    architecture: Architecture
    microseconds: float
    """Of the form."""
    form: Form = "float32"
    """Of what is trained, which is floats; "int8": it is quantized before it is compared;
    "pruned": it is cut to the budget and trained again before it is compared."""
    share: float = 1.0
    """Of the architecture's costs, about what a cut leaves."""

    @property
    def key(self) -> str:
        """The candidate in a word that is the same each time."""
        return self.architecture.key + ("" if self.form == "float32" else f" {self.form}")

    @property
    def bytes(self) -> int:
        whole = self.architecture.int8_bytes if self.form == "int8" else self.architecture.bytes
        return int(self.share * whole)

    @property
    def macs(self) -> int:
        return int(self.share * self.architecture.macs)

    @property
    def training_macs(self) -> float:
        """Multiply-accumulates for one image, by which an epoch of its training takes time."""
        again = self.share * AGAIN if self.form == "pruned" else 0.0
        return self.architecture.macs * (1 + again)

    @property
    def title(self) -> str:
        """The network and its form for people."""
        return titled(self.architecture, self.form)

    def meets(self, budget: Budget) -> bool:
        """Whether it costs no more, by the latency model and by counts."""
        return all(getattr(self, name) <= limit for name, limit in budget.costs().items())

    def to_json(self) -> dict[str, Any]:
        """Its fields as plain JSON values."""
        own = {"microseconds": round(self.microseconds, 2), "form": self.form}
        share = {} if self.share == 1 else {"share": self.share}
        return {**self.architecture.to_json(), **own, **share}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Candidate":
        """What `to_json` gave."""
        own = ("microseconds", "form", "share")
        rest = {key: item for key, item in value.items() if key not in own}
        form = value.get("form", "float32")  # what an older search has, which knew no other
        share = float(value.get("share", 1))
        return cls(Architecture.of_json(rest), float(value["microseconds"]), form, share)


FORMS: Mapping[Form, str] = {"float32": "", "int8": ", in 8-bit integers", "pruned": ", pruned"}
"""What is said of a form behind the name of a network."""


def titled(architecture: Architecture, form: Form) -> str:
    """An architecture in a form for people.

    >>> from leancnn.search.space import architectures
    >>> some = next(architectures(classes=10, channels=3, sizes=[(32, 32)], only=["resnet8"]))
    >>> titled(some, "int8")
    'resnet8 (width=8) at 32×32, in 8-bit integers'
    """
    return architecture.title + FORMS[form]


def amount(name: str, value: float) -> str:
    """A cost for people: 150 µs, 98.2 kB, 8.5 M multiply-accumulates."""
    if name == "microseconds":
        return f"{value / 1e3:.4g} ms" if value >= 1e4 else f"{value:.4g} µs"
    if name == "bytes":
        return f"{value / 1e6:.4g} MB" if value >= 1e6 else f"{value / 1e3:.4g} kB"
    if value < 1e6:
        return f"{value:,.0f} multiply-accumulates"
    return f"{value / 1e6:.4g} M multiply-accumulates"


def within(found: Iterable[Candidate], budget: Budget) -> list[Candidate]:
    """Those that meet a budget, the cheapest by the latency model first.

    Raises `MismatchError` where none does: it says which limit alone nothing meets, or which two
    together, and what comes nearest.
    """
    every = sorted(found, key=lambda one: one.microseconds)
    if not every:
        raise MismatchError("no network of the zoo takes such images; name another size")
    if fit := [one for one in every if one.meets(budget)]:
        return fit
    limits = budget.costs()
    for name, limit in limits.items():
        best = min(every, key=attrgetter(name))
        if getattr(best, name) > limit:
            raise MismatchError(
                f"nothing meets at most {amount(name, limit)}: the least is "
                f"{best.title} with {amount(name, getattr(best, name))}; ask for that"
            )
    raise MismatchError(_together(every, limits))


def either(
    floats: Sequence[Candidate],
    integers: Sequence[Candidate],
    budget: Budget,
    pruned: Sequence[Candidate] = (),
) -> list[Candidate]:
    """What meets a budget as floats, and of the rest what does as integers or when it is pruned,
    the cheapest first.

    Raises as `within`.
    """
    fit = [one for one in floats if one.meets(budget)]
    known = {one.architecture.key for one in fit}
    others = [one for one in (*integers, *pruned) if one.architecture.key not in known]
    fit += [one for one in others if one.meets(budget)]
    return within(fit or [*floats, *integers], budget)


def _together(every: Sequence[Candidate], limits: Mapping[str, float]) -> str:
    """Why limits that can each be met are not met together."""

    def over(one: Candidate) -> float:
        shares: list[float] = [getattr(one, name) / limit for name, limit in limits.items()]
        return max(shares)

    nearest = min(every, key=over)
    asked = " and ".join(f"at most {amount(name, limit)}" for name, limit in limits.items())
    has = ", ".join(amount(name, getattr(nearest, name)) for name in limits)
    return (
        f"nothing meets {asked} together, though each alone is met: the nearest is "
        f"{nearest.title} with {has}; give one of them more"
    )
