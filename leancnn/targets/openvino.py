"""OpenVINO's own format; float32 arithmetic, one thread, no telemetry."""

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.errors import DamagedError, MissingDependencyError
from leancnn.modes import evaluating
from leancnn.targets._base import EngineSession, Logits, Target, register
from leancnn.weights import Network

ONE_THREAD = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",  # on some processors the default is bfloat16
}


def _openvino() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.setdefault("CI", "true")
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "openvino is not installed; pip install 'leancnn[openvino]'"
        ) from error
    return openvino


def write(network: Network, folder: Path) -> list[Path]:
    """Raises `MissingDependencyError`, and `MismatchError` for a network of integers."""
    network.check_floats("OpenVINO's converter")
    return saved(converted(network), network, folder)


def converted(network: Network) -> Any:
    """The network as OpenVINO's model. Raises `MissingDependencyError`."""
    openvino = _openvino()
    preprocessing = network.preprocessing
    example = torch.from_numpy(
        np.zeros((1, *preprocessing.size, preprocessing.channels), preprocessing.dtype)
    )
    with warnings.catch_warnings(), evaluating(network):
        warnings.simplefilter("ignore")
        return openvino.convert_model(
            network, example_input=example, input=[1, *preprocessing.size, preprocessing.channels]
        )


def saved(model: Any, network: Network, folder: Path) -> list[Path]:
    """The model's files, which say what they came from."""
    openvino = _openvino()
    metadata = {
        "classes": list(network.classes),
        "preprocessing": network.preprocessing.to_json(),
        "name": network.name,
        "origin": network.origin,
    }
    model.set_rt_info(json.dumps(metadata), "leancnn")
    path = folder / f"{network.file_name}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def load(path: Path) -> EngineSession:
    return run_with(path, ONE_THREAD)


def run_with(path: Path, settings: dict[str, Any]) -> EngineSession:
    """A file in OpenVINO with these settings. Raises `DamagedError`."""
    openvino = _openvino()
    try:
        core = openvino.Core()
        model = core.read_model(path)
        metadata = json.loads(model.get_rt_info("leancnn").astype(str))
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except (RuntimeError, ValueError) as error:
        raise DamagedError(f"{path}: not an OpenVINO file of ours ({error})") from error

    def answer(image: NDArray[np.uint8]) -> Logits:
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(image)))
        request.infer()
        return np.array(request.get_output_tensor().data)

    def logits(images: NDArray[np.uint8]) -> Logits:
        return np.concatenate([answer(image[None]) for image in images])

    def prepare(image: NDArray[np.uint8]) -> Callable[[], Any]:
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(image)))
        run: Callable[[], Any] = request.infer
        return run

    return EngineSession(logits, tuple(metadata["classes"]), prepare, about=metadata)


register(Target("openvino", "OpenVINO's xml and bin, run by OpenVINO", ".xml", write, load))
