"""A quantized network to one readable C file and its header, like `emit`."""

import json
import re
from importlib.resources import files

import numpy as np

from leancnn.compiler.c_text import File, identifier
from leancnn.compiler.emit import SOFTMAX, GeneratedC, Metadata, commented, escaped
from leancnn.compiler.emit_preprocess import emit_preprocess
from leancnn.compiler.from_qdq import Grid
from leancnn.compiler.int8_conv import emit_tiled
from leancnn.compiler.int8_copies import emit_lookup, emit_pack, emit_pool, emit_total
from leancnn.compiler.int8_dense import emit_dense, emit_norm
from leancnn.compiler.int8_depthwise import emit_depthwise
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
    program = lower(network)
    prefix = identifier(facts.name[:99])
    file = File(prefix)
    notes = json.loads(facts.about or "null")
    preprocess = emit_preprocess((notes or {}).get("road"))
    entries = ("run", "run_float", "class_names", "scratch_bytes", "preprocess", "preprocess_from")
    file.used.update(
        dict.fromkeys([prefix, "leancnn_about", *(f"{prefix}_{e}" for e in entries)], 1)
    )
    for kernel in program.kernels:
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
    scratch = 4 * program.arena.words + 64
    values = _values(program, file, facts, prefix, scratch, grid) | preprocess.values | _image(grid)
    macs = count_macs(network)
    about = [
        f"{facts.name}: {values['CHANNELS']}x{values['HEIGHT']}x{values['WIDTH']} image -> "
        f"{answers} classes, in 8-bit integers",
        facts.source,
        f"{macs:,} multiply-accumulates, {file.constants:,} bytes of constants, "
        f"{scratch:,} bytes of scratch",
        f"Written by leancnn {facts.version}; do not edit.",
    ]
    comment = "/* " + "\n   ".join(commented(line) for line in about if line) + "\n*/\n"
    values["DECLARED"] = _fill(preprocess.header, values)
    values["PREPROCESS"] = _fill(preprocess.source, values)
    here = files("leancnn.compiler")

    def text(name: str) -> str:
        return (here / name).read_text(encoding="utf-8")

    head = _fill(text("frame.c").split("/*@ layers @*/\n")[0], values)
    main = "#ifdef LEANCNN_MAIN" + _fill(text("frame.c").split("#ifdef LEANCNN_MAIN")[1], values)
    body = _fill(text("int8_frame.c"), values)
    parts = [text("int8_prelude.h"), text("int8_lines.h")]
    if any(isinstance(kernel, Depthwise) for kernel in program.kernels):
        parts.append(text("int8_depthwise.h"))
    source = "\n".join(
        [comment + "\n".join(parts), head, *file.arrays, *file.functions, body + main]
    )
    header = _fill(text("frame.h"), values)
    return GeneratedC(source, comment + header, prefix, scratch, file.constants, macs)


def _fill(text: str, values: dict[str, object]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text)


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
    program: Int8Program, file: File, facts: Metadata, prefix: str, scratch: int, grid: Grid | None
) -> dict[str, object]:
    """What stands for the words of the frame."""
    network, image = program.network, program.image
    c, h, w = network.values[network.image].shape
    meaning, first = network.values[network.output], program.answer.places[0]
    places = [p.at if p.lane < 0 else 4 * p.at + p.lane for p in program.answer.places]
    at = file.integers("answer_at", places)
    number = f"(int32_t)s[{at}[i]]"
    if first.lane >= 0:
        zero = file.integers("answer_zero", meaning.zero.tolist())
        number = f"(lane(s[{at}[i] / 4], {at}[i] % 4) - {zero}[i])"
    about = {
        "name": facts.name,
        "prefix": prefix,
        "classes": len(facts.classes),
        "image": [c, h, w],
        "macs": count_macs(network),
        "scratch_bytes": scratch,
        "class_names": facts.classes,
        "preprocess": emit_preprocess((json.loads(facts.about or "null") or {}).get("road")).about,
        "dtype": "uint8",
        "precision": "int8",
        "about": json.loads(facts.about or "null"),
    }
    return {
        "NAME": prefix,
        "UPPER": prefix.upper(),
        "PIXEL": "uint8_t",
        "CHANNELS": c,
        "HEIGHT": h,
        "WIDTH": w,
        "CLASSES": len(facts.classes),
        "ARENA": program.arena.words,
        "SCRATCH": scratch,
        "ORIGIN": image.origin,
        "STRIDE": image.stride,
        "PITCH": image.pitch,
        "BELOW": image.below,
        "QUADS": image.quads,
        "FILL": ", ".join(f"{word}u" for word in image.fill),
        "ABOUT": escaped(json.dumps(about)),
        "NAMES": "\n".join(f'    "{escaped(name)}",' for name in facts.classes),
        "MEAN": ", ".join(f"{v:.9g}" for v in facts.mean),
        "STD": ", ".join(f"{v:.9g}" for v in facts.std),
        "NORMAL": _normal(network) if grid is None else "",
        "SOFTMAX": SOFTMAX if facts.logits else "",
        "CALLS": "\n".join(f"    {call}" for call in file.calls),
        "NUMBER": number,
        "ANSWERSCALE": ", ".join(f"{v:.9g}" for v in meaning.scale.astype(np.float32).tolist()),
    }
