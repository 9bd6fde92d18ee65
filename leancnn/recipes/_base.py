"""What a recipe is: every number of a training run that is not data, network or machine."""

import functools
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from leancnn.errors import ArgumentError, DamagedError, DataError, MismatchError, RunError
from leancnn.manifests import SIDE
from leancnn.progress import tell
from leancnn.registry import Registry
from leancnn.safe_files import read_edited

Backend = Literal["torch", "channels_last", "simd", "fake_quantized"]
Schedule = Literal["constant", "multistep", "cosine", "one-cycle"]
MOST_EPOCHS = 100_000
MOST = 1_000_000  # of a number that is not whole: float32 holds its square times any weight
LARGEST = 1e300  # a whole number beyond it may be no float
MOST_ZOOM = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train: a value, stored as JSON with each run and read back from it."""

    name: str
    source: str
    """Where the numbers come from; says so where the source is silent."""
    network: str
    """The network it was written for; it trains others too."""

    epochs: float
    """Passes over the train part; a fraction ends inside one."""
    batch: int
    """Images per step, over all processes."""

    lr: float
    """Peak learning rate, for `batch` images."""
    schedule: Schedule
    warmup: float = 0.0
    """Share of the run in which the rate rises linearly from near 0 to `lr`."""
    milestones: tuple[float, ...] = ()
    """multistep: shares of the run after which the rate is multiplied by `factor`."""
    factor: float = 0.1
    final: float = 0.0
    """cosine and one-cycle: the last rate, as a share of `lr`."""

    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_on: Literal["weights", "caffe"] = "weights"
    """`weights` leaves out norm scales and biases; `caffe` decays all but the last layer's bias,
    which learns at twice the rate."""
    bn_l1: float = 0.0
    """λ of λ·Σ|γ| over all batch-norm scales, which makes them sparse before pruning by `bn_scale`;
    0: off. Source: Liu et al., Network Slimming, ICCV 2017, Eq. 1."""
    clip: float = 0.0
    """Largest gradient norm, L2 over all parameters; 0 for none."""
    ema: float = 0.0
    """Decay per step of an average of the weights, which is then tested and saved; 0: off."""

    loss: str = "cross_entropy"
    loss_arguments: Mapping[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0

    size: tuple[int, int] | None = None
    """(height, width) of what enters the network; None: that of its table."""
    scale: tuple[int, int] | None = None
    """(height, width) at which images are stored; None: `size`. Never smaller."""
    fit: Literal["cover", "stretch", "contain"] = "cover"
    """How a picture of another shape gets there; see `Preprocessing`."""
    channels: int | None = None
    """1 gray, 3 colour; None: what the network takes."""
    pad: int = 0
    """Pixels around the stored image from which a window of the network's size is cut at random."""
    shift: int = 0
    """Largest move of the centre window in each direction, pixels; instead of `pad`."""
    border: Literal["black", "reflect"] = "black"
    """What stands outside the stored image."""
    flip: bool = False
    """Mirror every second image, left to right."""
    cutout: int = 0
    """Side of a black square at a random place, pixels; 0: none."""
    mixup: float = 0.0
    """Both parameters of the Beta distribution that mixes pairs of images; 0: none."""
    rotate: float = 0.0
    """Largest turn about the window's centre in each direction, degrees, 0 to 180."""
    zoom: float = 0.0
    """Largest change of scale: a factor of 1/(1 + zoom) to 1 + zoom, even in its logarithm."""
    colour: float = 0.0
    """Largest change of brightness, contrast and saturation, each by a factor of 1 − colour to
    1 + colour, in this order; 0 to 1. A gray image has no saturation."""

    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """balanced: an epoch draws as many images, of each class equally many; those of rare classes
    several times, augmented otherwise each time."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: the loss of an image counts by images / (classes · images of its class)."""
    patience: int = 0
    """Epochs without a better validation accuracy after which training ends; 0: it never does."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast where a few measured steps say that it is faster."""
    backend: Literal["auto", Backend] = "auto"
    """Which forward pass trains; the weights are the same. auto: the fastest of a few steps."""

    def to_json(self) -> dict[str, Any]:
        """All fields, as plain JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def changed(self, **changes: Any) -> "Recipe":
        """A copy with other values; another loss begins with its own arguments.

        Raises `UnknownNameError`, `MismatchError` for wrong values.
        """
        if "engine" in changes:
            _tell_of_engine()
            changes = _of_today(changes)
        if changes.get("loss", self.loss) != self.loss:
            changes = {"loss_arguments": {}, **changes}
        return of_json({**self.to_json(), **changes})

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in an epoch; the rest has its turn in another epoch's order."""
        return images // min(self.batch, images)

    def steps(self, images: int) -> int:
        """Steps of a whole run over so many images."""
        return max(1, round(self.epochs * self.steps_per_epoch(images)))


recipes: Registry[Recipe] = Registry("recipe")


_defaults: Registry[Recipe] = Registry("default recipe")


def epochs_of(steps: int, *, images: int, batch: int) -> float:
    """So many steps in epochs of whole batches: what `Recipe.steps` undoes for so many images."""
    return steps / (images // batch)


def recipe(value: Recipe, *, default_for: tuple[str, ...] = ()) -> Recipe:
    """Register a recipe; `default_for` are the networks it trains when none is named."""
    _check(value)
    for network in default_for:
        _defaults.register(network, value)
    return recipes.register(value.name, value)


def names() -> list[str]:
    """All recipes, in the order of their files."""
    return list(recipes)


def get(name: str) -> Recipe:
    """The recipe of that name. Raises `UnknownNameError`."""
    return recipes[name]


def for_network(network: str) -> Recipe:
    """The recipe a network is trained with when none is named: its own, else henet-fast."""
    return _defaults.get(network, recipes["henet-fast"])


def read(source: "str | Path | Recipe") -> Recipe:
    """A recipe from its name or its JSON file, as every run stores one.

    Raises `UnknownNameError` for the name or a field, `MismatchError` for a value, `DamagedError`
    for a file that is not JSON. One that was edited since leancnn wrote it is taken, and said so.
    """
    if isinstance(source, Recipe):
        return source
    if not str(source).endswith(".json"):
        return get(str(source))
    try:
        value, state = read_edited(Path(source))
    except RunError:
        raise DataError(f"{source}: no such recipe file") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{source}: a recipe is one JSON object")
    if state == "edited":
        tell(f"{source} was edited since it was written; it is taken as it stands")
    try:
        return of_json(value)
    except ArgumentError as error:  # nobody typed it: no option is to blame
        raise MismatchError(f"{source}: {str(error).replace('`', '')}") from error


def of_json(value: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.to_json` wrote, now or in 0.1.

    Raises `UnknownNameError`, `MismatchError`.
    """
    value = _of_today(value)
    types = typing.get_type_hints(Recipe)
    known: Registry[Any] = Registry("recipe field")
    known.update(types)
    for key in value:
        known[key]
    missing = [key for key in _REQUIRED if key not in value]
    if missing:
        raise ArgumentError(f"a recipe needs {', '.join(missing)}")
    made = Recipe(**{key: _fit(key, given, types[key]) for key, given in value.items()})
    _check(made)
    return made


def _of_today(value: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by the words of today: in 0.1 the backend was an engine, and SIMD batches lanes."""
    fields = {key: item for key, item in value.items() if key != "engine"}
    if "engine" in value:
        fields["backend"] = "simd" if value["engine"] == "lanes" else value["engine"]
    return fields


@functools.cache
def _tell_of_engine() -> None:
    """Say, once, what a field is called now."""
    tell("a recipe's engine is called backend now, its lanes simd; the old words work until 0.3")


_REQUIRED = ("name", "source", "network", "epochs", "batch", "lr", "schedule")


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The rate after a share 0..1 of the run: warm-up first, then the schedule.

    `multistep` counts its milestones from the start of the run; `cosine` falls as half a cosine and
    `one-cycle` linearly, both from the end of the warm-up to `final` times the peak.
    """
    if progress < recipe.warmup:
        return recipe.lr * max(progress / recipe.warmup, 0.01)
    left = (1 - progress) / (1 - recipe.warmup)  # 1 at the peak, 0 at the end
    if recipe.schedule == "multistep":
        return recipe.lr * recipe.factor ** sum(progress >= share for share in recipe.milestones)
    if recipe.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    if recipe.schedule == "constant":
        left = 1.0
    return recipe.lr * (recipe.final + (1 - recipe.final) * left)


def _fit(key: str, given: Any, wanted: Any) -> Any:
    """`given` as the type a field declares: JSON knows neither tuples nor the integer in 1.0."""
    choices = typing.get_args(wanted)
    if typing.get_origin(wanted) is Literal:
        if given not in choices:
            raise ArgumentError(f"recipe: `{key}` is one of {', '.join(choices)}, not {given!r}")
        return given
    if typing.get_origin(wanted) is not tuple and type(None) in choices:
        return None if given is None else _fit(key, given, choices[0])
    if typing.get_origin(wanted) is tuple:
        if not isinstance(given, list | tuple) or (
            ... not in choices and len(given) != len(choices)
        ):
            many = "" if ... in choices else f" of {len(choices)}"
            raise ArgumentError(f"recipe: `{key}` is a list{many}, not {given!r}")
        return tuple(_fit(key, item, choices[0]) for item in given)
    if wanted is float and type(given) is int:
        given = float(given) if abs(given) < LARGEST else math.inf
    plain = dict if typing.get_origin(wanted) is not None else wanted
    if type(given) is not plain or (isinstance(given, float) and not math.isfinite(given)):
        kind = {
            float: "a finite number",
            int: "a whole number",
            str: "a word",
            bool: "true or false",
        }
        raise ArgumentError(f"recipe: `{key}` takes {kind.get(plain, 'an object')}, not {given!r}")
    return given


def _numbers(value: Recipe) -> list[tuple[str, float]]:
    """Its numbers by field."""
    return [(key, number) for key, number in asdict(value).items() if isinstance(number, float)]


def _of_training(value: Recipe) -> Iterator[tuple[bool, str]]:
    """Whether a number of the schedule or the optimizer is wrong, and what is needed."""
    epochs = f"`epochs` above 0 and at most {MOST_EPOCHS:,}, not {value.epochs:g}"
    yield not 0 < value.epochs <= MOST_EPOCHS, epochs
    yield value.batch < 2, f"a `batch` of 2 or more, not {value.batch}"
    yield value.lr <= 0, f"`lr` above 0, not {value.lr:g}"
    yield not 0 <= value.warmup < 1, f"`warmup` from 0 to below 1, not {value.warmup:g}"
    yield not 0 <= value.ema < 1, f"`ema` from 0 to below 1, not {value.ema:g}"
    yield not 0 <= value.label_smoothing < 1, "`label_smoothing` from 0 to below 1"
    yield not 0 <= value.momentum < 1, f"`momentum` from 0 to below 1, not {value.momentum:g}"
    yield value.nesterov and value.momentum == 0, "momentum for nesterov"
    yield not all(0 <= share <= 1 for share in value.milestones), "milestones from 0 to 1"
    yield min(value.factor, value.final) < 0, "factor and final of 0 or more"
    yield value.patience < 0, f"patience of 0 or more epochs, not {value.patience}"
    twice = "balanced sampling or balanced class_weights: both would count classes twice"
    yield value.sampling == "balanced" and value.class_weights == "balanced", twice


def _of_images(value: Recipe) -> Iterator[tuple[bool, str]]:
    """The same of what is done to images, and of penalties."""
    yield value.channels not in (None, 1, 3), f"1 or 3 `channels`, not {value.channels}"
    for key, side in (("size", value.size), ("scale", value.scale)):
        wrong = side is not None and not 1 <= min(side) <= max(side) <= SIDE
        yield wrong, f"a `{key}` of 1 to {SIDE} pixels"
    sides = value.pad, value.shift, value.cutout, value.mixup
    yield max(sides) > SIDE, f"pad, shift, cutout and mixup of at most {SIDE}"
    yield bool(value.pad and value.shift), "pad or shift, not both"
    yield not 0 <= value.rotate <= 180, f"rotate from 0 to 180 degrees, not {value.rotate:g}"
    yield not 0 <= value.zoom <= MOST_ZOOM, f"zoom from 0 to {MOST_ZOOM}, not {value.zoom:g}"
    yield not 0 <= value.colour <= 1, f"colour from 0 to 1, not {value.colour:g}"
    negative = min(*sides, value.clip, value.weight_decay, value.bn_l1) < 0
    yield negative, "pad, shift, cutout, mixup, clip, weight_decay and bn_l1 of 0 or more"


def _check(value: Recipe) -> None:
    """Refuse numbers no run could use, all at once. Raises `MismatchError`."""
    large = [key for key, given in _numbers(value) if abs(given) > MOST]
    too_large = (bool(large), f"{', '.join(large)} of at most {MOST:,}, as steps are float32")
    cases = (too_large, *_of_training(value), *_of_images(value))
    if wrong := [text for bad, text in cases if bad]:
        raise ArgumentError(f"recipe {value.name} needs {'; '.join(wrong)}")
