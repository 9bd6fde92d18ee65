"""The verbs of the command line, one file each. A new file is a new command; no list is edited."""

from leancnn.commands._base import Answer, Command, commands, flags, renew
from leancnn.registry import import_members

import_members(__name__)

__all__ = ["Answer", "Command", "commands", "flags", "renew"]
