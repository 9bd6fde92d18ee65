"""The polyphase split as C: rows and columns of strided inputs as planes of their own."""

from leancnn.compiler.c_text import fill
from leancnn.compiler.kernel import Kernel
from leancnn.compiler.literals import number
from leancnn.compiler.loops import Phases, Tiling

FUNCTION = """
static inline void @_split(float *s, const int32_t *in, int from, int to)
{
    if (to > $rows) to = $rows;
    for (int i = 0; i < $inputs; i++) {
        const float *x = s + in[i];
        float *d = s + $place + i * $size;
        for (int r = from; r < to; r++) {
            $phases
        }
    }
}
"""
ROW = """
for (int c = 0; c < $columns; c += LANES)
    store($target + c, load($source + c));
"""
EVERY_SECOND = """
for (int c = 0; c < $columns; c += LANES)
    unzip($source + 2 * c, $target + c, $other);
"""
EACH = """
for (int c = 0; c < $columns; c++)
    ($target)[c] = ($source)[$stride * c + $first];
"""
FILLED = """
for (int c = 0; c < $columns; c++) {
    const int y = r * $down + $top;
    const int z = c * $across + $left;
    const int inside = y >= 0 && y < $height && z >= 0 && z < $width;
    d[$target + c] = inside ? x[y * $pitch + z] : $outside;
}
"""


def split(kernel: Kernel, plan: Tiling) -> str:
    """Copy rows of a group's inputs into phases, split by stride, from one row to another."""
    phases = plan.phases
    assert phases is not None
    return fill(
        FUNCTION,
        rows=max(phases.rows),
        inputs=plan.inputs,
        place=plan.place,
        size=phases.size,
        phases="\n".join((_plain if phases.fill is None else _filled)(kernel, phases)),
    )


def _plain(kernel: Kernel, phases: Phases) -> list[str]:
    """A row of each phase, from an image with zeros around it."""
    op, pitch = kernel.op, kernel.x.pitch
    start = -op.padding[0] * pitch - op.padding[1]
    down, across = op.stride
    texts: list[str] = []
    for place, (row, column) in enumerate(phases.which):
        source = f"x + r * {down * pitch} + {start + row * pitch}"
        words = {"columns": phases.columns, "source": source, "target": _row(phases, place)}
        if across == 1:
            texts.append(fill(ROW, **words))
        elif across > 2 or (column == 1 and (row, 0) not in phases.which):
            texts.append(fill(EACH, **words, stride=across, first=column))
        elif column == 0:
            other = "nowhere"
            if (row, 1) in phases.which:
                other = f"{_row(phases, phases.which.index((row, 1)))} + c"
            elif not any("nowhere" in text for text in texts):
                texts.append("float nowhere[LANES];")
            texts.append(fill(EVERY_SECOND, **words, other=other))
    return texts


def _row(phases: Phases, place: int) -> str:
    """Where a row of a phase begins."""
    return f"d + {place * phases.stride} + (r - from) * {phases.pitch}"


def _filled(kernel: Kernel, phases: Phases) -> list[str]:
    """The same with something other than zero outside the image."""
    op, x = kernel.op, kernel.x
    assert phases.fill is not None
    return [
        fill(
            FILLED,
            columns=phases.columns,
            down=op.stride[0],
            top=row - op.padding[0],
            across=op.stride[1],
            left=column - op.padding[1],
            height=x.height,
            width=x.width,
            target=_row(phases, place).removeprefix("d + "),
            pitch=x.pitch,
            outside=number(phases.fill),
        )
        for place, (row, column) in enumerate(phases.which)
    ]
