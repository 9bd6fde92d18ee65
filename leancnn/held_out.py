"""The test part of a data set: one place opens it, and counts each use of it on a run.

A test set that was looked at often, to choose between networks, no longer measures what it seems
to; so every use stands in the run's evaluations.json, by the content of the test set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leancnn import manifests, runs
from leancnn.data import Split, load_dataset, names
from leancnn.errors import DataError, RunError
from leancnn.preprocess import Preprocessing


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A test part as a network takes it."""

    source: str
    """As it was named: a folder, or the name of a data set."""
    split: Split
    classes: tuple[str, ...]
    manifest: Mapping[str, Any] = field(repr=False)
    """That of the data set; see `Dataset.manifest`."""

    @property
    def sha256(self) -> str:
        """Of its content: equal exactly when the test part is the same."""
        return str(self.manifest["sha256"]["test"])

    @property
    def place(self) -> str:
        """`source`, absolute where it is a folder."""
        return self.source if self.source in names() else str(Path(self.source).resolve())

    def record(self, run: Path, which: str | None, accuracy: float, **more: Any) -> "Uses":
        """Count one more use of it on a run; `which` of its networks, `more` that tells them apart.

        Raises `DamagedError` for a count that is not what was written, `WriteError`.
        """
        entry = {
            "which": which,
            "data": self.place,
            "sha256": self.sha256,
            "images": len(self.split.labels),
            "accuracy": accuracy,
            **more,
        }
        earlier = runs.add_evaluation(run, entry)
        same = [one.get("sha256") == self.sha256 for one in earlier]
        there = [one.get("data") == self.place for one in earlier]
        return Uses(
            of_these=1 + sum(same),
            of_any=1 + len(earlier),
            changed=any(here and not one for here, one in zip(there, same, strict=True)),
        )

    def recut(self, run: Path) -> bool:
        """Whether it was cut from a folder that holds other files than when the run began.

        Then the fifth is another, and images that were trained on may be among these.
        """
        try:
            then = runs.read_run(run, manifests.RunFile)["data"]["cuts"]["test"]["names"]
            return bool(then != self.manifest["cuts"]["test"]["names"])
        except (KeyError, TypeError, RunError):  # a test part of its own, or no run
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """How often a run has been measured on a test set, this time included."""

    of_these: int
    """On these very images."""
    of_any: int
    changed: bool
    """Whether the same place held other test images at an earlier use."""


def open_test_part(source: str | Path, preprocessing: Preprocessing) -> HeldOut:
    """The test part of a data set and no other. Raises `DataError` where it has no images."""
    dataset = load_dataset(source, preprocessing, parts=("test",))
    if dataset.test is None or len(dataset.test) == 0:
        raise DataError(f"{source} has no test images")
    return HeldOut(str(source), dataset.test, dataset.classes, dataset.manifest)
