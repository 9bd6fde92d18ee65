"""LiteRT's tflite, run by LiteRT with XNNPACK on one thread.

Its converter, litert-torch, pins packages that many others need newer, so it lives in an
environment of its own, whose Python $LEANCNN_LITERT_PYTHON names. The network goes there as an
exported program, not as code.
"""

import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.errors import DamagedError, MissingDependencyError, UnsupportedError
from leancnn.modes import evaluating
from leancnn.targets._base import EngineSession, Logits, Target, register
from leancnn.targets._metadata import read_metadata, write_metadata
from leancnn.weights import Network
from leancnn.workspaces import workspace

PYTHON = "LEANCNN_LITERT_PYTHON"
CONVERT = """
import sys, torch, litert_torch
program, shape, out = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
body = torch.export.load(program).module()
litert_torch.convert(body, (torch.zeros(shape),)).export(out)
"""


def write(network: Network, folder: Path) -> list[Path]:
    """Raises `MissingDependencyError` without the converter, `UnsupportedError` when it fails, and
    `MismatchError` for a network of integers, of which it makes none of its own."""
    network.check_floats("LiteRT's converter")
    python = os.environ.get(PYTHON)
    if not python:
        raise MissingDependencyError(
            "LiteRT's converter needs an environment of its own: python -m venv litert && "
            f"litert/bin/pip install torch=={torch.__version__.split('+')[0]} litert-torch, "
            f"then set {PYTHON}=litert/bin/python"
        )
    if os.path.dirname(python):  # noqa: PTH120 - no bare name, for which PATH is searched
        python = str(Path(python).absolute())  # the converter starts in another folder
    preprocessing, path = network.preprocessing, folder / f"{network.file_name}.tflite"
    shape = (1, preprocessing.channels, *preprocessing.size)
    with workspace() as work, warnings.catch_warnings(), evaluating(network):
        warnings.simplefilter("ignore")
        program = Path(work, "net.pt2")
        torch.export.save(torch.export.export(network.body, (torch.zeros(shape),)), program)
        command = [python, "-c", CONVERT, str(program), str(shape), str(path.absolute())]
        try:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        except OSError as error:
            raise MissingDependencyError(f"{PYTHON}={python}: {error.strerror}") from error
    if done.returncode or not path.exists():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "ModuleNotFoundError" in last:
            raise MissingDependencyError(f"{python}: {last}; pip install litert-torch there")
        raise UnsupportedError(f"LiteRT's converter refused the network: {last[:300]}")
    return [path, write_metadata(network, path)]


def load(path: Path) -> EngineSession:
    """One thread. Raises `MissingDependencyError` without ai-edge-litert, `DamagedError`."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError(
            "LiteRT is not installed; pip install 'leancnn[litert]'"
        ) from error
    metadata = read_metadata(path)
    try:
        engine: Any = Interpreter(model_path=str(path), num_threads=1)
        engine.allocate_tensors()
        given = engine.get_input_details()[0]["index"]
        made = engine.get_output_details()[0]["index"]
    except (RuntimeError, ValueError) as error:
        raise DamagedError(f"{path}: not a LiteRT file ({error})") from error

    def logits(images: NDArray[np.uint8]) -> Logits:
        rows = []
        for image in metadata.planes(images):
            engine.set_tensor(given, image[None])
            engine.invoke()
            rows.append(engine.get_tensor(made))
        return np.concatenate(rows)

    def prepare(image: NDArray[np.uint8]) -> Callable[[], Any]:
        engine.set_tensor(given, metadata.planes(image))
        run: Callable[[], Any] = engine.invoke
        return run

    return EngineSession(logits, metadata.classes, prepare, about=metadata.about)


register(Target("litert", "a tflite file, run by LiteRT", ".tflite", write, load))
