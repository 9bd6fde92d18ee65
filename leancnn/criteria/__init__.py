"""Pruning criteria: one file each. A new file here is a new criterion; no list is edited."""

from leancnn.criteria._base import Batches, Criterion, Cuts, Scores, Subject, get, names
from leancnn.criteria._layers import default_criterion
from leancnn.registry import import_members

import_members(__name__)

__all__ = ["Batches", "Criterion", "Cuts", "Scores", "Subject", "default_criterion", "get", "names"]
