"""How a network leaves Python, one file per format. A new file is a new target."""

from dataclasses import replace
from pathlib import Path

from leancnn.classifier import Classifier
from leancnn.compiled import CompiledNetwork
from leancnn.engine_session import EngineSession
from leancnn.errors import UsageError
from leancnn.registry import import_members
from leancnn.targets._base import Target, targets
from leancnn.targets._compiled import loaded

import_members(__name__)

__all__ = ["Target", "made_of", "open_session", "session_of", "targets"]


def open_session(path: Path) -> EngineSession | None:
    """An exported file in its engine, by its suffix; None for a suffix of none of the targets.

    Raises what the target raises for a file that is none of ours, or without the engine.
    """
    for target in targets.values():
        if target.suffix and target.suffix == path.suffix:
            return replace(target.load(path), made_of=(target.name, path))
    return None


def session_of(network: Classifier) -> EngineSession:
    """A compiled library or a session as a session. Raises `UsageError` for what is none."""
    if isinstance(network, CompiledNetwork):
        return loaded(network)
    if isinstance(network, EngineSession):
        return network
    raise UsageError(f"{network.name} is a {type(network).__name__}, no file of an engine's")


def made_of(network: Classifier) -> tuple[str, Path]:
    """The target and the file of a compiled library or a session. Raises `UsageError`."""
    session = session_of(network)
    if session.made_of is None:
        raise UsageError(f"{session.name} was not loaded from a file; export it")
    return session.made_of
