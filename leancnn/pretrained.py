"""Weights that somebody else trained, put into a network of ours: by name, checked, without pickle.

.pt .pth .bin .ckpt   a torch state dict, read as tensors only: code in it is refused, not run
.safetensors          tensors
.onnx                 initialisers; where an exporter folded batch norms into convolutions, they
                      are made anew from a batch of images, so that the answers are the file's

The classifier stays fresh where it has other classes. Everything else must fit.
"""

import pickle
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leancnn.errors import DamagedError, MismatchError, MissingDependencyError, UsageError
from leancnn.modes import evaluating

TORCH = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (*TORCH, ".safetensors", ".onnx")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # around a state dict in a checkpoint
COUNTER = "num_batches_tracked"
Found = Mapping[str, Tensor]


def is_file_of_weights(path: object) -> bool:
    """Whether a path names such a file, and not a run or a saved network."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() in SUFFIXES


def read(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file by their names; the bias of a folded convolution is "NAME.weight+bias".

    Raises `DamagedError` for what cannot be read or holds more than tensors, `UsageError` for no
    such file, `MissingDependencyError` for ONNX without the package onnx.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file of weights")
    readers = {".safetensors": _safetensors, ".onnx": _onnx}
    try:
        found = readers.get(path.suffix.lower(), _torch)(path)
    except (MissingDependencyError, DamagedError):
        raise
    except Exception as error:  # of three libraries, each with classes of its own
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(f"{path}: no weights that can be read safely ({reason})") from error
    if not found:
        raise DamagedError(f"{path} holds no tensors")
    for name, tensor in found.items():
        if not bool(tensor.isfinite().all()):
            raise DamagedError(f"{path}: {name} has values that are no numbers")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _torch(path: Path) -> dict[str, Tensor]:
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's words advise to run what it holds
        raise DamagedError(
            f"{path}: no weights that can be read safely: it holds more than tensors, or is no "
            "file of torch; save its state_dict() anew, best as .safetensors"
        ) from error
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping):
        raise DamagedError(f"{path} holds a {type(held).__name__}, no state dict")
    return {str(name): value for name, value in held.items() if isinstance(value, Tensor)}


def _onnx(path: Path) -> dict[str, Tensor]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            "reading ONNX weights needs onnx; pip install 'leancnn[onnx]'"
        ) from error
    graph = onnx.load(path).graph
    arrays = {item.name: np.array(numpy_helper.to_array(item)) for item in graph.initializer}
    floats = {name: torch.from_numpy(a) for name, a in arrays.items() if a.dtype.kind == "f"}
    found = dict(floats)
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in floats:
            continue
        weight = floats[node.input[1]]
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        outputs = weight.shape[0] if node.op_type == "Conv" or turned else weight.shape[1]
        has_bias = len(node.input) > 2 and node.input[2] in floats
        bias = floats[node.input[2]] if has_bias else torch.zeros(outputs)  # zeros are left out
        found[f"{node.input[1]}+bias"] = bias
        if node.op_type == "Gemm" and not turned:
            found[node.input[1]] = weight.T
    return found


def check(found: Found, body: nn.Module, path: str | Path) -> None:
    """Raises `MismatchError` when a network, which may be on torch's meta device, does not fit."""
    _matched(found, body, path)


def fill(body: nn.Module, found: Found, images: Tensor, path: str | Path) -> str:
    """Put weights into a network, and say in a sentence what stayed fresh.

    `images` is a normalised batch, from which norms that were folded are made anew. Raises
    `MismatchError` with the first names and shapes that do not fit.
    """
    matched, folded, fresh = _matched(found, body, path)
    state = body.state_dict()
    with torch.no_grad():
        for name, tensor in matched.items():
            state[name].copy_(tensor)
        for norm, bias in folded.items():
            _identity(body.get_submodule(norm), bias)
    if folded:
        _renew_norms(body, list(folded), images)
    left = (
        f"; its classifier has other classes, so {' and '.join(fresh)} start anew" if fresh else ""
    )
    norms = f"; {len(folded)} batch norms that were folded are made anew" if folded else ""
    return (
        f"{len(matched)} tensors from {path}{norms}{left}; images are normalised by this data's "
        "mean and deviation"
    )


def _matched(
    found: Found, body: nn.Module, path: str | Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Tensors by our names, biases of folded convolutions by their norm, and what stays fresh."""
    state = body.state_dict()
    prefix = _prefix(found, state)
    matched: dict[str, Tensor] = {}
    fresh: list[str] = []
    wrong: list[str] = []
    folded = _folded(found, body, prefix)
    covered = {f"{norm}.{name}" for norm in folded for name, _ in _tensors(body, norm)}
    for name, own in state.items():
        tensor = found.get(prefix + name)
        if tensor is None and name.endswith(".bias") and not _folded_bias(name, folded, body):
            tensor = found.get(f"{prefix}{name.removesuffix('bias')}weight+bias")
        if tensor is not None and tensor.shape == own.shape:
            matched[name] = tensor
        elif name.startswith("fc.") and tensor is not None:
            fresh.append(name)
        elif tensor is not None:
            wrong.append(f"{name} is {tuple(tensor.shape)}, not {tuple(own.shape)}")
        elif not (name.endswith(COUNTER) or name in covered or _folded_bias(name, folded, body)):
            wrong.append(f"{name} is missing")
    if wrong or not matched:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise MismatchError(
            f"{path} is not of this network: {', '.join(wrong[:3]) or 'no name fits'}{more}"
        )
    return matched, folded, fresh


def _prefix(found: Found, state: Mapping[str, Tensor]) -> str:
    """What stands before our names in the file, such as "module.": what most of them share."""
    votes = Counter(
        name[: -len(own)]
        for own in state
        for name in found
        if name.endswith(own) and (len(name) == len(own) or name[-len(own) - 1] == ".")
    )
    return votes.most_common(1)[0][0] if votes else ""


def _norm_of(body: nn.Module) -> dict[str, str]:
    """By convolution, the batch norm that stands right behind it and has its channels."""
    parts = [(path, part) for path, part in body.named_modules() if not list(part.children())]
    return {
        path: after
        for (path, part), (after, norm) in pairwise(parts)
        if isinstance(part, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.num_features == part.out_channels
    }


def _folded(found: Found, body: nn.Module, prefix: str) -> dict[str, Tensor]:
    """By norm that the file lacks, the bias that a convolution has instead."""
    return {
        norm: found[f"{prefix}{conv}.weight+bias"]
        for conv, norm in _norm_of(body).items()
        if f"{prefix}{norm}.weight" not in found and f"{prefix}{conv}.weight+bias" in found
    }


def _folded_bias(name: str, folded: Found, body: nn.Module) -> bool:
    """Whether a convolution's own bias has gone into its norm."""
    return name.endswith(".bias") and _norm_of(body).get(name.removesuffix(".bias")) in folded


def _tensors(body: nn.Module, path: str) -> list[tuple[str, Tensor]]:
    return list(body.get_submodule(path).state_dict().items())


def _identity(norm: nn.Module, bias: Tensor) -> None:
    """Let a norm add `bias` and do nothing else, in evaluation."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.copy_(bias)


@torch.no_grad()
def _renew_norms(body: nn.Module, paths: list[str], images: Tensor) -> None:
    """Give norms the statistics of a batch, and the factors under which nothing changes.

    In training they then see about what they remember, as they did before they were folded.
    """
    for conv, norm in _norm_of(body).items():
        own = body.get_submodule(conv).bias
        if norm in paths and isinstance(own, Tensor):
            own.zero_()

    def renew(norm: Any, given: tuple[Tensor, ...]) -> None:
        x = given[0].double()
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        norm.bias.add_(mean.to(norm.bias.dtype))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.weight.copy_((var + norm.eps).sqrt())

    handles = [body.get_submodule(path).register_forward_pre_hook(renew) for path in paths]
    try:
        with evaluating(body):
            body(images)
    finally:
        for handle in handles:
            handle.remove()
