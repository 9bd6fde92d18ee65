"""C for kernels on vectors: matrix by vector, reductions, flattening, softmax."""

import numpy as np

from leancnn.compiler.c_text import File, Places, combined, curve, described
from leancnn.compiler.graph import Activation, Affine, floats
from leancnn.compiler.literals import LARGE, number
from leancnn.compiler.program import (
    WIDEST,
    Binary,
    Buffer,
    DenseKernel,
    FlattenKernel,
    ReduceKernel,
    SoftmaxKernel,
    Step,
    Store,
    Value,
)

AHEAD = 1024  # floats between the weights that are multiplied and those that are fetched


def emit_dense(file: File, kernel: DenseKernel) -> None:
    """A convolution whose result is one pixel, or element-wise steps on a vector.

    Outputs lie in the lanes. For each block of outputs the weights are bias, scales and shifts of
    the steps, then a row for each input number, in the order in which they are read; the table says
    where in the arena each input number is.
    """
    groups = 1 if kernel.op is None else kernel.op.groups
    wide = kernel.channels // groups
    row = -(-wide // WIDEST) * WIDEST
    inputs, matrix = _matrix(kernel, groups, wide)
    depth = len(inputs) // groups
    if kernel.op is None and not _side_by_side(kernel.x.places()):
        inputs = _filled(kernel.x.places())
    extra = [step for step in kernel.steps if isinstance(step, Affine)]
    heads = [] if kernel.op is None else [kernel.op.bias]
    for step in extra:
        heads += [step.scale, step.shift]
    units = next(u for u in (8, 7, 6, 5, 4, 3, 2, 1) if row // WIDEST % u == 0)
    block = units * WIDEST
    blocks = []
    for group in range(groups):
        part = slice(group * wide, (group + 1) * wide)
        rows = [np.asarray(values)[None, part] for values in heads]
        if depth:
            rows.append(matrix[group])
        if rows:
            filled = np.pad(np.concatenate(rows), ((0, 0), (0, row - wide)))
            blocks.append(filled.reshape(len(filled), -1, block).transpose(1, 0, 2).ravel())
    sizes = (groups, wide, row // block, depth, len(heads), units)
    at = Places()
    given = [", const int32_t *t"] * bool(inputs) + [", const float *w"] * bool(blocks)
    loops = _dense_loops(file, kernel, sizes, at)
    body = f"LAYER @(float *s{''.join(given)}{at.parameters})\n{{\n{loops}\n}}"
    c = len(kernel.x.planes)
    what = (
        "element by element"
        if kernel.op is None
        else f"matrix by vector, {groups} groups of {depth} numbers"
    )
    comment = (
        f"{kernel.name}: {what}, {c} planes -> {kernel.channels}, then {described(kernel.steps)}"
    )
    name = file.function(kernel.name, comment, body)
    arguments = [", " + file.integers(f"{kernel.name}_inputs", inputs)] if inputs else []
    if blocks:
        arguments.append(", " + file.floats(kernel.name, floats(np.concatenate(blocks))))
    file.calls.append(f"{name}(s{''.join(arguments)}{at.arguments});")


def _matrix(kernel: DenseKernel, groups: int, wide: int) -> tuple[list[int], list[np.ndarray]]:
    """Places of the input numbers, group by group, and the weights: one row for each."""
    op, x = kernel.op, kernel.x
    if op is None:
        return [], []
    per = len(x.planes) // groups
    _, _, rows, columns = op.weight.shape
    window = [
        (i, j, i * op.dilation[0] - op.padding[0], j * op.dilation[1] - op.padding[1])
        for i in range(rows)
        for j in range(columns)
    ]
    inside = [(i, j, y, z) for i, j, y, z in window if 0 <= y < x.height and 0 <= z < x.width]
    places = x.places()
    inputs = [place + y * x.pitch + z * x.step for place in places for _, _, y, z in inside]
    chosen = op.weight[:, :, [i for i, *_ in inside], [j for _, j, *_ in inside]]
    by_group = chosen.reshape(groups, wide, per * len(inside)).transpose(0, 2, 1)
    return inputs, list(by_group)


def _side_by_side(places: list[int]) -> bool:
    return places == list(range(places[0], places[0] + len(places)))


def _filled(places: list[int]) -> list[int]:
    return places + places[-1:] * (-len(places) % WIDEST)


def _dense_loops(
    file: File, kernel: DenseKernel, sizes: tuple[int, int, int, int, int, int], at: Places
) -> str:
    """What the function does: `s` is the arena, `t` the places of inputs, `w` the weights."""
    groups, wide, blocks, depth, head, units = sizes
    row = units * WIDEST
    split = max(1, 4 // units) if depth >= 8 else 1  # sums of their own, to hide latency
    split = split if depth % split == 0 else 1
    names = [[f"a{u}_{k}" for k in range(split)] for u in range(units)]
    group = f", t += {depth}" if depth else ""
    block = f", w += {(head + depth) * row}" if head + depth else ""
    lines = [
        f"    for (int g = 0; g < {groups}; g++{group})",
        f"    for (int b = 0; b < {blocks}; b++{block})",
        f"    for (int l = 0; l < {WIDEST}; l += LANES) {{",
        f"        const int o = b * {row} + l;",
    ]
    if kernel.op is None:
        for u in range(units):
            if _side_by_side(kernel.x.places()):
                first = f"load(s + {at.at(kernel.x.places()[0])}"
            else:
                first = "gather(s, t"
            lines.append(f"        vf {names[u][0]} = {first} + o + {u * WIDEST});")
    else:
        for u in range(units):
            rest = "".join(f", {name} = {{0}}" for name in names[u][1:])
            lines.append(f"        vf {names[u][0]} = load(w + {u * WIDEST} + l){rest};")
        lines += _products(file, names, depth, split, head * row)
    for u in range(units):
        lines.append(f"        {{\n            vf y = {names[u][0]};")
        lines += _steps(file, kernel, row, wide, u * WIDEST, at)
        lines.append("        }")
    lines.append("    }")
    return "\n".join(lines)


def _products(file: File, names: list[list[str]], depth: int, split: int, behind: int) -> list[str]:
    """Add every input number times its weights to the sums in `names`; weights lie `behind` w."""
    if not depth:
        return []  # the whole window lies in the padding
    row = len(names) * WIDEST
    lines = [
        f"        const float *k = w + {behind} + l;",
        f"        for (int i = 0; i < {depth}; i += {split}, k += {split * row}) {{",
    ]
    if depth * row > LARGE:
        file.tiles.add(("FETCH", 1, len(names) * split))
        lines.append(f"            FETCH_1X{len(names) * split}(k + {AHEAD})")
    for part in range(split):
        lines.append(f"            const float x{part} = s[t[i + {part}]];")
        lines += [
            f"            {sums[part]} += x{part} * load(k + {part * row + u * WIDEST});"
            for u, sums in enumerate(names)
        ]
    lines.append("        }")
    return lines + [f"        {first} += {name};" for first, *rest in names for name in rest]


def _steps(
    file: File, kernel: DenseKernel, row: int, wide: int, first: int, at: Places
) -> list[str]:
    """The steps on the vector of outputs that starts `first` behind output o of group g."""
    lines = []
    place, mine = f"o + {first}", f"{first} + l"
    offset = row if kernel.op is not None else 0
    for step in kernel.steps:
        if isinstance(step, Activation):
            lines.append(f"            y = {curve(step, 'y')};")
        elif isinstance(step, Affine):
            scaled = f"y * load(w + {offset} + {mine}) + " if step.scale.any() else ""
            lines.append(f"            y = {scaled}load(w + {offset + row} + {mine});")
            offset += 2 * row
        elif isinstance(step, Binary):
            other = "y"
            if step.other is not None:
                other = _operand(file, kernel.name, step.other, f"g * {wide} + {place}", at)
            lines.append(f"            y = {combined(step.how, 'y', other, step.flipped)};")
        else:
            to = at.at(step.buffer.origin)
            lines.append(f"            store(s + {to} + g * {wide} + {place}, y);")
    return lines


def _operand(file: File, name: str, other: Value, place: str, at: Places) -> str:
    places = other.places()
    if len(set(places)) == 1:
        return f"splat(s[{at.at(places[0])}])"
    if _side_by_side(places):
        return f"load(s + {at.at(places[0])} + {place})"
    table = file.integers(f"{name}_other", places + places[-1:] * WIDEST)
    return f"gather(s, {table} + {place})"


def emit_reduce(file: File, kernel: ReduceKernel) -> None:
    """Pixels or channels to one number each; steps follow on the vector of results."""
    out = next(step.buffer for step in kernel.steps if isinstance(step, Store))
    x = kernel.x
    places = x.places()
    at = Places()
    if kernel.over == "channels":
        lines = _over_channels(places, kernel.how, at.at(out.origin), at)
        far = not _side_by_side(places)  # then a table says where
    else:
        far = not x.planes[0][0].blocked
        lines = _over_pixels(file, kernel, out, at) if far else _abreast(kernel, out, at)
    size = f"{len(places)}x{x.height}x{x.width}"
    steps_ = described(kernel.steps)
    comment = f"{kernel.name}: {kernel.how} of {kernel.over}, {size}, then {steps_}"
    head = f"LAYER @(float *s{', const int32_t *t' * far}{at.parameters})\n{{"
    name = file.function(kernel.name, comment, "\n".join([head, *lines, "}"]))
    table = ", " + file.integers(f"{kernel.name}_planes", places) if far else ""
    file.calls.append(f"{name}(s{table}{at.arguments});")
    steps: tuple[Step, ...] = kernel.steps
    steps = steps[1:] if isinstance(steps[0], Store) else steps
    if steps:
        whole = Value(tuple((out, c) for c in range(out.channels)), 1, 1)
        emit_dense(file, DenseKernel(f"{kernel.name}_steps", None, whole, out.channels, steps))


def _over_channels(places: list[int], how: str, out: str, at: Places) -> list[str]:
    n = len(places)
    each = {"max": "y = z > y || z != z ? z : y;", "norm": "y += z * z;"}.get(how, "y += z;")
    lanes = {"max": "v = larger(v, z);", "norm": "v += z * z;"}.get(how, "v += z;")
    start = "-INFINITY" if how == "max" else "0.0f"
    end = {"mean": f"y * {1 / n!r}f", "norm": "sqrtf(y)"}.get(how, "y")
    lines = ["    int i = 0;"]
    element = "s[t[i]]"
    if _side_by_side(places):
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
    result = {"mean": f"y * {1 / (x.height * x.width)!r}f", "norm": "sqrtf(y)"}.get(kernel.how, "y")
    lines = [
        f"    for (int c = 0; c < {len(x.planes)}; c++) {{",
        "        const float *x = s + t[c];",
    ]
    if kernel.how == "max":
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
            if kernel.how == "norm"
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
    add = {"max": "y = larger(y, x);", "norm": "y += x * x;"}.get(kernel.how, "y += x;")
    result = {"mean": f"y * {number(1 / pixels)}", "norm": "root(y)"}.get(kernel.how, "y")
    lines = [
        f"    for (int b = 0; b < {-(-len(x.planes) // WIDEST)}; b++)",
        f"    for (int l = 0; l < {WIDEST}; l += LANES) {{",
        f"        const int o = b * {WIDEST} + l;",
        f"        vf y = {'splat(-INFINITY)' if kernel.how == 'max' else '{0}'};",
        f"        for (int p = 0; p < {pixels * WIDEST}; p += {WIDEST}) {{",
        f"            const vf x = load(s + {first} + b * {x.planes[0][0].stride} + l + p);",
        f"            {add}",
        "        }",
        f"        y = {result};",
    ]
    return [*lines, f"        store(s + {at.at(out.origin)} + o, y);", "    }"]


def emit_flatten(file: File, kernel: FlattenKernel) -> None:
    """Copy every pixel, in order."""
    x, out = kernel.x, kernel.out
    places = x.places()
    table = file.integers(f"{kernel.name}_planes", places)
    size = x.height * x.width
    body = [
        "LAYER @(float *s, const int32_t *t)\n{",
        "    int n = 0;",
        f"    for (int c = 0; c < {len(places)}; c++)",
        f"        for (int r = 0; r < {x.height}; r++)",
        f"            for (int i = 0; i < {x.width}; i++, n++)",
        f"                s[{out.origin} + n / {out.height * out.width} * {out.stride} + "
        f"n % {out.height * out.width} / {out.width} * {out.pitch} + n % {out.width}] = "
        f"s[t[c] + r * {x.pitch} + i * {x.step}];",
        "}",
    ]
    before, after = f"{len(places)}x{x.height}x{x.width}", f"{out.height}x{out.width}"
    comment = f"{kernel.name}: {before} -> {out.channels}x{after}"
    name = file.function(kernel.name, comment, "\n".join(body))
    if out.masked:
        file.calls.append(
            f"memset(s + {out.origin - out.below}, 0, {4 * out.size}); /* zeros around planes */"
        )
    file.calls.append(f"{name}(s, {table}); /* {size * len(places)} floats */")


def emit_softmax(file: File, kernel: SoftmaxKernel) -> None:
    """Softmax inside a network."""
    places = kernel.x.places()
    table = file.integers(f"{kernel.name}_planes", places)
    each = f"    for (int i = 0; i < {len(places)}; i++)"
    sums = ["sum += y[i] = expf(s[t[i]] - most);", "y[i] /= sum;"]
    if kernel.log:
        sums = ["sum += expf((y[i] = s[t[i]] - most));", "y[i] -= logf(sum);"]
    body = "\n".join(
        [
            "LAYER @(float *s, const int32_t *t)\n{",
            f"    float most = s[t[0]], sum = 0.0f, *y = s + {kernel.out.origin};",
            f"    for (int i = 1; i < {len(places)}; i++) most = most > s[t[i]] ? most : s[t[i]];",
            *(f"{each} {one}" for one in sums),
            "}",
        ]
    )
    what = "log softmax" if kernel.log else "softmax"
    name = file.function(kernel.name, f"{kernel.name}: {what} of {len(places)}", body)
    file.calls.append(f"{name}(s, {table});")
