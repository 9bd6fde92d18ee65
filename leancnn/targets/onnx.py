"""ONNX: one file for ONNX Runtime and many others; uint8 images in, logits out."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.compiler.onnx_engine import EXACT_BYTES
from leancnn.compiler.qdq import to_qdq
from leancnn.compiler.reference import IntegerNetwork
from leancnn.errors import DamagedError, MissingDependencyError
from leancnn.modes import evaluating, quiet
from leancnn.runs import atomic_write
from leancnn.targets._base import EngineSession, Logits, Target, register
from leancnn.weights import Network

NEEDED = "pip install 'leancnn[onnx]'"


def write(network: Network, folder: Path) -> list[Path]:
    path = folder / f"{network.file_name}.onnx"
    atomic_write(path, to_onnx(network))
    return [path]


def to_onnx(network: Network) -> bytes:
    """A network as ONNX, with classes and preprocessing. Raises `MissingDependencyError`."""
    try:
        import onnx  # noqa: F401  as does whatever writes it
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise MissingDependencyError(f"ONNX export needs {error.name}; {NEEDED}") from error
    if isinstance(network.body, IntegerNetwork):
        size, channels = network.preprocessing.size, network.preprocessing.channels
        return with_metadata(network, to_qdq(network.body.network, size, channels))
    preprocessing = network.preprocessing
    example = torch.from_numpy(
        np.zeros((1, *preprocessing.size, preprocessing.channels), preprocessing.dtype)
    )
    with warnings.catch_warnings(), quiet("torch.onnx"), evaluating(network):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["image"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise DamagedError("torch.onnx returned nothing")
    return with_metadata(network, program.model_proto)


def with_metadata(network: Network, model: Any) -> bytes:
    """The bytes of a model that says its classes, its preprocessing and what it came from."""
    import onnx

    metadata = {
        "classes": list(network.classes),
        "preprocessing": network.preprocessing.to_json(),
        "name": network.name,
        "origin": network.origin,
    }
    onnx.helper.set_model_props(model, {"leancnn": json.dumps(metadata)})
    data: bytes = model.SerializeToString()
    return data


def load(path: Path) -> EngineSession:
    """One thread. Raises `MissingDependencyError` without onnxruntime."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(f"onnxruntime is not installed; {NEEDED}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry(*EXACT_BYTES)
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = json.loads(session.get_modelmeta().custom_metadata_map["leancnn"])
    except Exception as error:  # onnxruntime's errors share no class of their own
        raise DamagedError(f"{path}: not an ONNX file of ours ({error})") from error
    name = session.get_inputs()[0].name

    def logits(images: NDArray[np.uint8]) -> Logits:
        return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])

    def prepare(image: NDArray[np.uint8]) -> Callable[[], Any]:
        feed = {name: np.array(image)}
        return lambda: session.run(None, feed)

    return EngineSession(logits, tuple(metadata["classes"]), prepare, about=metadata)


register(Target("onnx", "an ONNX file, run by ONNX Runtime", ".onnx", write, load))
