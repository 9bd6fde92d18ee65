"""The epilogue of a kernel: what is done to each number of its result, as costs and as C."""

from collections.abc import Callable, Sequence

from leancnn.compiler.c_text import fill
from leancnn.compiler.graph import Activation, Affine, Combine
from leancnn.compiler.literals import number
from leancnn.compiler.values import Binary, Buffer, EpilogueOp, Store, Value

CYCLES: dict[str, float] = {
    "clip": 1.0,
    "leaky": 2.0,
    "sigmoid": 16.0,
    "silu": 15.0,
    "hardsigmoid": 2.0,
    "hardswish": 2.5,
    "exp": 12.0,
    "expm1": 16.0,
    "tanh": 24.0,
    "erf": 32.0,
    "sqrt": 20.0,
    "reciprocal": 16.0,
    "log": 80.0,
    "softplus": 160.0,
    "power": 160.0,
    "round": 2.0,
}
"""Cycles, about, of each activation on a vector of 16; `benchmarks/kernel_costs.py activations`."""


def epilogue_cost(epilogue: tuple[EpilogueOp, ...]) -> float:
    """Cycles of an epilogue on one vector; a first store is free."""
    total = -1.0
    for op in epilogue:
        total += CYCLES[op.kind] if isinstance(op, Activation) else 1.0
    return max(total, 0.0)


def affines(epilogue: Sequence[EpilogueOp]) -> list[Affine]:
    """Its scales and shifts, whose numbers stand beside a kernel's weights."""
    return [op for op in epilogue if isinstance(op, Affine)]


def activation(op: Activation, y: str) -> str:
    """A C expression for a function of each element of the vector `y`."""
    low, high = number(op.low), number(op.high)
    match op.kind:
        case "clip":
            if op.high == float("inf"):
                return f"floored({y}, splat({low}))"
            if op.low == float("-inf"):
                return f"capped({y}, splat({high}))"
            return f"clip({y}, {low}, {high})"
        case "leaky":
            if op.low == -1:
                return f"magnitude({y})"  # without a sign also of zero: 1 / |0| is above all
            return f"choose({y}, {y}, {y} * {low})"
        case "hardswish":
            return f"{y} * hardsigmoid({y})"
        case "exp":
            return f"exponential({y})"
        case "expm1":
            return f"growth({y})"
        case "tanh":
            return f"tangent({y})"
        case "erf":
            return f"error_function({y})"
        case "sqrt":
            return f"root({y})"
        case "reciprocal":
            return f"1.0f / {y}"
        case "log":
            return f"logarithm({y})"
        case "power":
            return f"power({y}, {low})"
        case "round":
            return f"nearest({y})"
    return f"{op.kind}({y})"


def combined(how: Combine, y: str, other: str, flipped: bool) -> str:
    """A C expression for two vectors, element by element."""
    first, second = (other, y) if flipped else (y, other)
    match how.how:
        case "max":
            return f"larger({first}, {second})"
        case "min":
            return f"smaller({first}, {second})"
    sign = {"add": "+", "sub": "-", "mul": "*", "div": "/"}[how.how]
    return f"{first} {sign} {second}"


LONG = {"sigmoid", "silu", "exp", "expm1", "tanh", "erf", "sqrt", "log", "softplus", "power"}
"""Curves that need registers of their own: written into a tile they would push its sums out."""


def statements(
    epilogue: Sequence[EpilogueOp],
    *,
    head: int,
    row: Callable[[int], str],
    operand: Callable[[Value, int], str],
    store: Callable[[Buffer, int], str],
    alone: str = "",
) -> list[str]:
    """C that does an epilogue to a vector `y`, a statement each.

    `row`: a row of the numbers beside the weights, of which `head` are not the epilogue's;
    `operand` and `store`: what an operator reads, and how it writes, as so-manieth that does
    either; `alone`: what makes a vector of a number in a row.
    """
    lines, place = [], 0
    for op in epilogue:
        match op:
            case Activation():
                lines.append(f"y = {activation(op, 'y')};")
            case Affine(scale):
                factor, shift = row(head), row(head + 1)
                only = f"{alone}({shift})" if alone else shift
                lines.append(f"y = {f'y * {factor} + {shift}' if scale.any() else only};")
                head += 2
            case Binary(how, other, flipped):
                read = "y" if other is None else operand(other, place)
                lines.append(f"y = {combined(how, 'y', read, flipped)};")
                place += other is not None
            case Store(buffer):
                lines.append(store(buffer, place))
                place += 1
    return lines


SHORT = """
#define FINISH(o, v, a) { \\
    $epilogue
}
$tile(FINISH)
#undef FINISH
"""
WHOLE = """
float sums[$count * LANES];
#define FINISH(o, v, a) store($place, a);
$tile(FINISH)
#undef FINISH
for (int o = 0; o < $outputs; o++)
    for (int v = 0; v < $vectors; v++) {
        vf y = load($place);
        $epilogue
    }
"""


def finished(epilogue: Sequence[str], tile: str, sizes: tuple[int, int], long: bool) -> str:
    """C that does `epilogue`, statements on y, to each sum of a register tile of o × v vectors.

    A short way is a macro for every sum; where an operator is long the sums are put down first, and
    a loop takes them up one by one.
    """
    outputs, vectors = sizes
    if not long:
        body = "\n".join(f"{line} \\" for line in ["vf y = a;", *epilogue])
        return fill(SHORT, epilogue=body, tile=tile)
    return fill(
        WHOLE,
        count=outputs * vectors,
        place=f"sums + (o * {vectors} + v) * LANES",
        tile=tile,
        outputs=outputs,
        vectors=vectors,
        epilogue="\n".join(epilogue),
    )


def is_long(epilogue: Sequence[EpilogueOp]) -> bool:
    """Whether an epilogue holds a long activation."""
    return any(isinstance(op, Activation) and op.kind in LONG for op in epilogue)


def described(epilogue: Sequence[EpilogueOp]) -> str:
    """An epilogue in words, for a comment."""
    words: list[str] = []
    for op in epilogue:
        if isinstance(op, Activation):
            relu = op.kind == "clip" and (op.low, op.high) == (0, float("inf"))
            words.append("relu" if relu else op.kind)
        elif isinstance(op, Affine):
            words.append("scale and shift")
        elif hasattr(op, "how"):
            words.append(op.how.how)
        else:
            words.append("store")
    return ", ".join(words)
