"""The macros of register tiles: o channels x v vectors of sums that stay in registers.

Below, `@` is a channel and `#` a vector of the tile, whose sums are `a@_#`. A line behind `@:` is
written for each channel, one behind `@1:` for each but the first; what stands in `< >` for each
vector, in `<1: >` for each but the first, with what is behind `|` between, else a space. `@W` and
`#W` are so many floats of the widest vectors.

With channels side by side the tile is of o pixels x v vectors of channels: SPREAD or ZERO starts it
and MIX adds one channel of those pixels, each times its weights, whose vectors are #W apart or, for
NEAR, neighbours. PICK is a TAP whose vectors `half` finds in a line twice as wide. `ordered` keeps
a sum where it stands.
"""

import re

from leancnn.compiler.arena import WIDEST

TILES = {
    "EACH(F)": """
@: <F(@, #, a@_#)>
""",
    "START(w)": """
@: vf a@_0 = splat((w)[@])<1:, a@_# = a@_0|>;
""",
    "TAP(x, w)": """
{ <const vf x# = load((x) + # * LANES);>
@: { const float f = (w)[@]; <a@_# += f * x#; ordered(a@_#);> }
}
""",
    "PICK(half, x, w)": """
{ <const vf x# = half((x), # * LANES);>
@: { const float f = (w)[@]; <a@_# += f * x#; ordered(a@_#);> }
}
""",
    "SPREAD(w)": """
vf <a0_# = load((w) + #W)|, >;
@1: vf <a@_# = a0_#|, >;
""",
    "ZERO": """
@: vf <a@_# = {0}|, >;
""",
    "MIX(x, w)": """
{ <const vf w# = load((w) + #W);>
@: { const float f = (x)[@W]; <a@_# += f * w#; ordered(a@_#);> }
}
""",
    "SPREAD_NEAR(w)": """
vf <a0_# = load((w) + # * LANES)|, >;
@1: vf <a@_# = a0_#|, >;
""",
    "MIX_NEAR(x, w)": """
{ <const vf w# = load((w) + # * LANES);>
@: { const float f = (x)[@W]; <a@_# += f * w#; ordered(a@_#);> }
}
""",
    "LOAD(x)": """
<vf a0_# = load((x) + # * LANES);>
""",
    "LARGER(x)": """
<a0_# = larger(a0_#, load((x) + # * LANES));>
""",
    "FETCH(x)": """
<prefetch((x) + # * LANES);>
""",
    "PLUS(x)": """
<a0_# += load((x) + # * LANES);>
""",
}
HEADS = {head.partition("(")[0]: head for head in TILES}
GROUP = re.compile(r"<(1:)?([^<>|]*)(?:\|([^<>]*))?>")


def tile_macros(tiles: set[tuple[str, int, int]]) -> str:
    """The macros for register tiles of o channels x v vectors that the kernels use."""
    ordered = sorted(tiles, key=lambda tile: (tile[1], tile[2], tile[0]))
    return "\n".join(_macro(word, o, v) for word, o, v in ordered) + "\n"


def _macro(word: str, o: int, v: int) -> str:
    """One macro: lines that hang together by backslashes, a closing brace behind the last."""
    head = HEADS[word]
    rows = [f"#define {word}_{o}X{v}{head.removeprefix(word)}"]
    for line in TILES[head].strip("\n").splitlines():
        mark, text = line.split(" ", 1) if line.startswith("@") else ("", line)
        text = _each_vector(text, v)
        if mark:
            rows += [_numbered(text, "@", i) for i in range(mark == "@1:", o)]
        else:
            rows.append(text)
    return " \\\n    ".join(rows).replace(" \\\n    }", " }")


def _each_vector(text: str, v: int) -> str:
    """A line with what stands in `< >` written for each vector."""

    def written(match: re.Match[str]) -> str:
        first, inside, between = match.groups()
        numbers = range(bool(first), v)
        return (" " if between is None else between).join(
            _numbered(inside, "#", j) for j in numbers
        )

    return GROUP.sub(written, text)


def _numbered(text: str, mark: str, number: int) -> str:
    """A line with the number of a channel or a vector for its mark."""
    return text.replace(f"{mark}W", str(number * WIDEST)).replace(mark, str(number))
