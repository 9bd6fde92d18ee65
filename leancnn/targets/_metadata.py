"""What a network knows about its classes and pixels, beside a format that cannot say it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn import manifests
from leancnn.errors import DamagedError, RunError
from leancnn.normalisation import planes
from leancnn.safe_files import read_json, write_checked
from leancnn.signal_window import KIND
from leancnn.weights import Network


@dataclass(frozen=True, slots=True)
class ArtifactMetadata:
    """Class names, and mean and standard deviation of each channel, where white is 1."""

    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    full_scale: float = 255.0
    """What counts as 1: 255 of pixels, 1 of features of signals."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """All that stands there."""

    def planes(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """uint8 (N, H, W, C), or float32 of signals → normalised (N, C, H, W)."""
        return planes(images, self.mean, self.std, self.full_scale)


def metadata_path(artifact: Path) -> Path:
    """Where the metadata of an artifact lies."""
    return artifact.with_suffix(".json")


def write_metadata(network: Network, artifact: Path) -> Path:
    """Write classes, normalisation and preprocessing beside an artifact; the file."""
    metadata = {
        "name": network.name,
        "origin": network.origin,
        "classes": list(network.classes),
        "mean": list(network.mean),
        "std": list(network.std),
        "preprocessing": network.preprocessing.to_json(),
    }
    write_checked(metadata_path(artifact), metadata)
    return metadata_path(artifact)


def read_metadata(artifact: Path) -> ArtifactMetadata:
    """What `write_metadata` wrote. Raises `DamagedError`."""
    try:
        metadata = read_json(metadata_path(artifact), manifests.ArtifactMetadata)
        mean, std = (np.array(metadata[key], np.float32) for key in ("mean", "std"))
        full_scale = 1.0 if metadata.get("preprocessing", {}).get("kind") == KIND else 255.0
        return ArtifactMetadata(tuple(metadata["classes"]), mean, std, full_scale, metadata)
    except (RunError, ValueError) as error:
        raise DamagedError(
            f"{metadata_path(artifact)}: not the metadata of a network ({error})"
        ) from error
