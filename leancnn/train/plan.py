"""What is decided before the first step and kept to the last: a value, in every checkpoint.

Together with the data it determines every weight, on the same machine, thread count, torch version
and, in SIMD batches, C compiler.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from leancnn import losses, manifests, recipes, weights
from leancnn.count import held
from leancnn.data import Dataset
from leancnn.distributed import World, own_device
from leancnn.errors import ArgumentError, DamagedError, MismatchError, RunError, UnknownNameError
from leancnn.preprocess import Preprocessing, shown
from leancnn.process import free_memory
from leancnn.recipes import Backend, Recipe, learning_rate
from leancnn.renamed_keys import renamed
from leancnn.train.backend import environment
from leancnn.training_data import LARGEST_SEED

MOST_STEPS = 99_999_999  # eight digits in the names of checkpoints
IN_FLIGHT = 1.6  # a step's memory in what it keeps, gradients included: R-SeNet, ResNet-20
NO_VALIDATION = "patience looks at the validation part, and nothing is set apart for it"
BATCH = 256  # images that are looked at together
DIGITS = ("digits", "svhn")  # data sets that no one should mirror


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """See the module. `data` is a path or a name, as `load_dataset` takes it."""

    data: str
    data_sha256: Mapping[str, str]
    """By part."""
    val_share: float
    """Of the train part, set apart; 0: nothing is, not even the data's own val part."""
    classes: tuple[str, ...]
    images: int
    """Of the train part."""
    model: str
    arguments: Mapping[str, Any]
    recipe: Recipe
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    """Of the weights, the order and the augmentation."""
    split_seed: int | None = None
    """Of the cut of the val part; None: the seed."""
    counts: tuple[int, ...] = ()
    """Images of the train part by class."""
    epochs_before: float = 0.0
    """Of all trainings behind the weights that this one begins with."""
    backend: Backend
    precision: str
    backend_why: str = ""
    """Why these two; see `backend.Choice`."""
    threads: int
    processes: int
    rule: Mapping[str, Any] = field(default_factory=dict)
    """What the steps do beside descending the loss, `{"name": …}`; see `rules`. Empty: nothing."""
    machine: Mapping[str, Any]
    """What the numbers may depend on: versions, processor, device."""
    save_every_s: float
    save_every_steps: int | None

    @property
    def cut_seed(self) -> int:
        """What the val part was cut by."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def batch(self) -> int:
        """Images per step: the recipe's, or all there are."""
        return min(self.recipe.batch, self.images)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.recipe.steps_per_epoch(self.images)

    @property
    def epochs(self) -> float:
        """Of this training and of those before it."""
        return self.epochs_before + self.recipe.epochs

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.steps(self.images)

    def done(self, epoch: int, best_epoch: int = 0) -> bool:
        """Whether so many closed epochs are the whole run, or too many since the best one."""
        patience = self.recipe.patience
        early = patience and best_epoch and epoch - best_epoch >= patience
        return bool(early) or epoch * self.steps_per_epoch >= self.steps

    def with_length(
        self, step: int, epochs: float | None, patience: int | None
    ) -> tuple["TrainingPlan", str]:
        """The same run with another length, and a sentence that says what becomes of its rate.

        Raises `MismatchError` for one that lies behind the steps that are done, and for patience
        without a validation part.
        """
        old = self.recipe
        asked = {"epochs": epochs, "patience": patience}
        new = old.changed(**{key: given for key, given in asked.items() if given is not None})
        plan = replace(self, recipe=new)
        if new.patience and self.val_share == 0:
            raise MismatchError(NO_VALIDATION)
        if new.epochs != old.epochs and plan.steps <= step:
            done = step / self.steps_per_epoch
            raise MismatchError(f"{done:g} epochs are done; a run is lengthened to more than those")
        plan.check_sizes(asked=False)
        if new.epochs == old.epochs:
            return plan, f"patience is {new.patience} epochs from here on, it was {old.patience}"
        was = learning_rate(old, min(step / self.steps, 1.0))
        now = learning_rate(new, step / plan.steps)
        return plan, (
            f"from {old.epochs:g} to {new.epochs:g} epochs: the schedule {new.schedule} is "
            f"stretched over all of them, so the rate goes from {was:.3g} to {now:.3g} at step "
            f"{step} and ends at {learning_rate(new, 1.0):.3g}"
        )

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        own = {"recipe": self.recipe.to_json(), "preprocessing": self.preprocessing.to_json()}
        return asdict(self) | own

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "TrainingPlan":
        """The plan that `to_json` wrote. Raises `DamagedError` for one of another leancnn."""
        fields = manifests.check(value, manifests.Plan, "the plan of a run")
        try:
            known = renamed(fields)
            for key in ("classes", "mean", "std", "counts"):
                if key in known:
                    known[key] = tuple(known[key])
            known["recipe"] = recipes.of_json(known["recipe"])
            known["preprocessing"] = Preprocessing.from_json(known["preprocessing"])
            return cls(**known)
        except (KeyError, TypeError, UnknownNameError, MismatchError) as error:
            raise DamagedError(
                f"a plan of another version of leancnn ({error}); go on with that version"
            ) from error

    def check_sizes(self, *, asked: bool) -> None:
        """Refuse, with `MismatchError`, a batch that was asked for and is larger than the data.

        Also a run of more steps than the names of checkpoints count.
        """
        if asked and self.recipe.batch > self.images:
            raise MismatchError(
                f"a batch of {self.recipe.batch} is more than the {self.images} images to train "
                f"on; choose one of 2 to {self.images}"
            )
        if self.steps > MOST_STEPS:
            raise MismatchError(
                f"{self.recipe.epochs:g} epochs are {self.steps:,} steps; at most {MOST_STEPS:,}"
            )

    def warnings(self, dataset: Dataset, start: weights.Network | None = None) -> list[str]:
        """What one should know before the first step, a sentence each."""
        found = []
        if "test" not in dataset.manifest["parts"]:
            found.append(
                f"{shown(self.data)} has no test part, so 'leancnn evaluate' will have nothing to "
                "open; put images aside for it, or name another data set there with --data"
            )
        if learnt := self._learnt(start, dataset):
            found.append(learnt)
        found += self._recipe_and_images(dataset)
        if self.preprocessing.channels == 3 and all_gray(dataset):
            found.append(
                "all images are gray and are trained on in three equal channels"
                + ("" if start is not None else "; --override channels=1 takes one")
            )
        found += [*_left_out(dataset), *self._kept_of_start(), *self._too_large()]
        skipped = dataset.manifest["skipped"]
        if skipped:
            first = f"{shown(skipped[0]['file'])}: {shown(skipped[0]['reason'])}"
            found.append(f"{len(skipped)} unreadable files are left out ({first}); see run.json")
        return found

    def _recipe_and_images(self, dataset: Dataset) -> list[str]:
        """What of the recipe does not suit these images."""
        found = []
        if self.recipe.batch > self.images:
            found.append(
                f"all {self.images} images to train on make one step, for the recipe's batch "
                f"is {self.recipe.batch}; a smaller --batch makes more steps"
            )
        if self.recipe.flip and characters(dataset):
            found.append(
                f"the recipe {self.recipe.name} mirrors every second image, and a mirrored digit "
                "or letter is another or none; --override flip=false"
            )
        if self.recipe.patience and self.recipe.schedule in ("one-cycle", "cosine"):
            found.append(
                f"the schedule {self.recipe.schedule} lowers the rate until the last epoch: where "
                f"patience ends a run of {self.recipe.epochs:g} epochs early, it misses that"
            )
        return found

    def _kept_of_start(self) -> list[str]:
        """What the recipe says of the input, where the network that training starts from says
        otherwise."""
        kept = {"size": self.preprocessing.size, "channels": self.preprocessing.channels}
        return [
            f"the recipe says {key} {wanted}, but the network that training starts from has "
            f"{value}, which stays"
            for key, value in kept.items()
            if (wanted := getattr(self.recipe, key)) not in (None, value)
        ]

    def _learnt(self, start: weights.Network | None, dataset: Dataset) -> str:
        """A sentence when the network to start from learnt from images that now are for validation.

        Of one that does not say what was set apart for it, nothing is known.
        """
        if start is None:
            return ""
        before = start.trained
        of_train = before.get("data_sha256", {}).get("train")
        then = before.get("val_share"), before.get("split_seed")
        same = then == (self.val_share, self.cut_seed)
        cut = "val" in dataset.manifest["cuts"]
        if same or None in then or not cut or of_train != self.data_sha256["train"]:
            return ""
        return (
            f"images that are set apart for validation were trained on before: then a share of "
            f"{then[0]:g} by the seed {then[1]} was set apart, now {self.val_share:g} by "
            f"{self.cut_seed}; validation tells too much"
        )

    def _too_large(self) -> list[str]:
        """A sentence when a step may not fit into memory; Linux would kill it without a word."""
        device, images = own_device(), -(-self.batch // self.processes)
        on_gpu = device.type == "cuda"
        free = torch.cuda.mem_get_info(device)[0] if on_gpu else free_memory()
        with torch.device("meta"):
            body = weights.build(self.model, self.arguments, len(self.classes), self.preprocessing)
        size = self.preprocessing.size
        needs = IN_FLIGHT * images * held(body, (self.preprocessing.channels, *size))
        if free is None or needs <= free:
            return []
        where = "the GPU" if on_gpu else "this machine"
        return [
            f"a step on {images} images of {size[0]}×{size[1]} needs {needs / 1e9:.1f} GB; "
            f"{where} has {free / 1e9:.1f} free; a smaller --batch and --lr need less"
        ]

    def check_data(self, dataset: Dataset) -> None:
        """Refuse to go on with other data: `MismatchError` for classes, `RunError` for images."""
        if dataset.classes != self.classes:
            gone = sorted(set(self.classes) - set(dataset.classes))
            new = sorted(set(dataset.classes) - set(self.classes))
            raise MismatchError(
                f"{self.data}: the classes changed; gone {gone}, new {new}; begin another run"
            )
        if dataset.manifest["sha256"] != self.data_sha256:
            raise RunError(f"{self.data}: the images changed; put them back, or begin another run")

    def differences(self, world: World) -> list[str]:
        """Why a resumed run may not be bit-exact here."""
        here = {**environment(world.device, self.backend), "processes": world.size}
        then = {**self.machine, "processes": self.processes}
        return [
            f"{key}: {then[key]} → {here[key]}"
            for key in here
            if then.get(key, here[key]) != here[key]
        ]


def characters(data: Dataset) -> bool:
    """Whether the classes are digits or letters, by the name of the data or their own."""
    single = all(len(name) == 1 and name.isalnum() for name in data.classes)
    return data.name in DIGITS or (single and len(data.classes) > 2)


def all_gray(data: Dataset) -> bool:
    """Whether the three channels are equal in every image of the train and the validation part."""
    parts = [part.images for part in (data.train, data.val) if part is not None and len(part)]
    some = (images[i : i + BATCH] for images in parts for i in range(0, len(images), BATCH))
    return bool(parts) and all((few == few[..., :1]).all() for few in some)


def _left_out(data: Dataset) -> list[str]:
    """A sentence on what lies in the class folders and is no image."""
    stray = [one for one in data.manifest.get("stray", []) if one["reason"].startswith("no image")]
    if not stray:
        return []
    first = shown(stray[0]["file"])
    are = "file is" if len(stray) == 1 else "files are"
    return [f"{len(stray)} {are} left out as no image ({first}); 'leancnn check' names all"]


def check_options(
    model: str,
    arguments: Mapping[str, Any],
    recipe: Recipe,
    preprocessing: Preprocessing,
    *,
    seed: int,
    val_share: float | None,
) -> nn.Module:
    """Refuse what no run can be, before any image is decoded; the network, as shapes alone.

    Raises `UnknownNameError` for the names, `MismatchError` for the values.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ArgumentError(f"a `seed` is 0 to {LARGEST_SEED}, not {seed}")
    if val_share is not None and not 0 <= val_share < 1:
        raise ArgumentError(f"`val_share` is 0 (no validation) to below 1, not {val_share}")
    if recipe.loss == "center":
        raise ArgumentError(
            "the centre loss alone never trains the classifier; choose softmax+center"
        )
    if recipe.patience and val_share == 0:
        raise MismatchError(NO_VALIDATION)
    losses.check(recipe.loss, recipe.loss_arguments, recipe.label_smoothing)
    with torch.device("meta"), torch.no_grad():  # shapes alone: nothing is drawn, nothing computed
        network = weights.build(model, arguments, 2, preprocessing).eval()
        network(
            torch.empty(1, preprocessing.channels, *preprocessing.size)
        )  # images of this size can go through
    return network
