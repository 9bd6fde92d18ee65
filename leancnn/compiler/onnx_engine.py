"""Another engine for an ONNX model, to compare answers with: ONNX Runtime, or the reference."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.errors import DamagedError

EXACT_BYTES = ("session.x64quantprecision", "1")  # else sums saturate on x86 without VNNI
FEW = 10**8  # multiply-accumulates of an image that the reference, in Python, is asked to do

Run = Callable[[NDArray[Any]], NDArray[Any]]


def engine(model: Any, given: str, macs: int, *, literal: bool = False) -> tuple[str, Run] | None:
    """The name of an engine, and a model as its function from the input `given` to its output.

    `literal`: operator by operator as the file has them, for fused roundings answer otherwise.
    ONNX Runtime where it is installed and has the model's operators, else the reference if that
    takes no minutes, else None. Raises `DamagedError` for a model that neither runs.
    """
    refused = None
    try:
        return "ONNX Runtime", _runtime(model, given, literal)
    except ImportError:
        pass
    except Exception as error:  # onnxruntime's errors share no class of their own
        refused = error
    if macs > FEW:
        if refused is None:
            return None
        raise not_run("ONNX Runtime", refused) from refused
    try:
        return "ONNX's reference", _reference(model, given)
    except Exception as error:
        raise not_run(
            "ONNX Runtime" if refused else "ONNX's reference", refused or error
        ) from error


def not_run(name: str, error: Exception) -> DamagedError:
    """A model that an engine does not run."""
    reason = " ".join(str(error).split())
    return DamagedError(f"{name} does not run it ({reason[:200]})")


def _runtime(model: Any, given: str, literal: bool) -> Run:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry(*EXACT_BYTES)
    options.log_severity_level = 4
    if literal:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feed: np.asarray(next(iter(session.run(None, {given: feed}))))


def _reference(model: Any, given: str) -> Run:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(model)
    return lambda feed: np.asarray(next(iter(session.run(None, {given: feed}))))
