"""How a network is trained again, around a cut."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancnn import runs
from leancnn.prune.resume import same_images, same_recipe
from leancnn.recipes import Recipe
from leancnn.train import Trained
from leancnn.train.request import TrainingRequest
from leancnn.train.run import resume_on, train_on
from leancnn.training_data import TrainingImages
from leancnn.weights import Network


@dataclass(frozen=True, slots=True)
class Retraining:
    """By which recipe, and on which images."""

    recipe: Recipe
    seed: int
    images: TrainingImages
    progress: bool

    def request(self, network: Network, rule: Mapping[str, Any] | None = None) -> TrainingRequest:
        """Of a training that starts from `network`; `rule`: see `train.rules`. Raises as it."""
        return TrainingRequest.of(
            start=network,
            recipe=self.recipe,
            seed=self.seed,
            split_seed=self.images.split_seed,
            val_share=self.images.val_share,
            rule=rule,
        )

    def run(self, network: Network, folder: Path, rule: Mapping[str, Any] | None = None) -> Trained:
        """Train into `folder`, or go on there."""
        if runs.is_run(folder):
            same_recipe(folder, self.recipe)
            same_images(folder, self.images.of(network))
            return resume_on(folder, self.images, progress=self.progress)
        request = self.request(network, rule)
        return train_on(self.images, request, out=folder, progress=self.progress)
