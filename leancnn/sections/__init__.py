"""Sections of a report: one file each. A new file here is a new section; no list is edited."""

from leancnn.registry import import_members
from leancnn.sections._base import Options, Section, sections

import_members(__name__)

__all__ = ["Options", "Section", "sections"]
