"""Networks on disk: everything that is needed to rebuild one, checked in every byte, no pickle.

best/
  network.json         name, arguments, classes by name, preprocessing, mean and std,
                       counts, how it was made, sha256 of every tensor and of itself
  weights.safetensors  parameters and buffers, under the names of the network's own state
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leancnn import manifests, models, runs
from leancnn.channels.sizes import reshape
from leancnn.classifier import check_classes, check_images
from leancnn.compiler.integers_data import from_data, to_data
from leancnn.compiler.reference import IntegerNetwork
from leancnn.errors import (
    ArgumentError,
    DamagedError,
    LeanCNNError,
    MismatchError,
    RunError,
    UsageError,
)
from leancnn.layers import INITS, initialise
from leancnn.modes import evaluating
from leancnn.normalisation import scale_and_shift
from leancnn.preprocess import Preprocessing
from leancnn.registry import check_file_name
from leancnn.runs import FOLDERS, NETWORK, Which
from leancnn.safe_files import Tensors, load_pair, save_pair, tensor_sha256
from leancnn.signal_window import KIND, SignalWindow
from leancnn.state_arrays import fill, to_arrays

FORMAT = 3  # of network.json: 1 is that of 0.1, 2 that of the first integers; both are read
MORE = 8  # times as many parameters as saved tensors: a module may be made and replaced
MOST_ELEMENTS = 2**31  # of a network that is loaded, also before it is cut
Input = Preprocessing | SignalWindow
"""What a network is fed: pictures, prepared in one way, or windows of signal."""
MANIFEST = NETWORK
WEIGHTS = "weights.safetensors"


class Network(nn.Module):
    """A network that knows its classes and its input.

    uint8 (N, H, W, C) at `preprocessing.size` in, logits (N, classes) out; float32 where the input
    is a `SignalWindow`. `body` is the plain network of floats; `preprocessing` leads from any image
    file to its size. `mean` and `std` are those of the training images, per channel, where 0 is
    black and 1 is white.
    Raises `MismatchError` when they do not fit the channels.

    >>> leancnn.load("runs/a")(np.zeros((2, 8, 8, 3), np.uint8)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        arguments: Mapping[str, Any],
        classes: Sequence[str],
        preprocessing: Input,
        mean: Sequence[float],
        std: Sequence[float],
        made: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not len(mean) == len(std) == preprocessing.channels or min(std) <= 0:
            raise MismatchError(
                f"{preprocessing.channels} channels need as many means and positive stds, "
                f"not {mean}, {std}"
            )
        self.body = body
        self.name = name
        self.arguments = dict(arguments)
        """As `build` takes them: of the network's builder, and what a pruning cut."""
        self.classes = tuple(classes)
        self.preprocessing = preprocessing
        self.mean = tuple(map(float, mean))
        self.std = tuple(map(float, std))
        self.file_name = name  # of exported files and the symbols in them; see `called`
        self.run: str | None = None  # `runs.mark_of` where it was loaded from
        self.made = dict(made or {})
        """How: recipe, data, accuracy, versions. For people and reports; no answer depends on it.
        """
        self.scale: Tensor
        self.shift: Tensor
        both = scale_and_shift(self.mean, self.std, preprocessing.full_scale)
        for name, numbers in zip(("scale", "shift"), both, strict=True):
            by_channel = torch.tensor(numbers.tolist()).view(-1, 1, 1)
            self.register_buffer(name, by_channel, persistent=False)

    def pictures(self) -> Preprocessing:
        """How pictures become its input. Raises `UsageError` for a network of signals."""
        if isinstance(self.preprocessing, Preprocessing):
            return self.preprocessing
        raise UsageError(
            f"{self.name} decodes signals and reads no pictures; leancnn eeg evaluate and run read "
            "signals, leancnn quantize takes the run, and leancnn eeg train --keep-ratio prunes"
        )

    @property
    def trained(self) -> Mapping[str, Any]:
        """How it was last trained: recipe, data, accuracy; empty for one that never was."""
        made: Mapping[str, Any] = self.made
        while "cut from" in made:
            made = made["cut from"]
        return made

    @property
    def known_data(self) -> str | None:
        """Where the images lie that it was last trained on, or cut by: a path or a name."""
        made: Mapping[str, Any] = self.made
        while "data" not in made and "cut from" in made:
            made = made["cut from"]
        known = made.get("data")
        return None if known is None else str(known)

    @property
    def epochs(self) -> float:
        """Of all trainings behind it; 0 for one that was not trained.

        Each counts whole, however early the best network of it was saved.
        """
        return float(self.trained.get("epochs", self.trained.get("epoch", 0)))

    @property
    def quantized(self) -> bool:
        """Whether it computes in integers; then it is trained, pruned and cut no more."""
        return isinstance(self.body, IntegerNetwork)

    def check_floats(self, what: str) -> None:
        """Raises `MismatchError` for a network of integers, with which `what` cannot be done."""
        if self.quantized:
            raise MismatchError(
                f"{self.name} is quantized, and {what} needs the floats it was made from: take the "
                "network it came from, and quantize what comes of it"
            )

    @property
    def origin(self) -> str:
        """Of its run, else of its weights: where two exports differ in it, they are two."""
        return self.run or digest(self)[:16]

    def with_body(self, body: nn.Module, *, made: Mapping[str, Any], **other: Any) -> "Network":
        """Another body for the same classes and input, in evaluation mode; `made` says how, and
        `other` what else differs, as `Network` takes it."""
        keys = ("name", "arguments", "classes", "preprocessing", "mean", "std")
        same = {key: getattr(self, key) for key in keys}
        return Network(body, made=made, **same | other).eval()

    def called(self, name: str | None) -> "Network":
        """This network for files and C symbols of another name. Raises `ArgumentError`."""
        other = copy.copy(self)
        other.file_name = self.file_name if name is None else check_file_name(name)
        return other

    def check_classes(self, classes: Sequence[str], where: object) -> None:
        """Raises `MismatchError` when data has other classes than the network, or another order."""
        check_classes(self, classes, where)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, H, W, C) → float (N, C, H, W): (pixel / 255 - mean) / std, by channel."""
        planes = images.permute(0, 3, 1, 2).contiguous()
        if planes.is_floating_point():  # no copy was made yet: the caller keeps what he gave
            return planes.to(self.scale.dtype).mul(self.scale).add_(self.shift)
        return planes.to(self.scale.dtype).mul_(self.scale).add_(self.shift)

    @torch.inference_mode()
    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, classes) of uint8 images (N, H, W, C), in evaluation mode; see `Classifier`.

        Raises `MismatchError` for images of another kind.
        """
        images = check_images(images, self.name, self.pictures())
        with evaluating(self):
            logits = self(torch.from_numpy(images).to(self.scale.device))
        answers: NDArray[np.float64] = logits.double().softmax(1).cpu().numpy()
        return answers

    def _tensor(self, images: Any) -> Tensor:
        """What is no tensor yet, on the network's device. Raises `MismatchError`."""
        try:
            return torch.from_numpy(np.array(images)).to(self.scale.device)
        except (TypeError, ValueError) as error:
            raise MismatchError(
                f"{self.name} takes uint8 arrays or tensors (N, H, W, C), not "
                f"{type(images).__name__} ({error})"
            ) from error

    def on(self, device: torch.device) -> "Network":
        """This network where it is there already, else a copy on `device`."""
        return self if self.scale.device == device else copy.deepcopy(self).to(device)

    def forward(self, images: Tensor | NDArray[Any]) -> Tensor:
        """Logits (N, classes) of uint8 images (N, H, W, C), a tensor or an array; of a network of
        signals of float32 features.

        Raises `MismatchError` for other shapes and for pixels that are not uint8: floats of 0 to 1
        would be answered, wrongly, without a word.
        """
        if not isinstance(images, Tensor):
            images = self._tensor(images)
        (height, width), channels = self.preprocessing.size, self.preprocessing.channels
        taken = torch.uint8 if isinstance(self.preprocessing, Preprocessing) else torch.float32
        if images.dtype != taken or tuple(images.shape[1:]) != (height, width, channels):
            raise MismatchError(
                f"{self.name} takes {str(taken)[6:]} (N, {height}, {width}, {channels}), not "
                f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}; "
                "leancnn.predict takes images of any size and kind"
            )
        logits: Tensor = self.body(self.normalise(images))
        return logits


def build(
    name: str, arguments: Mapping[str, Any], classes: int, taken: Input, seed: int | None = None
) -> nn.Module:
    """The body of a network for so many classes and its input's channels, as `create_model`.

    Among the arguments may stand `cut`, the sizes that pruning left (see `widths`); the network
    then has fresh weights of those sizes, drawn as its argument `init` says where that is one of
    `layers.INITS`, else as "kaiming".
    """
    arguments = dict(arguments)
    for key in ("classes", "channels", "seed"):
        if key in arguments:
            raise MismatchError(f"{key} is not among a network's arguments; it is given by itself")
    cut = arguments.pop("cut", {})
    body = models.create_model(
        name, classes=classes, channels=taken.channels, seed=seed, **arguments
    )
    if not cut:
        return body
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        reshape(body, cut)
        init = {**models.arguments(name), **arguments}.get("init")
        initialise(body, init if init in INITS else "kaiming")
    return body


def save(network: Network, folder: str | Path, *, origin: str | None = None) -> None:
    """Save into `folder` in one step, in an export with its `origin`. Raises `WriteError`."""
    folder = Path(folder)
    if isinstance(network.body, IntegerNetwork):
        about, arrays = to_data(network.body.network)
    else:
        about, arrays = None, to_arrays(network.body.state_dict())
    manifest = {
        "format": FORMAT,
        "name": network.name,
        "arguments": network.arguments,
        "classes": list(network.classes),
        "preprocessing": network.preprocessing.to_json(),
        "mean": list(network.mean),
        "std": list(network.std),
        "counts": {
            "trainable": sum(p.numel() for p in network.body.parameters()),
            "stored": sum(array.size for array in arrays.values()),
        },
        "made": network.made,
        **({} if origin is None else {"origin": origin}),
    }
    if about is not None:
        manifest["quantized"] = about
    save_pair(folder / MANIFEST, folder / WEIGHTS, manifest, arrays)


def load(path: str | Path, which: Which | None = None) -> Network:
    """The network saved in `path`, ready to predict: its folder, or a run's (best, else last).

    Raises `RunError` when nothing is saved there, `DamagedError` when what is saved is not what was
    written, not one network, or written by a newer leancnn.

    >>> leancnn.load("runs/a").classes
    ('class 0', 'class 1', 'class 2')
    """
    folder = _find(Path(path), which)
    manifest, arrays = load_pair(folder / MANIFEST, folder / WEIGHTS, manifests.Saved)
    if manifest["format"] > FORMAT:
        raise DamagedError(f"{folder} was saved by a newer leancnn; update this one")
    try:
        network = _described(manifest, arrays, folder / MANIFEST)
    except ArgumentError as error:  # nobody typed it
        raise MismatchError(f"{folder / MANIFEST}: {error}") from error
    except LeanCNNError:
        raise
    except Exception as error:  # whatever a builder says of arguments that nobody would write
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DamagedError(f"{folder / MANIFEST}: not a saved network ({reason})") from error
    if not network.quantized:
        fill(network.body.state_dict(), arrays, folder / WEIGHTS)
    network.run = runs.mark_of(folder) if folder.resolve().name in FOLDERS else None
    return network.eval()


def _described(manifest: Mapping[str, Any], arrays: Tensors, where: Path) -> Network:
    """The network that a manifest describes, its floats not filled in yet."""
    written = manifest["preprocessing"]
    kind = SignalWindow if written.get("kind") == KIND else Preprocessing
    taken: Input = kind.from_json(written)
    classes = manifest["classes"]
    body: nn.Module
    if "quantized" in manifest:
        body = IntegerNetwork(from_data(manifest["quantized"], arrays))
    else:
        _check_size(manifest, taken, len(arrays), where)
        body = build(manifest["name"], manifest["arguments"], len(classes), taken, seed=0)
    return Network(
        body,
        name=manifest["name"],
        arguments=manifest["arguments"],
        classes=classes,
        preprocessing=taken,
        mean=manifest["mean"],
        std=manifest["std"],
        made=manifest["made"],
    )


def _check_size(manifest: Mapping[str, Any], taken: Input, arrays: int, where: Path) -> None:
    """Refuse, with `DamagedError`, arguments whose network is not that of the saved tensors.

    Built without memory first, and given up as soon as it has far more parameters than were saved:
    such as a number of layers that no machine holds.
    """
    parameters = elements = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters, elements
        if parameter is not None:
            parameters, elements = parameters + 1, elements + parameter.numel()
        if parameters > MORE * (arrays + MORE) or elements > MOST_ELEMENTS:
            raise DamagedError(f"{where} describes another network than that of its weights")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            build(manifest["name"], manifest["arguments"], len(manifest["classes"]), taken)
    finally:
        hook.remove()


def check_finite(network: Network) -> None:
    """That every weight and statistic is a number. Raises `DamagedError` naming the first not."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
            odd = int((~finite).sum())
            raise DamagedError(
                f"{network.name}: {odd} of {tensor.numel()} numbers of {name} are NaN or infinite; "
                "take another checkpoint or train it again"
            )


def digest(network: Network) -> str:
    """SHA-256 of its weights and statistics with their names and shapes, 64 hexadecimal digits."""
    arrays = to_arrays(network.body.state_dict())
    found = [f"{name} {tensor_sha256(array)}" for name, array in sorted(arrays.items())]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _find(path: Path, which: Which | None) -> Path:
    """The folder that holds the network. Raises `RunError` with what is missing."""
    if which is None and (path / MANIFEST).exists():
        return path
    wanted = FOLDERS if which is None else (which,)
    for name in wanted:
        if (path / name / MANIFEST).exists():
            return path / name
    if not path.exists():
        raise RunError(f"{path}: no such folder")
    if which is None and (path / "decoder.json").exists():
        raise RunError(f"{path} decodes EEG without a network; decoder.c in it is its C already")
    what = f"{MANIFEST} in it or in {' or '.join(wanted)}"
    raise RunError(f"{path} holds no saved network ({what}); has an epoch of its run ended?")
