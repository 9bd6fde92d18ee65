"""Measure a network for a comparison: accuracy on the test part, cost, and time on this machine."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from leancnn import runs, weights
from leancnn.classifier import Classifier, check_classes
from leancnn.count import count
from leancnn.evaluate import placed
from leancnn.held_out import HeldOut, open_test_part
from leancnn.predict import probabilities
from leancnn.preprocess import Preprocessing
from leancnn.prune.latency import SILENT, Clock
from leancnn.weights import Network


class TestAccuracy:
    """The share of a test part that networks get right, each use counted once.

    Raises `DataError` without images to test, `MismatchError` for other classes.
    """

    __test__ = False  # no test, whatever its name looks like

    def __init__(self, network: Network, source: str) -> None:
        self.source = source
        self._opened: dict[Preprocessing, HeldOut] = {}  # a baseline may see another size
        self._of_network = self._part(network)
        self.images = len(self._of_network.split.labels)

    def recut(self, run: Path) -> bool:
        """See `HeldOut.recut`."""
        return self._of_network.recut(run)

    def accuracy(self, network: Classifier, run: Path, which: str = "last") -> float:
        """0..1. A use of the test part is counted in the folder of the network, once for each of a
        torch network's weights."""
        test = self._part(network)
        about = {"which": which, "sha256": test.sha256}
        if isinstance(network, Network):
            about["weights"] = weights.digest(network)
            for one in runs.evaluations(run):
                if all(one.get(key) == value for key, value in about.items()):
                    return float(one["accuracy"])
        answers = probabilities(placed(network), test.split.images).argmax(1)
        found = float((answers == np.asarray(test.split.labels)).mean())
        test.record(run, which, found, **{k: about[k] for k in about.keys() & {"weights"}})
        return found

    def _part(self, network: Classifier) -> HeldOut:
        if network.pictures() not in self._opened:
            test = open_test_part(self.source, network.pictures())
            check_classes(network, test.classes, self.source)
            self._opened[network.pictures()] = test
        return self._opened[network.pictures()]


class Figures(TypedDict):
    """What a row of a comparison says of a network; see `Row`."""

    after: float
    macs: int
    trainable: int
    microseconds: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """The test part and the clock that all rows of a comparison are measured with."""

    test: TestAccuracy
    clock: Clock | None
    """That of the whole network; None: nothing is timed."""

    def figures(self, network: Network, folder: Path, which: str = "last") -> Figures:
        """Of a network that stands in `folder`; a use of the test part is counted there."""
        cost = count(network.body, (network.pictures().channels, *network.pictures().size))
        return {
            "after": self.test.accuracy(network, folder, which),
            "macs": cost.macs,
            "trainable": cost.trainable,
            "microseconds": self._microseconds(network),
        }

    def _microseconds(self, network: Network) -> float | None:
        """None for a network that has no program here."""
        clock = self.clock
        with contextlib.suppress(*SILENT):
            if clock is not None and network.pictures() != clock.network.pictures():
                clock = Clock(network)  # an image of another size
            return None if clock is None else clock.pair(network.body)[1]
        return None
