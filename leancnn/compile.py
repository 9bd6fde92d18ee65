"""A network, or a foreign ONNX file, as one C file and the library built from it."""

import json
from pathlib import Path

from leancnn.errors import WriteError
from leancnn.export import check_parity, trial_images
from leancnn.native.build import FAST_FLAGS, compile_library
from leancnn.native.emit import Written
from leancnn.native.load import Native
from leancnn.native.translate import translate
from leancnn.runs import atomic_write
from leancnn.targets.c import loaded, to_c
from leancnn.weights import Network, load


def compile(
    network: Network | str | Path,
    *,
    out: str | Path | None = None,
    tune: float | None = None,
) -> Native:
    """A trained network as machine code: uint8 images (N, H, W, C) in, probabilities out.

    `network` is a network, a saved one, a run, or an ONNX file of supported operators. Its logits
    are compared with PyTorch's before it is returned. With `out` the C file, its header and the
    library are written there too. `tune` is for how many seconds register tiles may be timed here;
    the winners are remembered. Raises `UnsupportedError` naming an operator that the compiler does
    not have, `MissingDependencyError` without a C compiler, `ParityError` when the answers differ.
    """
    if not isinstance(network, Network) and Path(network).suffix == ".onnx":
        return _built(_from_onnx(Path(network), tune), out)
    network = network if isinstance(network, Network) else load(network)
    written = to_c(network, tune)
    native = _built(written, None)
    check_parity(network, loaded(native), trial_images(network))
    return native if out is None else _built(written, out)


def _from_onnx(path: Path, tune: float | None) -> Written:
    from leancnn.native.import_onnx import import_onnx

    graph, facts = import_onnx(path)
    channels = graph.shapes[graph.input][0]
    answers = graph.shapes[graph.output][0]
    classes = facts.get("classes") or [f"class {number}" for number in range(answers)]
    mean = facts.get("mean") or [0.0] * channels
    std = facts.get("std") or [1.0] * channels
    return translate(
        graph,
        name=path.stem,
        classes=classes,
        mean=mean,
        std=std,
        about=json.dumps({"road": facts.get("road"), "mean": mean, "std": std}),
        source=f"from {path.name}",
        tune=tune,
    )


def _built(written: Written, out: str | Path | None) -> Native:
    library = compile_library(written.source, name=written.prefix, flags=FAST_FLAGS)
    if out is None:
        return Native(library)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: {error.strerror or error}") from error
    atomic_write(folder / f"{written.prefix}.c", written.source.encode())
    atomic_write(folder / f"{written.prefix}.h", written.header.encode())
    place = folder / f"{written.prefix}.so"
    atomic_write(place, library.read_bytes())
    return Native(place)
