"""All pixels of each channel, or all channels of a vector, to one number each."""

from collections.abc import Iterator
from dataclasses import dataclass

from leancnn.compiler.c_text import File, Places
from leancnn.compiler.epilogue import described
from leancnn.compiler.graph import Reduce
from leancnn.compiler.kernel import Kernel, Plan, Wish, kernel, mixed_layouts
from leancnn.compiler.kernel_dense import DenseKernel
from leancnn.compiler.literals import number
from leancnn.compiler.values import WIDEST, Buffer, Step, Store, side_by_side, whole


@kernel
@dataclass(frozen=True, slots=True, eq=False)
class ReduceKernel(Kernel):
    """All pixels of each channel, or all channels of a vector, to one number."""

    op: Reduce
    takes = (Reduce,)

    def wish(self, blocked: set[bool], readable: bool) -> Wish | None:
        return None if blocked == {False} or (blocked == {True} and readable) else "planes"

    @property
    def stores_first(self) -> bool:
        return True

    def faults(self) -> Iterator[str]:
        yield from mixed_layouts(self)
        x = self.x
        if self.op.over == "pixels" and x.planes[0][0].blocked and x.whole is None:
            yield "folds a part of channels abreast as a whole"

    def c(self, file: File, plan: Plan) -> None:
        emit_reduce(file, self)


def emit_reduce(file: File, kernel: ReduceKernel) -> None:
    """Pixels or channels to one number each; steps follow on the vector of results."""
    out = kernel.out
    x = kernel.x
    places = x.places()
    at = Places()
    if kernel.op.over == "channels":
        lines = _over_channels(places, kernel.op.how, at.at(out.origin), at)
        far = not side_by_side(places)  # then a table says where
    else:
        far = not x.planes[0][0].blocked
        lines = _over_pixels(file, kernel, out, at) if far else _abreast(kernel, out, at)
    size = f"{len(places)}x{x.height}x{x.width}"
    steps_ = described(kernel.steps)
    comment = f"{kernel.name}: {kernel.op.how} of {kernel.op.over}, {size}, then {steps_}"
    head = f"LAYER @(float *s{', const int32_t *t' * far}{at.parameters})\n{{"
    name = file.function(kernel.name, comment, "\n".join([head, *lines, "}"]))
    table = ", " + file.integers(f"{kernel.name}_planes", places) if far else ""
    file.calls.append(f"{name}(s{table}{at.arguments});")
    steps: tuple[Step, ...] = kernel.steps
    steps = steps[1:] if isinstance(steps[0], Store) else steps
    if steps:
        DenseKernel(f"{kernel.name}_steps", None, whole(out), steps).c(file, Plan())


def _over_channels(places: list[int], how: str, out: str, at: Places) -> list[str]:
    n = len(places)
    each = {"max": "y = z > y || z != z ? z : y;", "norm": "y += z * z;"}.get(how, "y += z;")
    lanes = {"max": "v = larger(v, z);", "norm": "v += z * z;"}.get(how, "v += z;")
    start = "-INFINITY" if how == "max" else "0.0f"
    end = {"mean": f"y * {1 / n!r}f", "norm": "sqrtf(y)"}.get(how, "y")
    lines = ["    int i = 0;"]
    element = "s[t[i]]"
    if side_by_side(places):
        element = "x[i]"
        lines += [
            f"    const float *x = s + {at.at(places[0])};",
            f"    vf v = splat({start});",
            f"    for (; i + LANES <= {n}; i += LANES) {{",
            "        const vf z = load(x + i);",
            f"        {lanes}",
            "    }",
            f"    float y = {'largest' if how == 'max' else 'total'}(v);",
        ]
    else:
        lines.append(f"    float y = {start};")
    lines += [
        f"    for (; i < {n}; i++) {{",
        f"        const float z = {element};",
        f"        {each}",
        "    }",
        f"    s[{out}] = {end};",
    ]
    return lines


def _over_pixels(file: File, kernel: ReduceKernel, out: Buffer, at: Places) -> list[str]:
    x = kernel.x
    pitch = x.pitch
    line = x.height * pitch
    result = {"mean": f"y * {1 / (x.height * x.width)!r}f", "norm": "sqrtf(y)"}.get(
        kernel.op.how, "y"
    )
    lines = [
        f"    for (int c = 0; c < {len(x.planes)}; c++) {{",
        "        const float *x = s + t[c];",
    ]
    if kernel.op.how == "max":
        lines += [
            "        float y = -INFINITY;",
            f"        for (int r = 0; r < {x.height}; r++, x += {pitch}) {{",
            "            int i = 0;",
        ]
        if x.width >= 4:
            lines += [
                f"            if ({x.width} >= LANES) {{",
                "                vf most = load(x);",
                f"                for (i = LANES; i + LANES <= {x.width}; i += LANES) "
                "most = larger(most, load(x + i));",
                f"                const int last = {x.width} >= LANES ? {x.width} - LANES : 0;",
                "                most = larger(most, load(x + last));",
                "                const float z = largest(most);",
                "                y = z > y || z != z ? z : y;",
                f"                i = {x.width};",
                "            }",
            ]
        lines += [
            f"            for (; i < {x.width}; i++) y = x[i] > y || x[i] != x[i] ? x[i] : y;",
            "        }",
        ]
    else:
        mask = file.mask(x.height, x.width, pitch)
        value = f"keep(load(x + p), {mask} + p)"
        add = (
            f"{{ const vf z = {value}; y0 += z * z; }}"
            if kernel.op.how == "norm"
            else f"y0 += {value};"
        )
        lines += [
            "        vf y0 = {0};",
            f"        for (int p = 0; p < {line}; p += LANES) {add}",
            "        const float y = total(y0);",
        ]
    return [*lines, f"        s[{at.at(out.origin)} + c] = {result};", "    }"]


def _abreast(kernel: ReduceKernel, out: Buffer, at: Places) -> list[str]:
    """Pixels that have sixteen channels abreast, vector by vector."""
    x = kernel.x
    pixels, first = x.height * x.width, at.at(x.places()[0])
    add = {"max": "y = larger(y, x);", "norm": "y += x * x;"}.get(kernel.op.how, "y += x;")
    result = {"mean": f"y * {number(1 / pixels)}", "norm": "root(y)"}.get(kernel.op.how, "y")
    lines = [
        f"    for (int b = 0; b < {-(-len(x.planes) // WIDEST)}; b++)",
        f"    for (int l = 0; l < {WIDEST}; l += LANES) {{",
        f"        const int o = b * {WIDEST} + l;",
        f"        vf y = {'splat(-INFINITY)' if kernel.op.how == 'max' else '{0}'};",
        f"        for (int p = 0; p < {pixels * WIDEST}; p += {WIDEST}) {{",
        f"            const vf x = load(s + {first} + b * {x.planes[0][0].stride} + l + p);",
        f"            {add}",
        "        }",
        f"        y = {result};",
    ]
    return [*lines, f"        store(s + {at.at(out.origin)} + o, y);", "    }"]
