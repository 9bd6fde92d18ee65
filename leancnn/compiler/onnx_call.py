"""What an ONNX operator asks for, and which of its definitions and attributes a handler knows.

A handler declares both where it is registered; the importer refuses the rest by name. An operator
that gains a definition or an attribute later is then refused, not read as the old one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from leancnn.compiler.materialise import IndexMap
from leancnn.errors import UnsupportedError

YES_OR_NO = """allowzero ceil_mode count_include_pad keepdims noop_with_empty_axes training_mode
    transA transB"""
FLAGS = frozenset(YES_OR_NO.split())
"""Attributes that are yes or no; of another number engines make one or the other."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operator: what it reads, views and constants, None where it leaves an input out."""

    values: list[Any]
    attributes: dict[str, Any]
    outputs: int  # that somebody could read
    opset: int
    known: frozenset[str] = frozenset()  # attributes that the handler declares

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; text as str."""
        assert name in self.known, f"{name} is read and not declared"
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def value(self, place: int) -> Any:
        """An input, or None."""
        return self.values[place] if place < len(self.values) else None

    def view(self, place: int = 0) -> IndexMap:
        """An input that is computed from the image."""
        found = self.value(place)
        if not isinstance(found, IndexMap):
            raise UnsupportedError("its inputs are constants where the image's values belong")
        return found

    def constant(self, place: int, what: str) -> Any:
        """An input that must be constant, or None. Raises `UnsupportedError`."""
        found = self.value(place)
        if isinstance(found, IndexMap):
            raise UnsupportedError(
                f"its {what} is computed from the image, where constants are due"
            )
        return found

    def either(self, name: str, place: int) -> Any:
        """What older operator sets have as an attribute and newer ones as an input."""
        found = self.get(name)
        return self.constant(place, name) if found is None else found

    def numbers(self, name: str, place: int) -> list[int] | None:
        """The same as whole numbers."""
        found = self.either(name, place)
        return None if found is None else [int(number) for number in np.ravel(found)]


Make = Callable[..., Any]  # from the builder and the call to a view or several
Registered = TypeVar("Registered", bound=Make)


@dataclass(frozen=True, slots=True)
class Operator:
    """An ONNX operator as a handler understands it."""

    make: Make
    sets: frozenset[int]
    """Its definitions, each by the operator set that brought it."""
    reads: frozenset[str]
    """Attributes that the handler looks at."""
    only: Mapping[str, Any]
    """Attributes of which it knows one value."""
    hints: frozenset[str]
    """Attributes that change no number the compiler computes: what is for training, or for types
    that it does not take."""

    def check(self, name: str, attributes: Mapping[str, Any], opset: int) -> None:
        """Raises `UnsupportedError` naming a definition or an attribute that is not understood."""
        schema = _schema(name, opset)
        version = schema.since_version
        if version not in self.sets:
            listed = ", ".join(map(str, sorted(self.sets)))
            raise UnsupportedError(
                f"its definition of operator set {version} is not known; known are {listed}"
            )
        for key, value in attributes.items():
            shown = value.decode(errors="replace") if isinstance(value, bytes) else value
            if key not in schema.attributes:
                raise UnsupportedError(f"operator set {opset} gives it no attribute {key}")
            if key in FLAGS and value not in (0, 1):
                raise UnsupportedError(f"its attribute {key} is {value}; only 0 and 1 are known")
            if key in self.only and shown != self.only[key]:
                raise UnsupportedError(
                    f"its attribute {key} is {shown}; only {self.only[key]} is supported"
                )
            if key not in self.reads | self.only.keys() | self.hints:
                raise UnsupportedError(f"its attribute {key} ({shown}) is not known")


operators: dict[str, Operator] = {}
"""By name; those of another domain than ONNX's own are none."""


def handles(
    *names: str,
    sets: tuple[int, ...],
    reads: str = "",
    only: Mapping[str, Any] | None = None,
    hints: str = "",
) -> Callable[[Registered], Registered]:
    """Register the decorated function, of the builder and the call, for these operators."""

    def register(function: Registered) -> Registered:
        words = frozenset(reads.split()), only or {}, frozenset(hints.split())
        known = Operator(function, frozenset(sets), *words)
        for name in names:
            if name in operators:
                raise ValueError(f"two handlers for {name}")
            operators[name] = known
        return function

    return register


def _schema(name: str, opset: int) -> Any:
    """ONNX's definition of an operator in an operator set. Raises `UnsupportedError`."""
    from onnx import defs

    try:
        return defs.get_schema(name, opset, "")
    except Exception as error:  # onnx's own class of it has moved from version to version
        raise UnsupportedError(f"there is no such operator in operator set {opset}") from error
