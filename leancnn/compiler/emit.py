"""A scheduled program to one readable C file and its header."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from leancnn.compiler.c_text import File, identifier
from leancnn.compiler.emit_preprocess import emit_preprocess
from leancnn.compiler.graph import floats
from leancnn.compiler.memory import Schedule
from leancnn.compiler.tiles import tile_macros
from leancnn.compiler.verify import verify

SOFTMAX = """
    float most = probabilities[0], sum = 0.0f;
    for (int i = 1; i < CLASSES; i++)
        if (probabilities[i] > most) most = probabilities[i];
    for (int i = 0; i < CLASSES; i++) sum += probabilities[i] = expf(probabilities[i] - most);
    for (int i = 0; i < CLASSES; i++) probabilities[i] /= sum;"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the file says about the network beside its arithmetic."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, where 0 is black and 1 is white
    std: tuple[float, ...]
    source: str = ""  # the network this was made from, in words
    version: str = ""
    about: str = ""  # JSON for whoever loads the library
    full_scale: float = 255.0  # of the input of `run`: bytes for 255, floats for 1
    logits: bool = True  # softmax makes probabilities of the answers; else they are what is wanted


@dataclass(frozen=True, slots=True)
class GeneratedC:
    """The two texts, and what a caller of the library must know."""

    source: str
    header: str
    prefix: str
    scratch_bytes: int
    constant_bytes: int
    macs: int


def emit(schedule: Schedule, facts: Metadata) -> GeneratedC:
    """The C file: constants, one function a layer shape, the network, the entry points.

    Raises `ProgramError` when the program would read what it has overwritten.
    """
    verify(schedule)
    program = schedule.program
    prefix = identifier(facts.name[:99])  # files are called by it
    file = File(prefix, dump=program.arena)
    notes = json.loads(facts.about or "null")
    preprocess = emit_preprocess((notes or {}).get("road"))
    entries = ("run", "run_float", "class_names", "scratch_bytes", "preprocess", "preprocess_from")
    file.used.update(
        dict.fromkeys([prefix, "leancnn_about", *(f"{prefix}_{e}" for e in entries)], 1)
    )
    for kernel in program.kernels:
        kernel.c(file, schedule.plans[kernel])
    widest = max((b.stride for b in program.buffers), default=0)
    arena = program.arena + widest + 64
    scratch = 4 * arena + 64
    macs = program.graph.macs()
    pixel = "uint8_t" if facts.full_scale == 255 else "float"
    c, h, w = program.image.channels, program.image.height, program.image.width
    values = {
        "NAME": prefix,
        "CHANNELS": c,
        "HEIGHT": h,
        "WIDTH": w,
        "PIXEL": pixel,
        "CLASSES": len(facts.classes),
        "ARENA": arena,
        "SCRATCH": scratch,
        "ORIGIN": program.image.origin,
        "STRIDE": program.image.stride,
        "PITCH": program.image.pitch,
        "ABOUT": escaped(
            json.dumps(
                {
                    "name": facts.name,
                    "prefix": prefix,
                    "classes": len(facts.classes),
                    "image": [c, h, w],
                    "dtype": "uint8" if pixel == "uint8_t" else "float32",
                    "macs": macs,
                    "scratch_bytes": scratch,
                    "class_names": facts.classes,
                    "preprocess": preprocess.about,
                    "about": notes,
                }
            )
        ),
        "NAMES": "\n".join(f'    "{escaped(name)}",' for name in facts.classes),
        "MEAN": _numbers(facts.mean),
        "STD": _numbers(facts.std),
        "SCALE": _numbers([1 / (facts.full_scale * s) for s in facts.std]),
        "SHIFT": _numbers([-m / s for m, s in zip(facts.mean, facts.std, strict=True)]),
        "SOFTMAX": SOFTMAX if facts.logits else "",
        "CALLS": "\n".join(f"    {call}" for call in file.calls),
        "LOGITS": file.integers("logits_at", program.logits.places()),
        "CLEAR": (
            f"    memset(s + {program.image.origin - program.image.below}, 0, "
            f"{4 * program.image.size});\n"
            if program.image.masked
            else ""
        ),
        **preprocess.values,
    }
    values["DECLARED"] = _fill(preprocess.header, values)
    values["PREPROCESS"] = _fill(preprocess.source, values)
    about = [
        f"{facts.name}: {c}x{h}x{w} image -> {len(facts.classes)} classes",
        facts.source,
        f"{macs:,} multiply-accumulates, {file.constants:,} bytes of constants, "
        f"{scratch:,} bytes of scratch",
        f"Written by leancnn {facts.version}; do not edit.",
    ]
    comment = "/* " + "\n   ".join(commented(line) for line in about if line) + "\n*/\n"
    prelude = (files("leancnn.compiler") / "prelude.h").read_text(encoding="utf-8")
    frame = (files("leancnn.compiler") / "frame.c").read_text(encoding="utf-8")
    head, body = (_fill(part, values) for part in frame.split("/*@ layers @*/\n"))
    header = _fill((files("leancnn.compiler") / "frame.h").read_text(encoding="utf-8"), values)
    source = "\n".join(
        [comment + prelude, head, tile_macros(file.tiles), *file.arrays, *file.functions, body]
    )
    return GeneratedC(source, comment + header, prefix, scratch, file.constants, macs)


def escaped(text: str) -> str:
    """Any text inside a C string: bytes that are not plain letters as octal escapes."""
    plain = (
        set(b" !#$%&'()*+,-./:;<=>@[]^_`{|}~")
        | set(range(48, 58))
        | set(range(65, 91))
        | set(range(97, 123))
    )
    return "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode())


def commented(text: str) -> str:
    """Any text inside a C comment."""
    plain = "".join(c if c.isprintable() and c != "\\" else " " for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{np.float32(v):.9g}" for v in floats(values))


def _fill(text: str, values: dict[str, object]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text)
