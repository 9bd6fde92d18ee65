"""The macros of register tiles: o channels x v vectors of sums that stay in registers.

PICK is a TAP whose vectors `half` finds in a line twice as wide.

With channels abreast the tile is of o pixels x v vectors of channels: SPREAD or ZERO starts it and
MIX adds one channel of those pixels, each times its weights.
"""

from leancnn.compiler.values import WIDEST


def tile_macros(tiles: set[tuple[str, int, int]]) -> str:
    """The macros for register tiles of o channels x v vectors that the kernels use."""
    text = []
    for word, o, v in sorted(tiles, key=lambda tile: (tile[1], tile[2], tile[0])):
        name = f"{word}_{o}X{v}"
        cells = [[f"a{i}_{j}" for j in range(v)] for i in range(o)]
        loads = " ".join(f"const vf x{j} = load((x) + {j} * LANES);" for j in range(v))
        match word:
            case "EACH":
                rows = [
                    " ".join(f"F({i}, {j}, {a})" for j, a in enumerate(row))
                    for i, row in enumerate(cells)
                ]
                head = f"#define {name}(F)"
            case "START":
                rows = [
                    f"vf {row[0]} = splat((w)[{i}])"
                    + "".join(f", {a} = {row[0]}" for a in row[1:])
                    + ";"
                    for i, row in enumerate(cells)
                ]
                head = f"#define {name}(w)"
            case "TAP" | "PICK":
                picked = " ".join(f"const vf x{j} = half((x), {j} * LANES);" for j in range(v))
                rows = [loads if word == "TAP" else picked]
                for i, row in enumerate(cells):
                    adds = " ".join(f"{a} += f * x{j};" for j, a in enumerate(row))
                    rows.append(f"{{ const float f = (w)[{i}]; {adds} }}")
                rows = ["{ " + rows[0], *rows[1:-1], rows[-1] + " }"]
                head = f"#define {name}({'half, ' * (word == 'PICK')}x, w)"
            case "SPREAD":
                first = ", ".join(f"{a} = load((w) + {j * WIDEST})" for j, a in enumerate(cells[0]))
                rows = [f"vf {first};"]
                for row in cells[1:]:
                    same = ", ".join(f"{a} = {b}" for a, b in zip(row, cells[0], strict=True))
                    rows.append(f"vf {same};")
                head = f"#define {name}(w)"
            case "ZERO":
                rows = [f"vf {', '.join(f'{a} = {{0}}' for a in row)};" for row in cells]
                head = f"#define {name}"
            case "MIX":
                loads = " ".join(f"const vf w{j} = load((w) + {j * WIDEST});" for j in range(v))
                rows = [loads]
                for i, row in enumerate(cells):
                    adds = " ".join(f"{a} += f * w{j};" for j, a in enumerate(row))
                    rows.append(f"{{ const float f = (x)[{i * WIDEST}]; {adds} }}")
                rows = ["{ " + rows[0], *rows[1:-1], rows[-1] + " }"]
                head = f"#define {name}(x, w)"
            case "LOAD":
                rows = [
                    " ".join(f"vf {a} = load((x) + {j} * LANES);" for j, a in enumerate(cells[0]))
                ]
                head = f"#define {name}(x)"
            case "LARGER":
                rows = [
                    " ".join(
                        f"{a} = larger({a}, load((x) + {j} * LANES));"
                        for j, a in enumerate(cells[0])
                    )
                ]
                head = f"#define {name}(x)"
            case "FETCH":
                rows = [" ".join(f"prefetch((x) + {j} * LANES);" for j in range(v))]
                head = f"#define {name}(x)"
            case _:
                rows = [
                    " ".join(f"{a} += load((x) + {j} * LANES);" for j, a in enumerate(cells[0]))
                ]
                head = f"#define {name}(x)"
        text.append(" \\\n    ".join([head, *rows]))
    return "\n".join(text) + "\n"
