"""Parameters of which `make test` takes the first and CI all: see the marker `long`."""

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def few(values: Iterable[Any], keep: int = 1, *, rows: bool = False) -> list[Any]:
    """The same values, all but the first so many marked as long; `rows`: of several names.

    >>> [each if isinstance(each, int) else each.values for each in few(range(3))]
    [0, (1,), (2,)]
    """
    every = list(values)
    return every[:keep] + [_long(each, rows) for each in every[keep:]]


def _long(value: Any, row: bool) -> ParameterSet:
    if isinstance(value, ParameterSet):
        return pytest.param(*value.values, marks=[*value.marks, pytest.mark.long], id=value.id)
    return pytest.param(*(value if row else (value,)), marks=pytest.mark.long)
