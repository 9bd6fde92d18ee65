"""ncnn's param and bin, made by pnnx; float32 arithmetic, one thread."""

import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from leancnn.errors import DamagedError, MissingDependencyError, UnsupportedError
from leancnn.modes import evaluating
from leancnn.targets._base import EngineSession, Logits, Target, register
from leancnn.targets._metadata import read_metadata, write_metadata
from leancnn.weights import Network
from leancnn.workspaces import workspace

NEEDED = "pip install 'leancnn[ncnn]'"
LESS_EXACT = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
    "use_int8_inference",
    "use_vulkan_compute",
)
"""Options that leave float32 on the processor."""


class RewrittenForNcnn(TorchFunctionMode):
    """What pnnx or ncnn would refuse or get wrong, in other words: unit vectors and strided pixels.

    pnnx makes `normalize` along any dimension one along channels, which divides each number of
    R-MAC's matrix of (windows, C) by its own size; ncnn has no slices with steps.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.normalize:
            func = _unit
        elif func is Tensor.__getitem__ and (steps := _steps(*args)):
            return functional.max_pool2d(args[0], 1, steps)  # the window is the pixel
        return func(*args, **(kwargs or {}))


def _steps(x: Tensor, index: Any) -> tuple[int, int] | None:
    """r and c of x[:, :, ::r, ::c] for (N, C, H, W)."""
    if x.ndim != 4 or not isinstance(index, tuple) or len(index) != 4:
        return None
    if any(not isinstance(one, slice) or (one.start, one.stop) != (None, None) for one in index):
        return None
    steps = [one.step or 1 for one in index]
    return (steps[2], steps[3]) if steps[:2] == [1, 1] else None


def _unit(x: Tensor, *, p: float, dim: int, eps: float, out: None) -> Tensor:
    """What `normalize` computes; for p = 2, which is what the zoo uses."""
    return x / x.square().sum(dim, keepdim=True).clamp(eps * eps, 3e38).sqrt()


def write(network: Network, folder: Path) -> list[Path]:
    """Raises `MissingDependencyError`, `UnsupportedError` for operators ncnn lacks, and
    `MismatchError` for a network of integers."""
    network.check_floats("ncnn's converter")
    try:
        import pnnx
    except ImportError as error:
        raise MissingDependencyError(f"ncnn's converter is not installed; {NEEDED}") from error
    preprocessing, path = network.preprocessing, folder / f"{network.file_name}.param"
    example = torch.zeros(1, preprocessing.channels, *preprocessing.size)
    with workspace() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace: Any = torch.jit.trace
        with RewrittenForNcnn(), evaluating(network):
            traced = trace(network.body, example, check_trace=False)
        traced.save(str(Path(work, "net.pt")))
        shape = ",".join(map(str, example.shape))
        files = [f"ncnnparam={path.absolute()}", f"ncnnbin={path.with_suffix('.bin').absolute()}"]
        command = [pnnx.EXEC_PATH, "net.pt", f"inputshape=[{shape}]", "fp16=0", *files]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode or not path.exists():
        raise UnsupportedError(f"pnnx ended with status {done.returncode} and wrote no ncnn file")
    kinds = {line.split()[0] for line in path.read_text(encoding="utf-8").splitlines()[2:]}
    if foreign := sorted(kind for kind in kinds if "." in kind or "::" in kind):
        raise UnsupportedError(f"ncnn has no operator for {', '.join(foreign)}")
    return [path, path.with_suffix(".bin"), write_metadata(network, path)]


def load(path: Path) -> EngineSession:
    """One thread. Raises `MissingDependencyError` without ncnn, `DamagedError`."""
    try:
        import ncnn
    except ImportError as error:
        raise MissingDependencyError(f"ncnn is not installed; {NEEDED}") from error
    metadata = read_metadata(path)
    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in LESS_EXACT:
        setattr(net.opt, option, False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise DamagedError(f"{path}: not an ncnn file")

    def answer(mat: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        status, out = extractor.extract("out0")
        if status:
            raise DamagedError(f"{path}: ncnn could not run it (status {status})")
        return out

    def logits(images: NDArray[np.uint8]) -> Logits:
        planes = metadata.planes(images)
        return np.stack([np.array(answer(ncnn.Mat(one))).ravel() for one in planes])

    def prepare(image: NDArray[np.uint8]) -> Callable[[], Any]:
        mat = ncnn.Mat(metadata.planes(image)[0]).clone()
        return lambda: answer(mat)

    return EngineSession(logits, metadata.classes, prepare, about=metadata.about)


register(Target("ncnn", "ncnn's param and bin, run by ncnn", ".param", write, load))
