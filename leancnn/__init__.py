"""Small convolutional networks from papers: train on your images, measure honestly, run anywhere.

`import leancnn` loads nothing heavy; each name below loads what it needs when it is first used.
"""

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leancnn.version import __version__

if TYPE_CHECKING:
    from leancnn.bench import bench
    from leancnn.check import check
    from leancnn.compile import compile
    from leancnn.compiled import CompiledNetwork
    from leancnn.count import count
    from leancnn.data import load_dataset
    from leancnn.errors import LeanCNNError
    from leancnn.evaluate import evaluate
    from leancnn.export import export
    from leancnn.models import create_model
    from leancnn.predict import predict
    from leancnn.preprocess import Preprocessing
    from leancnn.prune import prune
    from leancnn.quantize import quantize
    from leancnn.report import report
    from leancnn.train import train
    from leancnn.weights import load


__all__ = [
    "CompiledNetwork",
    "LeanCNNError",
    "Preprocessing",
    "__version__",
    "bench",
    "check",
    "compile",
    "count",
    "create_model",
    "evaluate",
    "export",
    "load",
    "load_dataset",
    "predict",
    "prune",
    "quantize",
    "report",
    "train",
]

_HOMES = {
    "CompiledNetwork": "compiled",
    "LeanCNNError": "errors",
    "Preprocessing": "preprocess",
    "bench": "bench",
    "check": "check",
    "compile": "compile",
    "count": "count",
    "create_model": "models",
    "evaluate": "evaluate",
    "export": "export",
    "load": "weights",
    "load_dataset": "data",
    "predict": "predict",
    "prune": "prune",
    "quantize": "quantize",
    "report": "report",
    "train": "train",
}

_RENAMED = {"Native": "CompiledNetwork", "Road": "Preprocessing"}
"""Names of 0.1, which work until 0.3."""


class _Door(ModuleType):
    """A package in which a verb's name means the function, whether or not its module is loaded."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            return  # the import system binds leancnn.train, the module, over the function
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _RENAMED:
            new = _RENAMED[name]
            warnings.warn(f"leancnn.{name} is called {new} now", DeprecationWarning, stacklevel=2)
            return getattr(self, new)
        if name not in _HOMES:
            raise AttributeError(f"module 'leancnn' has no attribute '{name}'")
        value = getattr(import_module(f"leancnn.{_HOMES[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Door
