"""Networks: one file per source. A new file here is a new network; no list is edited."""

from leancnn.models._base import Card, arguments, builder, card, create_model, names
from leancnn.registry import import_members

import_members(__name__)

__all__ = ["Card", "arguments", "builder", "card", "create_model", "names"]
