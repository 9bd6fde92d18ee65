"""What a search is before its first trial: a value on disk, which the same command finds again."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leancnn import manifests, recipes, runs
from leancnn.data import Dataset
from leancnn.errors import ArgumentError, DamagedError, MismatchError, RunError, WriteError
from leancnn.search.budget import Budget, Candidate, amount
from leancnn.search.feasible import Feasible
from leancnn.search.lengths import Lengths, longest, paces
from leancnn.search.request import SearchRequest

FILE = "search.json"
COPIES = 9  # of its weights that a run in training leaves on disk, momentum and a second included
KEPT = 12  # finished trials whose weights stay: the front
LOGS = 100_000  # bytes of a trial without weights


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """See the module. Everything but the hours, of which a later call may give more."""

    data: str
    data_sha256: Mapping[str, str]
    classes: tuple[str, ...]
    images: int
    """To train on."""
    val_images: int
    val_share: float | None
    budget: Budget
    asked: Mapping[str, Any]
    """Networks and sizes, as they were asked for."""
    seed: int
    rungs: tuple[int, ...]
    """Parts of a training after which networks are compared; the last is a whole one."""
    found: tuple[Candidate, ...]
    """Shapes that meet the budget, the cheapest first."""
    latency_model: Mapping[str, Any]
    """What the latency model says of its own error."""
    machine: Mapping[str, Any]
    tested: bool
    """Whether the data has a test part."""
    training_s: float = 0.0
    """Seconds that one training may take on one core."""
    pace: Mapping[str, float] = field(default_factory=dict)
    """By network, seconds of an epoch for each multiply-accumulate; empty in an older search."""

    @classmethod
    def of(
        cls, request: SearchRequest, dataset: Dataset, feasible: Feasible, hours: float, places: int
    ) -> "SearchPlan":
        """What is tried in so many hours on so many cores, and when networks are compared.

        One step of each network is timed. Raises `ArgumentError` where the time does not reach for
        one epoch.
        """
        images = 0 if dataset.train is None else len(dataset.train)
        pace = paces(feasible.found, images)
        lengths = Lengths(seconds=longest(hours, places), pace=pace, epochs=request.epochs)
        found = lengths.trainable(feasible.found)
        return cls(
            data=request.data,
            data_sha256=dict(dataset.manifest["sha256"]),
            classes=dataset.classes,
            images=images,
            val_images=0 if dataset.val is None else len(dataset.val),
            val_share=request.val_share,
            budget=request.budget,
            asked=request.space(),
            seed=request.seed,
            rungs=lengths.rungs(found),
            found=tuple(found),
            latency_model=feasible.latency_model.to_json(),
            machine=runs.machine(),
            tested="test" in dataset.manifest["parts"],
            training_s=lengths.seconds,
            pace=pace,
        )

    def epochs(self, candidate: Candidate) -> tuple[int, ...]:
        """After which a network is compared; the last are its whole training."""
        if not self.pace:
            return self.rungs
        asked = self.asked.get("epochs")
        lengths = Lengths(seconds=self.training_s, pace=self.pace, epochs=asked)
        return lengths.of(candidate, self.rungs)

    def steps(self, candidate: Candidate) -> int:
        """Of the whole training of a network."""
        batch = recipes.for_network(candidate.architecture.network).batch
        return self.epochs(candidate)[-1] * max(1, self.images // batch)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        found = [one.to_json() for one in self.found]
        return {**asdict(self), "budget": self.budget.to_json(), "found": found, "format": 1}

    @classmethod
    def read(cls, folder: Path) -> "SearchPlan":
        """The plan of a folder. Raises `RunError` where there is none, `DamagedError`."""
        value = dict(runs.read_json(folder / FILE, manifests.Search))
        for key in ("format", "sha256"):
            value.pop(key, None)
        first = value.pop("clock", None)  # what it was called first
        if value.setdefault("latency_model", first) is None:
            raise DamagedError(f"{folder / FILE} has no latency_model; search in another folder")
        value["budget"] = Budget(**value["budget"])
        value["found"] = tuple(Candidate.of_json(one) for one in value["found"])
        value["classes"], value["rungs"] = tuple(value["classes"]), tuple(value["rungs"])
        return cls(**value)

    def write(self, folder: Path) -> None:
        """Keep it. Raises `WriteError`."""
        runs.write_checked(folder / FILE, self.to_json())

    def check_same(self, other: Mapping[str, Any], folder: Path) -> None:
        """Refuse, with `RunError`, to go on in a folder with another search."""
        mine = {
            "data": self.data,
            "budget": self.budget.to_json(),
            "seed": self.seed,
            "val_share": self.val_share,
            **self.asked,
        }
        for key, value in other.items():
            if key == "pruning" and key not in mine:
                continue  # an older search, which prunes nothing
            if not _is_same(mine.get(key), value):
                raise RunError(
                    f"{folder} holds another search, with {key} {_text(mine.get(key))} and not "
                    f"{_text(value)}; give what it was begun with, or choose another folder"
                )

    def check_data(self, dataset: Dataset) -> None:
        """Refuse, with `RunError`, other images than those the search began with."""
        same = dataset.classes == self.classes
        if not same or dict(dataset.manifest["sha256"]) != dict(self.data_sha256):
            raise RunError(
                f"{self.data}: the images changed since the search began; put them back, or begin "
                "another search in a new folder"
            )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values ask the same, but for last digits: 150us and 0.15ms are one time.

    >>> _is_same({"bytes": 0.1 + 0.2}, {"bytes": 0.3}), _is_same([1, None], [1, 2])
    (True, False)
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(Budget(**value))
    return "none" if value is None else str(value)


def disk(found: Sequence[Candidate], places: int) -> int:
    """Bytes that a search may take at most: the front, what is in training, and a thousand logs."""
    largest = max(
        one.architecture.bytes for one in found
    )  # they are trained as floats, all of them
    again = any(one.form == "pruned" for one in found)  # a smaller run within the run, or two
    copies, left = (3 * COPIES, 5) if again else (COPIES, 2)
    return (copies * places + left * KEPT) * largest + 1000 * LOGS


def check_disk(folder: Path, needed: int) -> None:
    """Raises `WriteError` where less is free than a search may take."""
    place = next(each for each in (folder, *folder.resolve().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise WriteError(
            f"{folder}: the search may take {amount('bytes', needed)} and {amount('bytes', free)} "
            "are free; free that much, choose another folder, or set --bytes lower"
        )


def check_hours(hours: float) -> None:
    """Raises `ArgumentError`."""
    if not 0 < hours <= 10_000:
        raise ArgumentError(f"`hours` is above 0 and at most 10,000, not {hours:g}")


def check_no_other(folder: Path) -> None:
    """Refuse, with `RunError`, a folder that holds something else."""
    if runs.is_run(folder):
        raise RunError(f"{folder} holds a run of training; choose another folder with --out")
    rest = [path for path in folder.glob("*") if path.name != "run.lock"] if folder.exists() else []
    if rest:
        raise MismatchError(
            f"{folder} is not empty and holds no search ({rest[0].name}); choose another folder"
        )
