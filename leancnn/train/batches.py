"""What a step is given: images cut, mirrored, normalised, mixed; a function of its number."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leancnn.data import Split
from leancnn.data._augment import augment, balanced_order, mix_share, order, partners
from leancnn.distributed import World
from leancnn.train.plan import TrainingPlan
from leancnn.weights import Network

ON_DEVICE_BYTES = 8 << 30  # a train part up to this size moves to the GPU as a whole


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's part of a step."""

    images: Tensor
    """Normalised floats (N, C, H, W)."""
    labels: Tensor
    """(N,): places in the classes."""
    share: float
    """How much of each image is its own; the rest is its partner's (mixup)."""


class Batches:
    """The batches of a run, by step number; each epoch has an order of its own."""

    def __init__(self, plan: TrainingPlan, split: Split, network: Network, world: World) -> None:
        self.plan, self.split, self.network, self.world = plan, split, network, world
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        self._labels = torch.from_numpy(np.array(split.labels)).to(world.device)
        self._images: Tensor | None = None
        if world.device.type == "cuda" and split.images.nbytes <= ON_DEVICE_BYTES:
            self._images = torch.from_numpy(np.array(split.images)).to(world.device)

    def draws(self, step: int) -> NDArray[np.int64]:
        """What the images of a step are drawn by, over all processes.

        Number k stands for the image in place k mod n of the split: where classes are balanced, one
        comes several times, each time augmented by a number of its own.
        """
        plan = self.plan
        epoch, place = divmod(step, plan.steps_per_epoch)
        if epoch != self._epoch:
            balanced = plan.recipe.sampling == "balanced"
            self._epoch = epoch
            self._order = (
                balanced_order(plan.seed, epoch, self.split.labels)
                if balanced
                else order(plan.seed, epoch, plan.images)
            )
        return self._order[place * plan.batch :][: plan.batch]

    def rows(self, step: int) -> NDArray[np.int64]:
        """The places in the split of all images of a step, over all processes."""
        return self.draws(step) % self.plan.images

    def files(self, step: int) -> list[str]:
        """The files of a step."""
        return [self.split.files[row] for row in self.rows(step)]

    def of(self, step: int) -> Batch:
        """The batch of a step. Raises `MismatchError` when processes cannot share it equally."""
        plan, recipe = self.plan, self.plan.recipe
        epoch = step // plan.steps_per_epoch
        drawn = self.world.part(self.draws(step))
        rows = drawn % plan.images
        windows = augment(
            self._stored(rows),
            drawn,
            size=plan.preprocessing.size,
            seed=plan.seed,
            epoch=epoch,
            pad=recipe.pad,
            shift=recipe.shift,
            border=recipe.border,
            flip=recipe.flip,
            cutout=recipe.cutout,
            rotate=recipe.rotate,
            zoom=recipe.zoom,
            colour=recipe.colour,
        )
        images = self.network.normalise(windows)
        share = 1.0
        if recipe.mixup:
            share = mix_share(plan.seed, epoch, step, recipe.mixup)
            images = share * images + (1 - share) * partners(images)
        return Batch(images, self._labels[self._to(rows)], share)

    def _stored(self, rows: NDArray[np.int64]) -> Tensor:
        """uint8 (N, h, w, C) on the device."""
        if self._images is not None:
            return self._images[self._to(rows)]
        return self._to(np.asarray(self.split.images[rows]))

    def _to(self, array: NDArray[np.int64] | NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(array).to(self.world.device)
