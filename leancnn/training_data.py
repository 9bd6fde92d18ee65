"""Which images a network is trained on, how they are prepared, and what is set apart.

Training, pruning and comparing ask here, so that the same words mean the same images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn import models, runs, weights
from leancnn.data import Dataset, load_dataset, names
from leancnn.errors import DataError, MismatchError, RunError, UsageError
from leancnn.preprocess import Preprocessing, shown
from leancnn.recipes import Recipe

LARGEST_SEED = 2**63 - 1
FEWEST = 16  # images, or windows, that ranges are measured on


def images_for(
    data: str | Path, preprocessing: Preprocessing, *, val_share: float | None, split_seed: int
) -> Dataset:
    """Train and validation part; with a `val_share` of 0 the first alone. Raises `DataError`."""
    dataset = load_dataset(
        data,
        preprocessing,
        parts=("train",) if val_share == 0 else ("train", "val"),
        val_share=val_share,
        seed=split_seed,
    )
    if dataset.train is None or not len(dataset.train.labels):
        raise DataError(f"{data} has no images to train on")
    return dataset


class TrainingImages:
    """The train and validation part of a data set, set apart in one way and loaded once.

    `data` is a folder or a name, as `load_dataset` takes it. Whoever loads it hands it down: to the
    criterion that scores, to the search, to the training after the cut. What was loaded stays until
    nobody has it any more, so that a pruning of hours reads what it began with.
    """

    def __init__(self, data: str, val_share: float | None = None, split_seed: int = 0) -> None:
        self.data, self.val_share, self.split_seed = data, val_share, split_seed
        self._loaded: dict[Preprocessing, Dataset] = {}

    @property
    def place(self) -> str:
        """`data`, absolute where it is a folder: for whoever reads it elsewhere."""
        return self.data if self.data in names() else str(Path(self.data).resolve())

    def prepared(self, preprocessing: Preprocessing) -> Dataset:
        """The images as a network takes them. Raises `DataError`."""
        if preprocessing not in self._loaded:
            self._loaded[preprocessing] = images_for(
                self.data, preprocessing, val_share=self.val_share, split_seed=self.split_seed
            )
        return self._loaded[preprocessing]

    def of(self, network: weights.Network) -> Dataset:
        """The images of a network. Raises as `prepared`, `MismatchError` for other classes."""
        dataset = self.prepared(network.pictures())
        network.check_classes(dataset.classes, self.data)
        return dataset

    def digest(self, network: weights.Network) -> str:
        """Hash of the images of the train part. Raises as `of`."""
        return str(self.of(network).manifest["sha256"]["train"])


def training_images(
    path: Path, data: str | Path | None, network: weights.Network
) -> TrainingImages:
    """Those of the run that `path` belongs to, or `data`. Raises `RunError` where neither is known.

    Outside a run the images are set apart as they were where `network`, saved in `path`, was
    trained, if it says so. Raises `UsageError` for a network of signals, which has none.
    """
    network.pictures()
    run, _ = runs.run_of(path)
    if run is None:
        if data is None and (data := network.known_data) is None:
            raise RunError(f"{path} is no run and does not know its data; name it with --data")
        share, cut_by = kept_cut(network, None, None)
        return TrainingImages(str(data), share, cut_by or 0)
    plan: dict[str, Any] = runs.read_run(run)["plan"]
    where = runs.images_of(run, plan["data"]) if data is None else str(data)
    cut_by = plan["seed"] if plan.get("split_seed") is None else plan["split_seed"]
    return TrainingImages(where, plan["val_share"], int(cut_by))


def kept_cut(
    start: weights.Network, val_share: float | None, split_seed: int | None
) -> tuple[float | None, int | None]:
    """What sets the val part apart, unless it is given: as where the network was trained.

    Otherwise images that it learnt from would choose the best of the networks that come of it.
    """
    before = start.trained
    if val_share is None:
        val_share = before.get("val_share")
    return val_share, before.get("split_seed") if split_seed is None else split_seed


def preprocessing_for(model: str, recipe: Recipe) -> Preprocessing:
    """From image files to what a network takes under a recipe. Raises `UnknownNameError`."""
    channels, *usual = models.card(model).image
    height, width = recipe.size or usual
    scale = recipe.scale or (height, width)
    return Preprocessing(
        size=(height, width),
        channels=recipe.channels or channels,
        scale=(max(scale[0], height), max(scale[1], width)),
        fit=recipe.fit,
    )


def keep_margin(recipe: Recipe, model: str, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe of which `size` was changed and `scale` was not: the margin between them stays.

    Else smaller windows would be cut out of images as large as before. Raises `UnknownNameError`.
    """
    _, *usual = models.card(model).image
    if "size" not in overrides or "scale" in overrides or None in (recipe.size, recipe.scale):
        return recipe
    sides = zip(recipe.size or (), recipe.scale or (), usual, strict=True)
    return recipe.changed(scale=[size + max(0, stored - side) for size, stored, side in sides])


def kept_preprocessing(
    start: weights.Network, overrides: Mapping[str, Any] | None
) -> Preprocessing:
    """That of a network which training starts from. `UsageError`: another one is asked for."""
    start.check_floats("training or pruning it")
    if given := {"size", "scale", "fit", "channels"} & set(overrides or {}):
        raise UsageError(
            "training that starts from a network takes the same images; leave out "
            + ", ".join(sorted(given))
        )
    return start.pictures()


def check_place(folder: Path, data: str | Path) -> None:
    """Refuse, with `RunError`, a run in its own data: its folders would be classes."""
    place = Path(data)
    inside = place.is_dir() and folder.resolve().is_relative_to(place.resolve())
    if inside and data not in names():
        raise RunError(
            f"{shown(folder)} lies in the data, {shown(place)}; choose a folder outside with --out"
        )


def places(
    labels: NDArray[np.int64], classes: Sequence[str], count: int, seed: int, name: str
) -> NDArray[np.intp]:
    """So many places, one of every class and then any, by `seed`; all where there are fewer.

    Raises `MismatchError` for too few, `DataError` for a class that is not there.
    """
    least = max(FEWEST, len(classes))
    if count < least:
        raise MismatchError(
            f"{count} calibration images are too few; {least} or more, one of every class"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    _, first = np.unique(labels[order], return_index=True)
    if len(first) < len(classes):
        there = set(labels.tolist())
        gone = next(c for n, c in enumerate(classes) if n not in there)
        raise DataError(f"{name} has no image of the class {gone!r} to calibrate with")
    rest = np.delete(order, first)[: max(0, count - len(first))]
    return np.sort(np.concatenate([order[first], rest]))
