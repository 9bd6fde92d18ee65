"""Measure on the test set: how often a network is right, how sure that is, and where it errs.

Each use of the test set is counted; see `held_out`.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn import manifests, runs
from leancnn.classifier import Classifier
from leancnn.data import Split, names
from leancnn.distributed import own_device
from leancnn.error_analysis import (
    MOST_MISTAKES,
    Mistake,
    RejectOption,
    copies_of_training,
    frequent_confusions,
    reject_option,
    thumbnails,
    unfinished,
    worst_mistakes,
)
from leancnn.errors import DataError, MismatchError, RunError
from leancnn.held_out import HeldOut, open_test_part
from leancnn.intervals import wilson
from leancnn.plots import confusion_matrix, contact_sheet
from leancnn.predict import open_classifier, probabilities
from leancnn.preprocess import shown
from leancnn.safe_files import save_pair
from leancnn.tables import printable, table
from leancnn.weights import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """One class: shares are 0..1, and None where nothing stands below the line."""

    name: str
    images: int
    precision: float | None
    """Of the images given this name, the share that has it."""
    recall: float | None
    """Of the images that have this name, the share that got it."""
    f1: float | None
    """Harmonic mean of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one use of a test set said about one network."""

    network: str
    which: str
    """best, last, or empty for a network outside a run."""
    data: str
    images: int
    correct: int
    accuracy: float
    low: float
    """Lower end of the 95 % interval of the accuracy (Wilson)."""
    high: float
    loss: float
    """Mean cross-entropy, nats."""
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Images by true class (row) and predicted class (column)."""
    uses: int | None
    """How often this run has been measured on these very test images, this time included."""
    changed: bool
    """Whether the same place held other test images at an earlier use."""
    recut: bool
    """Whether these were cut from a folder without a test part that holds other files than the one
    the run began with: the fifth is another, and images that were trained on may be among them."""
    skipped: int
    """Files of the test part that cannot be read."""
    all_uses: int | None
    """How often this run has been measured on any test images."""
    picture: str | None
    """Where the confusion matrix was drawn."""
    copies: tuple[str, ...] = ()
    """Test images that the run trained on, pixel by pixel."""
    unfinished: str = ""
    """A sentence when the run has epochs ahead of it."""
    mistakes: tuple[Mistake, ...] = ()
    """The surest of the wrong answers."""
    sheet: str | None = None
    """Where they were drawn."""
    rejecting: RejectOption | None = None
    """What refusing unsure answers would give, where a threshold was named."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values, and renamed ones by their old names, too, until 0.3."""
        old = {"right": self.correct, "opened": self.uses, "openings": self.all_uses}
        return asdict(self) | old

    def text(self) -> str:
        """The evaluation for people."""
        share = f"{self.accuracy:.2%}, 95 % interval {self.low:.2%} to {self.high:.2%}"
        lines = [
            f"{printable(self.network)}{f' ({self.which})' if self.which else ''} "
            f"on the test part of {printable(self.data)}",
            f"accuracy {share}; {self.correct:,} of {self.images:,} correct, loss {self.loss:.4f}",
            "",
            table([asdict(figures) for figures in self.classes]),
        ]
        if self.picture is not None:
            lines.append(f"\nconfusion matrix: {printable(self.picture)}")
        if self.uses is not None:
            often = "once" if self.uses == 1 else f"{self.uses} times"
            others = (self.all_uses or 0) - self.uses
            more = f", and others {'once' if others == 1 else f'{others} times'}" if others else ""
            lines.append(f"this run has been measured on these test images {often}{more}")
        if self.changed:
            lines.append("they are not those that an earlier use found there")
        if self.recut:
            lines.append(
                "the folder has other files than when the run began, and no test part of its own: "
                "images that were trained on may be among these"
            )
        if self.skipped:
            lines.append(
                f"{self.skipped:,} unreadable file{'s' * (self.skipped > 1)} left out; leancnn "
                "check names them"
            )
        return "\n".join([*lines, *self._doubts()])

    def _doubts(self) -> list[str]:
        """What a reader of the accuracy should know beside it."""
        lines = []
        if self.rejecting is not None:
            one = self.rejecting
            rate = "none" if one.accuracy is None else f"{one.accuracy:.2%}"
            lines.append(
                f"answering from {one.threshold:g} on: {one.answered:,} of {self.images:,} "
                f"({one.coverage:.2%}), of which {rate} are correct"
            )
        if self.sheet is not None:
            lines.append(f"worst mistakes: {printable(self.sheet)}")
        if self.copies:
            first = ", ".join(map(printable, self.copies[:3]))
            lines.append(
                f"warning: {len(self.copies):,} test images are copies of training images "
                f"({first} …), so the accuracy is too high; 'leancnn check' names all"
            )
        if self.unfinished:
            lines.append(f"warning: {printable(self.unfinished)}")
        return lines


def evaluate(
    network: Classifier | str | Path,
    data: str | Path | None = None,
    *,
    which: runs.Which | None = None,
    picture: str | Path | None = None,
    reject: float | None = None,
) -> Evaluation:
    """Test a network on a test set, once.

    `network` is a run (its best network, or `which`), the folder of a saved network, a compiled or
    exported file, or whatever answers (see `Classifier`). `data` defaults to what the run was
    trained on. Classes are matched by name. For a run the use of the test set is counted, and the
    confusion matrix drawn into it unless `picture` says where; that of other `data` has their name
    in its own. With `reject`, also the coverage and accuracy of answers of at least that
    probability. The surest mistakes of a run are drawn beside the confusion matrix.
    Raises `DataError` without test images, `MismatchError` when the class names differ, `RunError`.

    >>> tested = leancnn.evaluate("runs/a")
    >>> tested.low <= tested.accuracy <= tested.high
    True
    >>> tested.uses, tested.images
    (1, 18)
    """
    one = _tested(network, data, which)
    if one.run is not None:
        runs.evaluations(one.run)  # a damaged count stops here, not after the use
    test = open_test_part(one.source, one.network.pictures())
    truth = np.asarray(_places(test.classes, one.network.classes))[test.split.labels]
    answers = probabilities(placed(one.network), test.split.images)
    counts = confusion(truth, answers.argmax(1), len(one.network.classes))
    correct = int(np.trace(counts))
    other = "" if data is None else f"-{Path(data).resolve().name}"
    label = f"{one.which or 'cut'}{other}"  # other data than its own leave its files alone
    if picture is None and one.run is not None:
        picture = one.run / f"confusion-{label}.png"
    if picture is not None:  # what cannot be written is no use of it, what was seen is one
        runs.check_writable(Path(picture))
    uses = None if one.run is None else test.record(one.run, one.which, correct / len(truth))
    mistakes, rows = worst_mistakes(answers, truth, one.network.classes, test.split.files)
    sheet = None
    if picture is not None:
        sheet = _draw(Path(picture), one.network.classes, counts, test.split, mistakes, rows)
    found = replace(
        _figures(one, test, answers, truth, counts),
        uses=None if uses is None else uses.of_these,
        changed=uses is not None and uses.changed,
        all_uses=None if uses is None else uses.of_any,
        mistakes=tuple(mistakes[:MOST_MISTAKES]),
        sheet=None if sheet is None else str(sheet),
        rejecting=None if reject is None else reject_option(answers, truth, reject),
        picture=None if picture is None else str(picture),
    )
    if one.run is not None:
        _keep(found, one.run / f"evaluation-{label}.json", test.split, mistakes, rows)
    return found


def _figures(
    one: "_Tested",
    test: HeldOut,
    answers: NDArray[np.float64],
    truth: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Evaluation:
    """What the answers are worth, and what stands behind the images that they are for."""
    correct = int(np.trace(counts))
    low, high = wilson(correct, len(truth))
    likelihood = answers[np.arange(len(truth)), truth].clip(1e-300)
    return Evaluation(
        network=one.title,
        which=one.which or "",
        data=str(one.source),
        images=len(truth),
        correct=correct,
        accuracy=correct / len(truth),
        low=low,
        high=high,
        loss=float(-np.log(likelihood).mean()),
        classes=class_figures(one.network.classes, counts),
        confusion=tuple(tuple(int(count) for count in row) for row in counts),
        uses=None,
        changed=False,
        all_uses=None,
        picture=None,
        recut=one.run is not None and test.recut(one.run),
        skipped=len(test.manifest["skipped"]),
        copies=copies_of_training(one.run, one.network.pictures(), test.split),
        unfinished=unfinished(one.run),
    )


@dataclass(frozen=True, slots=True)
class _Tested:
    """What is tested, and where its uses of the test set are counted."""

    network: Classifier
    title: str
    source: str | Path
    run: Path | None = None
    which: runs.Which | None = None


def _tested(
    network: Classifier | str | Path, data: str | Path | None, which: runs.Which | None
) -> _Tested:
    """What answers, or where it is saved; of a run, which. Raises as `evaluate`."""
    if not isinstance(network, str | Path):
        return _Tested(network, network.name, _source(None, None, data), which=which)
    title, folder = str(network), Path(network)
    run, which = runs.run_of(folder, which)
    found = open_classifier(folder if run is None else run, which)
    source = _source(run, found, data)
    if run is None and isinstance(found, Network) and "cut from" in found.made:
        run = folder  # pruned, and its images are known
    return _Tested(found, title, source, run, which)


def placed(network: Classifier) -> Classifier:
    """The same where it answers fastest: a torch network on this process's device."""
    return network.on(own_device()) if isinstance(network, Network) else network


def _draw(
    picture: Path,
    classes: Sequence[str],
    counts: NDArray[np.int64],
    test: Split,
    mistakes: Sequence[Mistake],
    rows: Sequence[int],
) -> Path | None:
    """The confusion matrix, and beside it the surest mistakes, if any: where those are."""
    images, correct = int(counts.sum()), int(np.trace(counts))
    caption = f"{correct / images:.2%} of {images:,} correct"
    runs.atomic_write(picture, confusion_matrix(classes, counts, caption))
    if not mistakes:
        return None
    sheet = picture.with_name(f"mistakes-{picture.name.removeprefix('confusion-')}")
    runs.atomic_write(sheet, _sheet(test, mistakes, rows))
    return sheet


def _keep(
    found: Evaluation, path: Path, test: Split, mistakes: Sequence[Mistake], rows: Sequence[int]
) -> None:
    """Leave the evaluation on disk, with small pictures of its frequent confusions."""
    chosen = frequent_confusions(mistakes)
    about = {
        **found.to_json(),
        "when": runs.now(),
        "pictures": [asdict(mistakes[place]) for place in chosen],
    }
    pictures = thumbnails([np.array(test.images[rows[place]]) for place in chosen])
    save_pair(path, path.with_suffix(".safetensors"), about, {"pictures": pictures})


def _sheet(test: Split, mistakes: Sequence[Mistake], rows: Sequence[int]) -> bytes:
    """The surest mistakes as a contact sheet: what was said, what is true, which file."""
    few = mistakes[:MOST_MISTAKES]
    captions = [
        f"{one.answer} {one.probability:.0%}\nis {one.true}\n{Path(one.file).name}" for one in few
    ]
    images = [np.array(test.images[row]) for row in rows[:MOST_MISTAKES]]
    return contact_sheet(images, captions, marks=[False] * len(few))


def confusion(
    truth: NDArray[np.int64], answer: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """How many images of each true class (row) got each answer (column)."""
    return np.bincount(truth * classes + answer, minlength=classes * classes).reshape(
        classes, classes
    )


def class_figures(names: Sequence[str], counts: NDArray[np.int64]) -> tuple[ClassFigures, ...]:
    """Precision, recall and F1 of each class from a confusion matrix."""
    figures = []
    for place, name in enumerate(names):
        correct = int(counts[place, place])
        given, true = int(counts[:, place].sum()), int(counts[place].sum())
        figures.append(
            ClassFigures(
                name=name,
                images=true,
                precision=correct / given if given else None,
                recall=correct / true if true else None,
                f1=2 * correct / (given + true) if given + true else None,
            )
        )
    return tuple(figures)


def _places(given: Sequence[str], known: Sequence[str]) -> list[int]:
    """Where each class of a data set stands in the network's list, by name, never by position."""
    place = {unicodedata.normalize("NFC", name): index for index, name in enumerate(known)}
    names = [unicodedata.normalize("NFC", name) for name in given]
    missing, foreign = sorted(place.keys() - set(names)), sorted(set(names) - place.keys())
    if missing or foreign:
        parts = [f"'{name}' only in the network" for name in missing[:4]]
        parts += [f"'{name}' only in the data" for name in foreign[:4]]
        more = len(missing) + len(foreign) - len(parts)
        raise MismatchError(
            f"the classes differ: {', '.join(parts)}{f' and {more} more' if more else ''}"
        )
    return [place[name] for name in names]


def _source(run: Path | None, network: Classifier | None, data: str | Path | None) -> str | Path:
    """Where the test images are: where we are told, else where the training images were."""
    if data is not None:
        return data
    if run is None:
        if network is not None:
            network.pictures()
        known = network.known_data if isinstance(network, Network) else None
        if network is None or known is None:
            raise RunError("a network outside a run does not know its data; name it with --data")
        return _there(known, network.name)
    try:
        known = str(runs.read_run(run, manifests.RunFile)["data"]["source"])
    except (KeyError, TypeError):
        raise RunError(
            f"{run / 'run.json'} does not say what data it used; name it with --data"
        ) from None
    return _there(known, run)


def _there(known: str, of: str | Path) -> str:
    if known not in names() and not Path(known).exists():
        raise DataError(
            f"{shown(known)}, the data of {shown(of)}, is not there; name its place with --data"
        )
    return known
