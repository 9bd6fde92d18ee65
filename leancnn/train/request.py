"""What a training is asked to do, resolved and checked before any image is decoded: a value.

With the images it becomes the plan, which also knows classes, counts and this machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn import pretrained, recipes, weights
from leancnn.data import Dataset
from leancnn.distributed import World
from leancnn.errors import UsageError
from leancnn.preprocess import Preprocessing
from leancnn.recipes import Recipe
from leancnn.train.plan import TrainingPlan, all_gray, characters, check_options
from leancnn.training_data import (
    TrainingImages,
    keep_margin,
    kept_cut,
    kept_preprocessing,
    preprocessing_for,
)
from leancnn.weights import Network

GRAY = "all images are gray, and so is what the network takes; --override channels=3 keeps three"
SMALLEST_STD = 1 / 255  # of images that are all of one grey


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """Which network, by which recipe, from which weights."""

    model: str
    arguments: Mapping[str, Any]
    recipe: Recipe
    named: frozenset[str]
    """The fields of the recipe that somebody asked for by name; "recipe": the whole of it."""
    preprocessing: Preprocessing
    start: Network | None
    """Whose weights, input and normalisation it begins with."""
    gray: bool = False
    """Whether it takes one channel because all images are gray."""
    foreign: pretrained.Found = field(default_factory=dict)
    """Tensors that somebody else trained, by name."""
    origin: str = ""
    """The file they came from."""
    seed: int
    split_seed: int | None
    val_share: float | None
    save_every_s: float
    save_every_steps: int | None
    rule: Mapping[str, Any] = field(default_factory=dict)
    """See `TrainingPlan`."""

    @classmethod
    def of(
        cls,
        *,
        model: str | None = None,
        recipe: str | Path | Recipe | None = None,
        arguments: Mapping[str, Any] | None = None,
        start: Network | str | Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
        split_seed: int | None = None,
        val_share: float | None = None,
        save_every_s: float = 60.0,
        save_every_steps: int | None = None,
        rule: Mapping[str, Any] | None = None,
    ) -> "TrainingRequest":
        """The words of `train`, each in the place of what it leaves open. Raises as `train`."""
        overrides = dict(overrides or {})
        network, foreign, origin = _first_weights(start)
        if network is not None:
            if model is not None or arguments:
                raise UsageError(
                    "training that starts from a network takes no model and no arguments"
                )
            model, arguments = network.name, network.arguments
            val_share, split_seed = kept_cut(network, val_share, split_seed)
        usual = model or "henet_r3"
        chosen = recipes.for_network(usual) if recipe is None else recipes.read(recipe)
        chosen = chosen.changed(**overrides)
        model = model or chosen.network
        chosen = keep_margin(chosen, model, overrides)
        request = cls(
            model=model,
            arguments=dict(arguments or {}),
            recipe=chosen,
            named=frozenset(overrides) | ({"recipe"} if recipe is not None else set()),
            preprocessing=(
                preprocessing_for(model, chosen)
                if network is None
                else kept_preprocessing(network, overrides)
            ),
            start=network,
            foreign=foreign,
            origin=origin,
            seed=seed,
            split_seed=split_seed,
            val_share=val_share,
            save_every_s=save_every_s,
            save_every_steps=save_every_steps,
            rule=rule or {},
        )
        request.check()
        return request

    def check(self) -> None:
        """Refuse what no run can be. Raises as `check_options`; `DamagedError`, `MismatchError`."""
        body = check_options(
            self.model,
            self.arguments,
            self.recipe,
            self.preprocessing,
            seed=self.seed,
            val_share=self.val_share,
        )
        if self.foreign:
            pretrained.check(self.foreign, body, self.origin)

    def images(self, data: str | Path) -> TrainingImages:
        """The images that it is about, in the parts that it asks for; nothing is opened yet."""
        cut_by = self.seed if self.split_seed is None else self.split_seed
        return TrainingImages(str(data), self.val_share, cut_by)

    def fitted(self, dataset: Dataset) -> "TrainingRequest":
        """The same, of one channel where nobody asked for another and all images are gray."""
        asked = self.named & {"recipe", "channels"} or self.start is not None or self.foreign
        if asked or self.preprocessing.channels != 3 or not all_gray(dataset):
            return self
        one = replace(self.preprocessing, channels=1)
        return replace(self, recipe=self.recipe.changed(channels=1), preprocessing=one, gray=True)

    def plan(self, data: str, dataset: Dataset, world: World) -> tuple[TrainingPlan, list[str]]:
        """The plan on these images, in plain torch so far, and what to say before the first step.

        Raises `MismatchError` for other classes than those of `start`, and for sizes.
        """
        mean, std = dataset.mean_std()
        if self.start is not None:
            self.start.check_classes(dataset.classes, data)
            mean, std = self.start.mean, self.start.std
        recipe, warnings = self._unmirrored(dataset)
        warnings += [GRAY] if self.gray else []
        train = dataset.of_train
        plan = TrainingPlan(
            data=data,
            data_sha256=dataset.manifest["sha256"],
            val_share=dataset.val_share if self.val_share is None else self.val_share,
            classes=dataset.classes,
            images=len(train.labels),
            counts=tuple(np.bincount(train.labels, minlength=len(dataset.classes)).tolist()),
            model=self.model,
            arguments=self.arguments,
            recipe=recipe,
            preprocessing=self.preprocessing,
            mean=mean,
            std=tuple(max(value, SMALLEST_STD) for value in std),
            seed=self.seed,
            split_seed=self.split_seed,
            epochs_before=0.0 if self.start is None else self.start.epochs,
            backend="torch",
            precision="fp32",
            threads=torch.get_num_threads(),
            processes=world.size,
            rule=self.rule,
            machine={},
            save_every_s=self.save_every_s,
            save_every_steps=self.save_every_steps,
        )
        plan.check_sizes(asked="batch" in self.named)
        return plan, [*warnings, *plan.warnings(dataset, self.start)]

    def _unmirrored(self, dataset: Dataset) -> tuple[Recipe, list[str]]:
        """A recipe that nobody chose does not mirror characters."""
        asked = not self.named.isdisjoint({"recipe", "flip"})
        if asked or not self.recipe.flip or not characters(dataset):
            return self.recipe, []
        why = "nothing is mirrored, as the classes are characters; --override flip=true does it"
        return self.recipe.changed(flip=False), [why]


def _first_weights(
    start: Network | str | Path | None,
) -> tuple[Network | None, pretrained.Found, str]:
    """A network to start from, or tensors that somebody else trained and the file they are from."""
    if start is None or isinstance(start, Network):
        return start, {}, ""
    if pretrained.is_file_of_weights(start):
        return None, pretrained.read(start), str(start)
    return weights.load(start), {}, ""
