"""A quantized network to one readable C file and its header, like `emit`."""

from collections.abc import Iterable

import numpy as np

from leancnn.compiler.c_text import File
from leancnn.compiler.emit_preprocess import emit_preprocess
from leancnn.compiler.frame import Frame, GeneratedC, Metadata, filled, open_file, template
from leancnn.compiler.from_qdq import Grid
from leancnn.compiler.graph import Conv
from leancnn.compiler.int8_floats import (
    FIRST,
    Floats,
    float_program,
    image_clear,
    names_of,
    place_of_floats,
)
from leancnn.compiler.int8_halves import in_halves
from leancnn.compiler.int8_kernel import KINDS, Int8Program
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_verify import verify
from leancnn.compiler.integers import QConv, QFloat, Quantized, conv_shape
from leancnn.compiler.values import Buffer
from leancnn.errors import MismatchError, UnsupportedError
from leancnn.normalisation import scale_and_shift

PRELUDES = ("int8_prelude.h", "int8_lines.h")
EXACT = ", in 8-bit integers"
MIXED = ", in 8-bit integers and float32: bits may differ where vectors are of another width"


def emit_integers(
    network: Quantized,
    metadata: Metadata,
    grid: Grid | None = None,
    *,
    small: bool = False,
    narrow: bool = False,
) -> GeneratedC:
    """The C file of a quantized network; `grid` is how the image's floats are rounded, where a file
    says that; `small` asks for the least memory, in plain loops, and for an arena that the caller
    always gives; `narrow` for less C, for processors with short vectors.

    Raises `MismatchError`, `UnsupportedError`; `ProgramError` when the program would read what it
    has overwritten.
    """
    answers = network.values[network.output].shape[0]
    if len(metadata.classes) != answers:
        raise MismatchError(
            f"{len(metadata.classes)} class names for a network of {answers} answers"
        )
    program = _lowered(network, small=small, narrow=narrow)
    network = program.network
    verify(program)
    file = open_file(metadata)
    for name in (*PRELUDES, *(name for kind in KINDS for name in kind.preludes)):
        file.used.update(dict.fromkeys(names_of(template(name)), 1))
    floats = _emit_kernels(file, program, network)
    frame = Frame(
        metadata=metadata,
        file=file,
        preprocess=emit_preprocess(metadata.preprocessing),
        image=network.values[network.image].shape,
        pixel="uint8_t" if network.step is None else "float",
        macs=count_macs(network),
        kind=EXACT if floats is None else MIXED,
        about={"precision": "int8" if floats is None else "int8 and float32"},
        plain=small,
    )
    words = program.arena.words + (0 if floats is None else floats.words)
    values = {
        "ARENA": words,
        "WORD": "uint32_t",
        "CLEAR": "",  # that of the image stands where it is loaded
        **_image(program, metadata, grid, floats),
        **_answer(program, file, floats),
    }
    scratch = 4 * words + 64
    values = frame.values(scratch, values)
    around = template("frame.c")
    head = filled(around.split("/*@ layers @*/\n")[0], values)
    main = "#ifdef LEANCNN_MAIN" + filled(around.split("#ifdef LEANCNN_MAIN")[1], values)
    body = filled(template("int8_frame.c"), values) + main
    parts = [*_preludes(program, floats), head, *file.arrays, *file.functions, body]
    return frame.written(scratch, values, parts)


def _lowered(network: Quantized, *, small: bool, narrow: bool) -> Int8Program:
    """The program; of the least memory the smaller of two. Plain loops read most of what is strided
    without a copy, and then halves (int8_halves.py) save nothing."""
    halves = in_halves(network)
    if not small:
        return lower(halves, narrow=narrow)
    able = [network] if len(halves.nodes) == len(network.nodes) else [network, halves]
    programs = [lower(each, small=True, narrow=narrow) for each in able]
    return min(programs, key=lambda program: program.arena.words)


def _emit_kernels(file: File, program: Int8Program, network: Quantized) -> Floats | None:
    """The C of all kernels, in order; the part that computes in float32, where there is one."""
    floats = None if program.floats is None else float_program(program.floats, file)
    for kernel in program.kernels:
        if floats is not None:
            if kernel.border is None:
                floats.call(file)
            else:
                floats.ask(kernel.border)
        kernel.c(file, network)
    if floats is not None:
        floats.call_rest(file)
        file.constants += floats.file.constants
    return floats


def _preludes(program: Int8Program, floats: Floats | None) -> list[str]:
    """The C that stands before the kernels: vectors and macros of what the program uses."""
    own = (name for kernel in program.kernels for name in kernel.preludes)
    parts = [template(name) for name in dict.fromkeys((*PRELUDES, *own))]
    if floats is None:
        return parts
    return [FIRST, *parts, floats.source(), place_of_floats(program.arena.words)]


def count_macs(network: Quantized) -> int:
    """Multiply-accumulates of its convolutions."""
    total = 0
    for node in network.nodes:
        if isinstance(node, QConv):
            _, h, w = conv_shape(node, network.values[node.x].shape)
            total += node.weight.size * h * w
        if isinstance(node, QFloat) and isinstance(node.op, Conv):
            _, h, w = network.values[node.out].shape
            total += node.op.weight.size * h * w
    return total


def _normal(network: Quantized) -> str:
    """The constants that lead from normalised floats back to pixels, or from signals to bytes."""
    steps = network.values[network.image].scale if network.step is None else network.step
    scale = ", ".join(repr(float(v)) for v in steps)
    shift = ", ".join(repr(float(v)) for v in network.shift)
    return (
        f"    static const double scale[CHANNELS] = {{{scale}}}, shift[CHANNELS] = {{{shift}}};\n"
    )


NO_TABLE = {"OPEN": "", "CLOSE": "", "PIXELS": ""}
EXACT_BYTE = "const double byte = ((double)number - shift[c]) / scale[c];"


def _rounded(network: Quantized, grid: Grid | None) -> dict[str, object]:
    """How the frame makes bytes of floats and of pixels."""
    if grid is None:
        return {"BYTE": EXACT_BYTE, "HIGH": 255, "NORMAL": _normal(network), **NO_TABLE}
    real = np.arange(256, dtype=np.float32) / np.float32(255)
    table = np.clip(np.rint(real / grid.scale) + grid.zero, 0, grid.high).astype(int)
    byte = f"const float byte = rintf(number / {grid.scale:.9g}f) + {grid.zero}.0f;"
    words: dict[str, object] = {"BYTE": byte, "HIGH": grid.high, "NORMAL": ""}
    if (table == np.arange(256)).all():
        return {**words, **NO_TABLE}
    numbers = ", ".join(map(str, table))
    lines = "/* Pixels as the network's own file rounds them. */\n"
    lines += f"static const uint8_t rounded[256] = {{{numbers}}};\n"
    return {**words, "PIXELS": lines, "OPEN": "rounded[", "CLOSE": "]"}


def _image(
    program: Int8Program, metadata: Metadata, grid: Grid | None, floats: Floats | None
) -> dict[str, object]:
    """The functions of the frame that take the image."""
    given = {"MEAN": _numbers(metadata.mean), "STD": _numbers(metadata.std)}
    if program.image is None:
        assert floats is not None
        if program.network.step is not None:
            raise UnsupportedError("signals are read by integers first, and here by floats alone")
        image = floats.image
        plane: Plane | Buffer = image
        scale, shift = scale_and_shift(metadata.mean, metadata.std, metadata.full_scale)
        words: dict[str, object] = {
            "SCALE": _numbers(scale.tolist()),
            "SHIFT": _numbers(shift.tolist()),
            "CLEAR": image_clear(image),
        }
        name = "float_image.c"
    else:
        words = _rounded(program.network, grid)
        fill = ", ".join(f"{word}u" for word in program.image.fill)
        words |= {"QUADS": program.image.quads, "FILL": fill}
        words["BELOW"] = program.image.below
        name, plane = "int8_image.c", program.image
        pixels = "int8_pixels.c" if program.network.step is None else "int8_signals.c"
    words |= {"ORIGIN": plane.origin, "STRIDE": plane.stride, "PITCH": plane.pitch}
    made = filled(template(name), words)
    if program.image is not None:
        made += filled(template(pixels), words)
    return {**given, "IMAGE": made}


def _answer(program: Int8Program, file: File, floats: Floats | None) -> dict[str, object]:
    """How the frame reads the answer."""
    meaning = program.network.values[program.network.output]
    scale = meaning.scale.astype(np.float32).tolist()
    if program.answer is None:
        assert floats is not None
        at = file.integers("answer_at", floats.logits)
        return {"CONST": "", "NUMBER": f"floats(s)[{at}[i]]", "ANSWERSCALE": _numbers(scale)}
    first = program.answer.places[0]
    places = [p.at if p.lane < 0 else 4 * p.at + p.lane for p in program.answer.places]
    at = file.integers("answer_at", places)
    number = f"(int32_t)s[{at}[i]]"
    if first.lane >= 0:
        zero = file.integers("answer_zero", meaning.zero.tolist())
        number = f"(lane(s[{at}[i] / 4], {at}[i] % 4) - {zero}[i])"
    return {"CONST": "const ", "NUMBER": number, "ANSWERSCALE": _numbers(scale)}


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{v:.9g}" for v in values)
