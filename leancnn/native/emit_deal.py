"""C that deals the rows and columns of strided inputs out to planes of their own."""

from leancnn.native.program import Line
from leancnn.native.schedule import Phases
from leancnn.native.text import number


def deal(kernel: Line, phases: Phases, inputs: int) -> str:
    """Copy rows of a group's inputs into phases, dealt out by stride; returns the next row."""
    op = kernel.op
    assert op is not None
    rows, columns = op.stride
    pitch, start = kernel.x.pitch, -op.padding[0] * kernel.x.pitch - op.padding[1]
    lines = [
        "static inline int @_deal(float *s, const int32_t *in, int from, int to)\n{",
        f"    if (to > {max(phases.rows)}) to = {max(phases.rows)};",
        f"    for (int i = 0; i < {inputs}; i++) {{",
        "        const float *x = s + in[i];",
        f"        float *d = s + {phases.offset} + i * {phases.size};",
        "        for (int r = from; r < to; r++) {",
    ]
    if phases.fill is not None:
        lines += _deal_filled(kernel, phases)
    done: set[int] = set()
    for place, (a, b) in enumerate(phases.which if phases.fill is None else ()):
        if place in done:
            continue
        source = f"x + r * {rows * pitch} + {start + a * pitch}".replace("+ -", "- ")
        target = f"d + {place * phases.stride} + r * {phases.pitch}"
        loop = f"            for (int c = 0; c < {phases.columns}; c += LANES)"
        if columns == 1:
            lines += [loop, f"                store({target} + c, load({source} + c));"]
        elif columns == 2 and b == 0:
            other = "odd"
            if (a, 1) in phases.which:
                odd = phases.which.index((a, 1))
                done.add(odd)
                other = f"d + {odd * phases.stride} + r * {phases.pitch} + c"
            else:
                lines.append("            float odd[LANES];")
            lines += [loop, f"                unzip({source} + 2 * c, {target} + c, {other});"]
        else:
            lines += [
                f"            for (int c = 0; c < {phases.columns}; c++)",
                f"                ({target})[c] = ({source})[{columns} * c + {b}];",
            ]
    return "\n".join([*lines, "        }", "    }", "    return to > from ? to : from;", "}"])


def _deal_filled(kernel: Line, phases: Phases) -> list[str]:
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
            f"                d[{place * phases.stride} + r * {phases.pitch} + c] = "
            f"inside ? x[y * {kernel.x.pitch} + z] : {number(phases.fill)};",
            "            }",
        ]
    return lines


def fetch_rows(kernel: Line, phases: Phases, vectors: int) -> list[str]:
    """While a tile is computed, bring the rows that the next one deals out into the first cache."""
    assert kernel.op is not None
    ratio = kernel.op.stride[0] * kernel.x.pitch // phases.pitch
    if ratio < 1 or phases.fill is not None:
        return []
    return [
        f"        for (int f = 0; f < {ratio * vectors} * LANES; f += 16)",
        f"            prefetch(s + in[i] + {ratio} * (p + {vectors} * LANES) + f);",
    ]
