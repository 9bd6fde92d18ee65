"""How a network leaves Python, one file per format. A new file is a new target."""

from leancnn.registry import import_members
from leancnn.targets._base import Loaded, Target, targets

import_members(__name__)

__all__ = ["Loaded", "Target", "targets"]
