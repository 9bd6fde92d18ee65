"""Engines in the precisions they offer beside float32, made by their own tools: to be timed.

ONNX Runtime's `quantize_static` (QDQ, per channel, unsigned activations) and NNCF set ranges by
images that the network was trained with, where those are at hand, else by made ones.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import MissingDependencyError
from leancnn.parity import calibration_images
from leancnn.runs import atomic_write
from leancnn.targets import onnx, openvino
from leancnn.targets._base import EngineSession, Target
from leancnn.weights import Network
from leancnn.workspaces import workspace

IMAGES = 256  # that set ranges
DEFAULT_PRECISION = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def write_onnxruntime(network: Network, folder: Path) -> list[Path]:
    """QDQ by ONNX Runtime's own tool. Raises `MissingDependencyError`."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx as package
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingDependencyError(f"it needs {error.name}; {onnx.NEEDED}") from error
    path = folder / f"{network.file_name}.onnx"
    with workspace() as work:
        plain, ready, made = (work / f"{name}.onnx" for name in ("plain", "ready", "made"))
        atomic_write(plain, onnx.to_onnx(network))
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        q.quantize_static(
            str(ready),
            str(made),
            _reader(calibration_images(network, IMAGES)),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
        atomic_write(path, onnx.with_metadata(network, package.load(str(made))))
    return [path]


def _reader(images: NDArray[np.uint8]) -> Any:
    """What ONNX Runtime's tool reads images from."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        """One image at a time."""

        def __init__(self) -> None:
            self.left: Iterator[dict[str, Any]] = iter([{"image": image[None]} for image in images])

        def get_next(self) -> dict[str, Any] | None:
            """The next, or None."""
            return next(self.left, None)

    return Reader()


def write_openvino(network: Network, folder: Path) -> list[Path]:
    """OpenVINO's files, quantized by NNCF. Raises `MissingDependencyError`."""
    model = openvino.converted(network)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import nncf
    except ImportError as error:
        raise MissingDependencyError("nncf is not installed; pip install nncf") from error
    images = calibration_images(network, IMAGES)
    data = nncf.Dataset([image[None] for image in images])
    return openvino.saved(nncf.quantize(model, data, subset_size=len(images)), network, folder)


def load_default_precision(path: Path) -> EngineSession:
    """In the precision that OpenVINO takes by itself."""
    return openvino.run_with(path, DEFAULT_PRECISION)


precisions = {
    "onnxruntime-int8": Target("onnxruntime-int8", "", "", write_onnxruntime, onnx.load),
    "openvino-int8": Target("openvino-int8", "", "", write_openvino, load_default_precision),
    "openvino-default": Target("openvino-default", "", "", openvino.write, load_default_precision),
}
"""By the names of bench's rows. They answer otherwise than the network, so nobody exports them."""
