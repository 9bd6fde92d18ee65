"""Shelves: names bound once, with help for a misspelt one.

Networks, recipes, data sets, losses, criteria and targets each have a registry of their own.
"""

import importlib
import pkgutil
import re
from difflib import get_close_matches
from typing import TypeVar

from leancnn.errors import ArgumentError, UnknownNameError

FILE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")

T = TypeVar("T")


class Registry(dict[str, T]):
    """A dict whose names are bound once, and whose missing names get a hint, no KeyError."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str, item: T) -> T:
        """Bind `name` to `item` and return the item; a second binding is our own mistake."""
        if name in self:
            raise ValueError(f"two {self.kind}s are named '{name}'; rename one")
        self[name] = item
        return item

    def __missing__(self, name: str) -> T:
        near = get_close_matches(name, self, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(self))}"
        raise UnknownNameError(f"no {self.kind} named '{name}'; {hint}")


def import_members(package: str, prefix: str = "") -> None:
    """Import every public module of `package` whose name begins so: each registers its own."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith(prefix) and not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")


def check_file_name(name: str) -> str:
    """The name. Raises `ArgumentError` unless files and C symbols can begin with it."""
    if not FILE_NAME.fullmatch(name):
        rule = "a letter and up to 59 more letters, digits and _"
        raise ArgumentError(f"`name` is {rule}, not '{name}'")
    return name
