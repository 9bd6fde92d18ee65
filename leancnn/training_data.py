"""Which images a network is trained on, how they are prepared, and what is set apart.

Training, pruning and comparing ask here, so that the same words mean the same images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leancnn import models, weights
from leancnn.data import Dataset, load_dataset, names
from leancnn.errors import DataError, RunError, UsageError
from leancnn.preprocess import Preprocessing, shown
from leancnn.recipes import Recipe

LARGEST_SEED = 2**63 - 1


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
    """The road of a network that training starts from. `UsageError`: another one is asked for."""
    start.check_floats("training or pruning it")
    if given := {"size", "scale", "fit", "channels"} & set(overrides or {}):
        raise UsageError(
            "training that starts from a network takes the same images; leave out "
            + ", ".join(sorted(given))
        )
    return start.pictures


def check_place(folder: Path, data: str | Path) -> None:
    """Refuse, with `RunError`, a run in its own data: its folders would be classes."""
    place = Path(data)
    inside = place.is_dir() and folder.resolve().is_relative_to(place.resolve())
    if inside and data not in names():
        raise RunError(
            f"{shown(folder)} lies in the data, {shown(place)}; choose a folder outside with --out"
        )
