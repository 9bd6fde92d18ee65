"""What a target is: a way to write a network, and to load back what was written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from leancnn.engine_session import EngineSession, Logits
from leancnn.registry import Registry

__all__ = ["EngineSession", "Logits", "Target", "register", "targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """A format on disk. Every engine runs on one thread."""

    name: str
    summary: str
    suffix: str
    """Of the file that is loaded; a target without one stays in the process."""
    write: Callable[..., list[Path]]
    """Write into a folder; the files written, that which is loaded first."""
    load: Callable[[Path], EngineSession]
    options: tuple[str, ...] = ()
    """What `write` takes beside the network and the folder, by name."""


targets: Registry[Target] = Registry("target")


def register(target: Target) -> None:
    """Register a target."""
    targets.register(target.name, target)
