"""A quantized network to one readable C file and its header, like `emit`."""

import numpy as np

from leancnn.compiler.c_text import File
from leancnn.compiler.emit_preprocess import emit_preprocess
from leancnn.compiler.frame import Frame, GeneratedC, Metadata, filled, open_file, template
from leancnn.compiler.from_qdq import Grid
from leancnn.compiler.int8_conv import emit_tiled
from leancnn.compiler.int8_copies import emit_lookup, emit_pack, emit_pool, emit_total
from leancnn.compiler.int8_dense import emit_dense, emit_norm
from leancnn.compiler.int8_depthwise import emit_depthwise
from leancnn.compiler.int8_halves import in_halves
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_program import (
    DenseKernel,
    Depthwise,
    Int8Program,
    Lookup,
    Norm,
    Pack,
    Pool,
    Tiled,
    Total,
)
from leancnn.compiler.integers import QConv, Quantized, conv_shape
from leancnn.errors import MismatchError


def emit_integers(network: Quantized, facts: Metadata, grid: Grid | None = None) -> GeneratedC:
    """The C file of a quantized network; `grid` is how the image's floats are rounded, where a file
    says that. Raises `MismatchError`, `UnsupportedError`."""
    answers = network.values[network.output].shape[0]
    if len(facts.classes) != answers:
        raise MismatchError(f"{len(facts.classes)} class names for a network of {answers} answers")
    network = in_halves(network)
    program = lower(network)
    file = open_file(facts)
    for kernel in program.kernels:
        _emit_kernel(file, kernel, network)
    frame = Frame(
        facts=facts,
        file=file,
        preprocess=emit_preprocess(facts.preprocessing),
        image=network.values[network.image].shape,
        macs=count_macs(network),
        kind=", in 8-bit integers",
        about={"precision": "int8"},
    )
    scratch = 4 * program.arena.words + 64
    values = frame.values(scratch, _values(program, file, facts, grid) | _image(grid))
    parts = [template("int8_prelude.h"), template("int8_lines.h")]
    if any(isinstance(kernel, Depthwise) for kernel in program.kernels):
        parts.append(template("int8_depthwise.h"))
    around = template("frame.c")
    head = filled(around.split("/*@ layers @*/\n")[0], values)
    main = "#ifdef LEANCNN_MAIN" + filled(around.split("#ifdef LEANCNN_MAIN")[1], values)
    body = filled(template("int8_frame.c"), values) + main
    return frame.written(scratch, values, [*parts, head, *file.arrays, *file.functions, body])


def _emit_kernel(file: File, kernel: object, network: Quantized) -> None:
    """The C of one kernel."""
    match kernel:
        case Tiled():
            emit_tiled(file, kernel, network)
        case Depthwise():
            emit_depthwise(file, kernel, network)
        case DenseKernel():
            emit_dense(file, kernel, network)
        case Pack():
            emit_pack(file, kernel)
        case Pool():
            emit_pool(file, kernel)
        case Total():
            emit_total(file, kernel)
        case Norm():
            emit_norm(file, kernel, network)
        case Lookup():
            emit_lookup(file, kernel)


def count_macs(network: Quantized) -> int:
    """Multiply-accumulates of its convolutions."""
    total = 0
    for node in network.nodes:
        if isinstance(node, QConv):
            _, h, w = conv_shape(node, network.values[node.x].shape)
            total += node.weight.size * h * w
    return total


def _normal(network: Quantized) -> str:
    """The constants that lead from normalised floats back to pixels."""
    scale = ", ".join(repr(float(v)) for v in network.values[network.image].scale)
    shift = ", ".join(repr(float(v)) for v in network.shift)
    return (
        f"    static const double scale[CHANNELS] = {{{scale}}}, shift[CHANNELS] = {{{shift}}};\n"
    )


NO_TABLE = {"OPEN": "", "CLOSE": ""}
EXACT_BYTE = "const double byte = ((double)image_chw[at] - shift[c]) / scale[c];"


def _image(grid: Grid | None) -> dict[str, object]:
    """How the frame makes bytes of floats and of pixels."""
    if grid is None:
        return {"BYTE": EXACT_BYTE, "PIXELS": "", **NO_TABLE}
    real = np.arange(256, dtype=np.float32) / np.float32(255)
    table = np.clip(np.rint(real / grid.scale) + grid.zero, 0, 255).astype(int)
    byte = f"const float byte = rintf(image_chw[at] / {grid.scale:.9g}f) + {grid.zero}.0f;"
    if (table == np.arange(256)).all():
        return {"BYTE": byte, "PIXELS": "", **NO_TABLE}
    numbers = ", ".join(map(str, table))
    lines = "/* Pixels as the network's own file rounds them. */\n"
    lines += f"static const uint8_t rounded[256] = {{{numbers}}};\n"
    return {"BYTE": byte, "PIXELS": lines, "OPEN": "rounded[", "CLOSE": "]"}


def _values(
    program: Int8Program, file: File, facts: Metadata, grid: Grid | None
) -> dict[str, object]:
    """What stands for the words of the frame that only programs of integers have."""
    network, image = program.network, program.image
    meaning, first = network.values[network.output], program.answer.places[0]
    places = [p.at if p.lane < 0 else 4 * p.at + p.lane for p in program.answer.places]
    at = file.integers("answer_at", places)
    number = f"(int32_t)s[{at}[i]]"
    if first.lane >= 0:
        zero = file.integers("answer_zero", meaning.zero.tolist())
        number = f"(lane(s[{at}[i] / 4], {at}[i] % 4) - {zero}[i])"
    return {
        "ARENA": program.arena.words,
        "WORD": "uint32_t",
        "CLEAR": "",  # `surround_image` does
        "ORIGIN": image.origin,
        "STRIDE": image.stride,
        "PITCH": image.pitch,
        "BELOW": image.below,
        "QUADS": image.quads,
        "FILL": ", ".join(f"{word}u" for word in image.fill),
        "MEAN": ", ".join(f"{v:.9g}" for v in facts.mean),
        "STD": ", ".join(f"{v:.9g}" for v in facts.std),
        "NORMAL": _normal(network) if grid is None else "",
        "NUMBER": number,
        "ANSWERSCALE": ", ".join(f"{v:.9g}" for v in meaning.scale.astype(np.float32).tolist()),
    }
