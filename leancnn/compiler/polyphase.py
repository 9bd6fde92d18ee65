"""C that deals the rows and columns of strided inputs out to planes of their own."""

from leancnn.compiler.kernel import Kernel
from leancnn.compiler.literals import number
from leancnn.compiler.loops import Phases, Tiling


def deal(kernel: Kernel, tiling: Tiling) -> str:
    """Copy rows of a group's inputs into phases, dealt out by stride, from one row to another."""
    phases, inputs = tiling.phases, tiling.inputs
    assert phases is not None
    op = kernel.op
    assert op is not None
    rows, columns = op.stride
    pitch, start = kernel.x.pitch, -op.padding[0] * kernel.x.pitch - op.padding[1]
    lines = [
        "static inline void @_deal(float *s, const int32_t *in, int from, int to)\n{",
        f"    if (to > {max(phases.rows)}) to = {max(phases.rows)};",
        f"    for (int i = 0; i < {inputs}; i++) {{",
        "        const float *x = s + in[i];",
        f"        float *d = s + {tiling.place} + i * {phases.size};",
        "        for (int r = from; r < to; r++) {",
    ]
    if phases.fill is not None:
        lines += _deal_filled(kernel, phases)
    done: set[int] = set()
    for place, (a, b) in enumerate(phases.which if phases.fill is None else ()):
        if place in done:
            continue
        source = f"x + r * {rows * pitch} + {start + a * pitch}".replace("+ -", "- ")
        target = f"d + {place * phases.stride} + (r - from) * {phases.pitch}"
        loop = f"            for (int c = 0; c < {phases.columns}; c += LANES)"
        if columns == 1:
            lines += [loop, f"                store({target} + c, load({source} + c));"]
        elif columns == 2 and b == 0:
            other = "nowhere"
            if (a, 1) in phases.which:
                odd = phases.which.index((a, 1))
                done.add(odd)
                other = f"d + {odd * phases.stride} + (r - from) * {phases.pitch} + c"
            elif "nowhere" not in "".join(lines):
                lines.append("            float nowhere[LANES];")
            lines += [loop, f"                unzip({source} + 2 * c, {target} + c, {other});"]
        else:
            lines += [
                f"            for (int c = 0; c < {phases.columns}; c++)",
                f"                ({target})[c] = ({source})[{columns} * c + {b}];",
            ]
    return "\n".join([*lines, "        }", "    }", "}"])


def _deal_filled(kernel: Kernel, phases: Phases) -> list[str]:
    """The same with something other than zero outside the image."""
    op = kernel.op
    assert op is not None
    assert phases.fill is not None
    rows, columns = op.stride
    lines = []
    for place, (a, b) in enumerate(phases.which):
        lines += [
            f"            for (int c = 0; c < {phases.columns}; c++) {{",
            f"                const int y = r * {rows} + {a - op.padding[0]};".replace("+ -", "- "),
            f"                const int z = c * {columns} + {b - op.padding[1]};".replace(
                "+ -", "- "
            ),
            f"                const int inside = y >= 0 && y < {kernel.x.height} && z >= 0 "
            f"&& z < {kernel.x.width};",
            f"                d[{place * phases.stride} + (r - from) * {phases.pitch} + c] = "
            f"inside ? x[y * {kernel.x.pitch} + z] : {number(phases.fill)};",
            "            }",
        ]
    return lines
