"""A network, or a foreign ONNX file, as one C file and the library built from it."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.frame import GeneratedC, Metadata
from leancnn.compiler.from_qdq import Grid, from_qdq
from leancnn.compiler.graph import Affine, Conv, Graph
from leancnn.compiler.import_onnx import Imported, import_onnx
from leancnn.compiler.int8_emit import emit_integers
from leancnn.compiler.integers import Quantized
from leancnn.compiler.onnx_engine import Run, engine, not_run
from leancnn.compiler.probabilities import sum_to_one
from leancnn.compiler.qdq_floats import in_floats, is_quantized
from leancnn.compiler.simplify import simplify
from leancnn.compiler.translate import translate
from leancnn.errors import DamagedError, LeanCNNError, ParityError, UnsupportedError, UsageError
from leancnn.export import folder_for, own
from leancnn.parity import (
    REAL,
    TRIALS,
    WITHIN,
    WITHIN_ROUNDED,
    check_parity,
    difference,
    made_images,
    probability_difference,
    trial_images,
)
from leancnn.progress import now, tell
from leancnn.registry import check_file_name
from leancnn.runs import atomic_write
from leancnn.targets._c_text import to_c
from leancnn.targets._compiled import loaded
from leancnn.toolchain import FAST_FLAGS, compile_library
from leancnn.version import __version__
from leancnn.weights import Network, check_finite, load

FAR = 4  # of these one in so many is made far brighter, too


def compile(
    network: Network | str | Path,
    *,
    out: str | Path | None = None,
    tune: float | None = None,
    size: tuple[int, int] | None = None,
    input: str | None = None,
    output: str | None = None,
    name: str | None = None,
) -> CompiledNetwork:
    """Compile a trained network: uint8 images (N, H, W, C) in, probabilities (N, classes) out.

    `network` is a network, a saved one, a run, or an ONNX file of supported operators. Its logits
    are compared with PyTorch's, an ONNX file's with those of ONNX Runtime where that is installed,
    before it is returned. With `out` the C file, its header and the library are written there too.
    `tune` is for how many seconds register tiles may be timed here; the winners are remembered.
    `size` is rows and columns of the image for an ONNX file that leaves them open, `input` and
    `output` the names of those that are meant where it has several. `name` is what files and
    symbols are called by in the place of the network's. Raises `WriteError` where files of another
    network would be written over, `UsageError` for anything else, `UnsupportedError` naming an
    operator that the compiler does not have, `MissingDependencyError` without a C compiler,
    `ParityError` when the answers differ, `DamagedError` for weights that are no numbers.

    >>> classify = leancnn.compile("runs/a")
    >>> classify(np.zeros((2, 8, 8, 3), np.uint8)).shape
    (2, 3)
    """
    given: object = network
    if not isinstance(given, Network | str | Path):
        kind = type(network).__name__
        raise UsageError(f"compile takes a leancnn.Network, a folder or an ONNX file, not {kind}")
    if not isinstance(network, Network) and Path(network).suffix.lower() == ".onnx":
        found = import_onnx(Path(network), size, input=input, output=output)
        return _from_onnx(Path(network), found, out, tune, name)
    for what, value in (("a size", size), ("an input", input), ("an output", output)):
        if value is not None:
            raise UsageError(f"only an ONNX file takes {what}")
    network = (network if isinstance(network, Network) else load(network)).called(name)
    check_finite(network)
    now("writing C")
    written = to_c(network, tune)
    native = _built(written)
    now("comparing with PyTorch")
    check_parity(network, loaded(native), trial_images(network, real=REAL))
    return native if out is None else _kept(written, Path(out), network.origin)


def _from_onnx(
    path: Path, found: Imported, out: str | Path | None, tune: float | None, name: str | None
) -> CompiledNetwork:
    _check_numbers(path, found)
    name = path.stem if name is None else check_file_name(name)
    origin = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    form = _form(path, found)
    written = _written(path, found, form, tune, name, origin)
    native = _built(written)
    if not found.final and sum_to_one(native.logits(_planes(found, native))):
        found = replace(found, final="probabilities")
        written = _written(path, found, form, tune, name, origin)
        native = _built(written)
    now("comparing with ONNX Runtime")
    if check_onnx(path, found, native) is None:
        tell("not compared: onnxruntime is not installed")
    return native if out is None else _kept(written, Path(out), origin)


@dataclass(frozen=True, slots=True)
class OnnxForm:
    """What of an ONNX file is written as C: its graph in floats, or the integers it says."""

    graph: Graph
    integers: Quantized | None = None
    grid: Grid | None = None


def _form(path: Path, found: Imported) -> OnnxForm:
    """Integers for what of a file with QuantizeLinear in it has an integer form, if any has."""
    if not is_quantized(found.graph):
        return OnnxForm(found.graph)
    try:
        network, grid, floats = from_qdq(simplify(found.graph), found.integers)
        for why in floats:
            tell(f"{path}: {why}; this part is computed in floats")
        return OnnxForm(found.graph, network, grid)
    except UnsupportedError as error:
        tell(f"{path}: {error}; all of it is computed in floats, rounded where the file rounds")
        return OnnxForm(in_floats(found.graph))


def _check_numbers(path: Path, found: Imported) -> None:
    """That no weight of an ONNX file is NaN. Raises `DamagedError` naming the node."""
    for node in found.graph.nodes:
        op = node.op
        arrays = {Conv: ("weight", "bias"), Affine: ("scale", "shift")}.get(type(op), ())
        if any(np.isnan(getattr(op, array)).any() for array in arrays):
            raise DamagedError(f"{path}: the weights of {node.output} hold NaN; export it again")


def _written(
    path: Path, found: Imported, form: OnnxForm, tune: float | None, name: str, origin: str
) -> GeneratedC:
    """The C of an ONNX file, whose pixels are 0 to 255 if it takes bytes, else 0 to 1."""
    graph = form.graph
    channels, answers = graph.shapes[graph.input][0], graph.shapes[graph.output][0]
    mean, std = [0.0] * channels, [1 / 255 if found.integers else 1.0] * channels
    classes = found.metadata["classes"]
    about = {
        "preprocessing": found.metadata["preprocessing"],
        "mean": mean,
        "std": std,
        "origin": origin,
    }
    metadata = Metadata(
        name=name,
        classes=tuple(classes or [f"class {number}" for number in range(answers)]),
        mean=tuple(mean),
        std=tuple(std),
        source=f"from {path.name}, origin {origin}",
        version=__version__,
        about=json.dumps(about),
        logits=answers > 1 and found.final != "probabilities",
    )
    if form.integers is not None:
        return emit_integers(form.integers, metadata, form.grid)
    return translate(
        graph,
        name=name,
        classes=metadata.classes,
        mean=mean,
        std=std,
        about=metadata.about,
        source=metadata.source,
        logits=metadata.logits,
        tune=tune,
    )


def _pixels(native: CompiledNetwork) -> NDArray[np.uint8]:
    """Made images (N, H, W, C) on which an ONNX file's answers are compared."""
    c, h, w = native.shape
    return made_images((h, w, c), TRIALS)


def _planes(found: Imported, native: CompiledNetwork) -> NDArray[np.float32]:
    """The same as an ONNX file's `_run_float` takes them (N, C, H, W): bytes, or from -1 to 1."""
    pixels = _pixels(native).transpose(0, 3, 1, 2).astype(np.float32)
    return pixels if found.integers else pixels / np.float32(127.5) - np.float32(1)


def check_onnx(path: Path, found: Imported, native: CompiledNetwork) -> float | None:
    """The largest difference of answers from another engine's, relative to their scale; None where
    there is none. Raises `ParityError`, `DamagedError` for a file that does not run there.

    Both entries are compared: floats to logits on images from -1 to 1 and far beyond, each by its
    own scale, and what users call, uint8 to probabilities.
    """
    try:
        rounded = is_quantized(found.graph)
        other = engine(found.model, found.name, native.metadata["macs"], literal=rounded)
        if other is None:
            return None
        name, run = other
        near, pixels = _planes(found, native), _pixels(native)
        far = [near[1::FAR] * np.float32(times) for times in (4, 127.5) if not found.integers]
        scale = np.float32(1 if found.integers else 255)
        entered = pixels.transpose(0, 3, 1, 2).astype(np.float32) / scale
        answers = [_expected(run, found, part) for part in (near, *far, entered)]
    except LeanCNNError as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # engines' errors share no class of their own
        raise not_run(f"{path}: {name}", error) from error
    *of_planes, expected = answers
    each = [
        difference(_answers(found, native, planes), answers)
        for planes, answers in zip((near, *far), of_planes, strict=True)
    ]
    if found.final == "softmax":
        with np.errstate(divide="ignore"):
            expected = np.log(expected.astype(np.float64)).clip(-100)
    if found.final == "probabilities" or expected.shape[1] == 1:
        entry = difference(native(pixels), expected)
    else:
        entry = probability_difference(native(pixels), expected)
    worst = float(np.max([*each, entry]))  # nan where one is
    within = WITHIN_ROUNDED if rounded else WITHIN
    if not worst <= within:
        raise ParityError(
            f"{path}: the program's answers differ by {worst:.2g} of their scale from those of "
            f"{name}, more than {within:g}; it was not kept"
        )
    return worst


def _answers(
    found: Imported, native: CompiledNetwork, planes: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The program's answers as the ONNX file gives them, a softmax at its end included."""
    answers = native.logits(planes).astype(np.float64)
    if found.final not in ("softmax", "log softmax"):
        return answers
    with np.errstate(invalid="ignore", divide="ignore"):
        answers -= answers.max(1, keepdims=True)
        answers -= np.log(np.exp(answers).sum(1, keepdims=True))
    return np.exp(answers) if found.final == "softmax" else answers


def _expected(run: Run, found: Imported, planes: NDArray[np.float32]) -> NDArray[Any]:
    """What another engine answers for planes (N, C, H, W): (N, answers)."""
    feeds = planes.transpose(0, 2, 3, 1) if found.channels_last else planes
    kind = np.uint8 if found.integers else np.float32
    return np.stack([run(feed.reshape(found.shape).astype(kind)).ravel() for feed in feeds])


def _built(written: GeneratedC) -> CompiledNetwork:
    return CompiledNetwork(_library(written))


def _library(written: GeneratedC) -> Path:
    return compile_library(written.source, name=written.prefix, flags=FAST_FLAGS)


def _kept(written: GeneratedC, out: Path, origin: str) -> CompiledNetwork:
    """The same in a folder: C, header and library, none of them or all."""
    parts = {
        out / f"{written.prefix}.c": written.source.encode(),
        out / f"{written.prefix}.h": written.header.encode(),
        out / f"{written.prefix}.so": _library(written).read_bytes(),
    }
    with folder_for(out), own(list(parts), origin):
        for place, data in parts.items():
            atomic_write(place, data)
    return CompiledNetwork(place)
