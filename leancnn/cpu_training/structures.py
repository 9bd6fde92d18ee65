"""What the C functions read, laid out as simd.c declares it, and its table of tensors."""

import ctypes
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leancnn.cpu_training.trace import LINEAR


class CTensor(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "scale", "shift")),
        *((name, ctypes.c_int64) for name in ("channels", "pixels", "act")),
    )


class CNode(ctypes.Structure):
    _fields_ = tuple(
        (name, kind)
        for kind, names in (
            (ctypes.c_void_p, "tensors first terms use_first uses"),
            (ctypes.c_int64, "out grad gate_grad total blocks c_in c_out groups"),
            (ctypes.c_int64, "height width out_height out_width weights"),
            (ctypes.c_void_p, "weight weight_grad weight_partial"),
            (ctypes.c_int64, "partial_size"),
            (ctypes.c_void_p, "sums scratch"),
            (ctypes.c_int64, "scratch_size"),
            (ctypes.c_void_p, "scale shift mean inverse slope curve offset"),
            (ctypes.c_void_p, "gamma beta bias gamma_grad beta_grad running_mean running_var"),
            (ctypes.c_double, "eps momentum"),
            (ctypes.c_int64, "gated training normed sum_act window step border"),
            (ctypes.c_void_p, "windows"),
            (ctypes.c_int64, "images"),
            (ctypes.c_void_p, "filled"),
        )
        for name in names.split()
    )


class CStep(ctypes.Structure):
    _fields_ = (("run", ctypes.c_void_p), ("node", ctypes.c_void_p))


STRUCTURES: dict[str, Any] = {"Tensor": CTensor, "Node": CNode, "Step": CStep}
"""What is laid out here as simd.c declares it, by its name there."""


class Table:
    """The tensors that the C functions read, a line each."""

    def __init__(self, plain: tuple[Tensor, Tensor]) -> None:
        self.plain = plain
        self.lines: list[CTensor] = []

    def put(
        self, data: Tensor, view: tuple[Tensor, Tensor] | None = None, act: int = LINEAR
    ) -> int:
        """Append a tensor, read as scale · x + shift; gradients are read as they are."""
        scale, shift = view or self.plain
        channels, pixels = data.shape[1:3]
        pointers = data.data_ptr(), scale.data_ptr(), shift.data_ptr()
        self.lines.append(CTensor(*pointers, channels, pixels, act))
        return len(self.lines) - 1


@dataclass(slots=True)
class Uses:
    """Where the gradient of a node's output and that of what it reads stand in the table."""

    read: list[list[tuple[int, int]]]
    """For each channel of the output, (tensor, channel) of each gradient that is added up."""
    gradient: int = -1
    """Of what it reads; -1: of nothing but images."""
    gate_gradient: int = -1
    """Of the numbers that a gate multiplies by."""
    total: int = -1
    """Of its output, where that is a sum of several; -1: it is not stored."""
