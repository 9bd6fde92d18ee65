"""C that turns values: from planes to sixteen channels of a pixel abreast, or back."""

from leancnn.compiler.c_text import File
from leancnn.compiler.program import WIDEST, LayoutKernel


def emit_layout(file: File, kernel: LayoutKernel) -> None:
    """Copy every pixel from planes to channels abreast, or back.

    The table holds the place of each channel, how far its rows and how far its pixels are apart,
    filled up with the last channel to whole vectors.
    """
    x, out = kernel.x, kernel.out
    straight = all(b.blocked != out.blocked for b in x.buffers)
    if out.blocked:
        straight = straight and not any(b.vector for b in x.buffers)
        body = _abreast(kernel) if straight else _one_by_one(kernel)
    else:
        body = _planes(kernel) if straight and x.whole is not None else _one_by_one(kernel)
    how = "channels abreast" if out.blocked else "planes"
    comment = f"{kernel.name}: {out.channels}x{out.height}x{out.width} to {how}"
    name = file.function(kernel.name, comment, "\n".join(body))
    table = []
    for place, (buffer, _) in zip(x.places(), x.planes, strict=True):
        table += [place, buffer.pitch, buffer.step]
    table += table[-3:] * (-len(x.planes) % WIDEST)
    places = file.integers(f"{kernel.name}_places", table)
    if out.masked:
        file.calls.append(
            f"memset(s + {out.origin - out.below}, 0, {4 * out.size}); /* zeros around planes */"
        )
    file.calls.append(f"{name}(s, {places}, s + {out.origin});")


def _one_by_one(kernel: LayoutKernel) -> list[str]:
    out = kernel.out
    target = f"c / {WIDEST} * {out.stride} + c % {WIDEST}" if out.blocked else f"c * {out.stride}"
    return [
        "LAYER @(const float *s, const int32_t *t, float *y)\n{",
        f"    for (int b = 0; b < {out.channels}; b += {WIDEST})",
        f"        for (int r = 0; r < {out.height}; r++)",
        f"            for (int c = b; c < b + {WIDEST} && c < {out.channels}; c++) {{",
        "                const float *from = s + t[3 * c] + r * t[3 * c + 1];",
        "                const int step = t[3 * c + 2];",
        f"                float *to = y + {target} + r * {out.pitch};",
        f"                for (int i = 0; i < {out.width}; i++)",
        f"                    to[i * {out.step}] = from[i * step];",
        "            }",
        "}",
    ]


def _loops(kernel: LayoutKernel, last: str) -> list[str]:
    """The start of a function that goes over squares of LANES channels × LANES pixels."""
    return [
        "LAYER @(const float *s, const int32_t *t, float *y)\n{",
        f"    for (int b = 0; b < {kernel.out.channels}; b += LANES)",
        f"        for (int r = 0; r < {kernel.out.height}; r++)",
        f"            for (int c = 0; c < {kernel.out.width}; c += LANES) {{",
        f"                const int p = {last};",
        "                vf x[LANES];",
    ]


def _abreast(kernel: LayoutKernel) -> list[str]:
    """Squares of planes; where a row is shorter than a vector some pixels are left out."""
    out = kernel.out
    width, row = out.width, out.pitch
    return [
        *_loops(kernel, f"c + LANES > {width} && c ? {width} - LANES : c"),
        "                for (int i = 0; i < LANES; i++) {",
        "                    const int32_t *u = t + 3 * (b + i);",
        "                    x[i] = load(s + u[0] + r * u[1] + p);",
        "                }",
        "                transpose(x);",
        f"                float *z = y + b / {WIDEST} * {out.stride} + b % {WIDEST} + r * {row} "
        f"+ p * {WIDEST};",
        f"                for (int i = 0; i < LANES && i < {width}; i++) "
        f"store(z + i * {WIDEST}, x[i]);",
        "            }",
        "}",
    ]


def _planes(kernel: LayoutKernel) -> list[str]:
    """Squares of pixels, where a row holds a vector."""
    x, out = kernel.x, kernel.out
    slow = "\n".join(_one_by_one(kernel)[1:-1])
    fast = [
        *_loops(kernel, f"c + LANES > {out.width} ? {out.width} - LANES : c"),
        f"                const float *from = s + t[3 * b] + r * t[3 * b + 1] + p * {WIDEST};",
        f"                for (int i = 0; i < LANES; i++) x[i] = load(from + i * {WIDEST});",
        "                transpose(x);",
        f"                for (int i = 0; i < LANES && b + i < {out.channels}; i++)",
        f"                    store(y + (b + i) * {out.stride} + r * {out.pitch} + p, x[i]);",
        "            }",
    ]
    assert x.whole is not None
    return [fast[0], f"#if LANES <= {out.width}", *fast[1:], "#else", slow, "#endif", "}"]
