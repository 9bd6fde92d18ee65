"""A saved network run inside the process: what the targets of PyTorch share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.targets._base import EngineSession, Logits
from leancnn.weights import Network, save


def write(network: Network, folder: Path) -> list[Path]:
    save(network, folder / network.file_name, origin=network.origin)
    return [folder / network.file_name]


def in_process(
    network: Network, call: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> EngineSession:
    """A network, or another way to call it, as an artifact is used."""
    network.eval()
    run = network if call is None else call

    @torch.inference_mode()
    def logits(images: NDArray[np.uint8]) -> Logits:
        return run(torch.from_numpy(np.array(images))).float().numpy()

    def prepare(image: NDArray[np.uint8]) -> Callable[[], Any]:
        tensor = torch.from_numpy(np.array(image))

        def bare() -> Any:
            with torch.inference_mode():
                return run(tensor)

        return bare

    about = {"name": network.name, "preprocessing": network.preprocessing.to_json()}
    return EngineSession(logits, network.classes, prepare, about=about)
