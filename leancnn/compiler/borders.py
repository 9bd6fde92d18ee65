"""Operators at which the float layers of a network of integers begin and end."""

from dataclasses import dataclass
from typing import Any

from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_layout import ChannelView, Plane
from leancnn.compiler.integers import QValue


@dataclass(frozen=True, slots=True, eq=False)
class FromBytes:
    """Bytes or sums of the integers, and what they mean."""

    view: ChannelView
    value: QValue
    shift: Any
    """(c,) that is added, of the image; None else."""

    def shape(self, x: Shape) -> Shape:
        return self.value.shape


@dataclass(frozen=True, slots=True, eq=False)
class ToBytes:
    """Bytes of the integers, channels in order; among floats its result is nothing, one number."""

    out: Plane
    value: QValue

    def shape(self, x: Shape) -> Shape:
        return (1, 1, 1)
