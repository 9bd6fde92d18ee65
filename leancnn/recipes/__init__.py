"""Recipes: frozen values, one file per source. A new file here is found; no list is edited."""

from leancnn.recipes._base import (
    Backend,
    Recipe,
    for_network,
    get,
    learning_rate,
    names,
    of_json,
    read,
)
from leancnn.registry import import_members

import_members(__name__)

__all__ = ["Backend", "Recipe", "for_network", "get", "learning_rate", "names", "of_json", "read"]
