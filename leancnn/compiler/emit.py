"""A scheduled program to one readable C file and its header."""

from collections.abc import Sequence

import numpy as np

from leancnn.compiler.c_text import File
from leancnn.compiler.emit_preprocess import emit_preprocess
from leancnn.compiler.frame import (
    Frame,
    GeneratedC,
    Metadata,
    filled,
    open_file,
    template,
)
from leancnn.compiler.graph import floats
from leancnn.compiler.kernel import Program
from leancnn.compiler.memory import Schedule
from leancnn.compiler.tiles import tile_macros
from leancnn.compiler.verify import verify
from leancnn.normalisation import scale_and_shift

LAYERS = "/*@ layers @*/\n"


def emit(schedule: Schedule, metadata: Metadata, *, plain: bool = False) -> GeneratedC:
    """The C file: constants, one function a layer shape, the network, the entry points; `plain`:
    without vectors, in an arena that the caller always gives.

    Raises `ProgramError` when the program would read what it has overwritten.
    """
    verify(schedule)
    program = schedule.program
    file = open_file(metadata, dump=program.arena)
    for kernel in program.kernels:
        kernel.c(file, schedule.plans[kernel])
    frame = Frame(
        metadata=metadata,
        file=file,
        preprocess=emit_preprocess(metadata.preprocessing),
        image=program.image.shape,
        pixel="uint8_t" if metadata.full_scale == 255 else "float",
        macs=program.graph.macs(),
        plain=plain,
    )
    widest = max((b.stride for b in program.buffers), default=0)
    arena = program.arena + widest + 64
    scratch = 4 * arena + 64
    values = frame.values(scratch, _values(program, file, metadata, arena))
    head, body = (filled(part, values) for part in template("frame.c").split(LAYERS))
    macros = tile_macros(file.tiles)
    return frame.written(
        scratch,
        values,
        [template("prelude.h"), head, macros, *file.arrays, *file.functions, body],
    )


def _values(program: Program, file: File, metadata: Metadata, arena: int) -> dict[str, object]:
    """What stands for the words of the frame that only programs of floats have."""
    image = program.image
    scale, shift = scale_and_shift(metadata.mean, metadata.std, metadata.full_scale)
    clear = f"    memset(s + {image.origin - image.below}, 0, {4 * image.size});\n"
    return {
        "ARENA": arena,
        "WORD": "float",
        "ORIGIN": image.origin,
        "STRIDE": image.stride,
        "PITCH": image.pitch,
        "MEAN": _numbers(metadata.mean),
        "STD": _numbers(metadata.std),
        "SCALE": _numbers(scale.tolist()),
        "SHIFT": _numbers(shift.tolist()),
        "LOGITS": file.integers("logits_at", program.logits.places()),
        "CLEAR": clear if image.masked else "",
    }


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{np.float32(v):.9g}" for v in floats(values))
