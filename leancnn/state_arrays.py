"""Tensors of a state dict as numpy arrays that can be saved, and back into their places."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leancnn.errors import DamagedError
from leancnn.safe_files import Tensors


def to_arrays(state: Mapping[str, Tensor]) -> Tensors:
    """Tensors as numpy arrays, for `safe_files.save_pair`; they share memory where they can."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def fill(state: Mapping[str, Tensor], arrays: Tensors, where: Path) -> None:
    """Copy saved tensors into those of a state; names, shapes, types must fit: `DamagedError`."""
    wrong = sorted(state.keys() ^ arrays.keys())
    wrong += [
        f"{name} {tuple(state[name].shape)} against {array.shape}"
        for name, array in arrays.items()
        if name in state and (array.shape != state[name].shape or _type(array) != state[name].dtype)
    ]
    if wrong:
        raise DamagedError(f"{where} does not fit its network: {', '.join(wrong[:3])}")
    with torch.no_grad():
        for name, array in arrays.items():
            state[name].copy_(torch.from_numpy(array.copy()))


def _type(array: Any) -> torch.dtype:
    return torch.from_numpy(array[:0].copy() if array.ndim else array.reshape(1).copy()).dtype
