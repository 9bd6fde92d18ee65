"""Which kernels lay sixteen channels of a pixel abreast in the lanes, by the cost model.

Along its line a map of 4×4 fills 20 of 32 lanes. With channels in the lanes every lane works on
any map: a 1×1 convolution becomes a matrix product that reads its weights once and in order, a
depthwise one shifts whole vectors, a dense 3×3 one takes fewer multiplications. Maps shrink and
channels grow on the way through a network, so the search begins with the best kernel from which on
all that can are laid out so; then single ones change sides. A `LayoutKernel` stands where layouts
meet.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, TypeGuard

from leancnn.compiler.graph import Activation, Conv
from leancnn.compiler.loops import planar_cost, round_up
from leancnn.compiler.program import (
    WIDEST,
    Binary,
    BlockedKernel,
    Buffer,
    DenseKernel,
    FlattenKernel,
    Kernel,
    LayoutKernel,
    PlanarKernel,
    Program,
    ReduceKernel,
    SoftmaxKernel,
    Step,
    Value,
    reads,
    whole,
    writes,
)
from leancnn.compiler.winograd import (
    Tile,
    in_vectors,
    is_winograd,
    likely_ways,
    product_tiles,
    tile_of,
    ways,
)

Layout = Literal["best", "planes", "abreast"]
CURVES = {
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
}
"""Cycles, about, of each curve on a vector of 16."""
TURNED = {True: 0.5, False: 0.8}  # cycles of turning one number, to abreast and back
NARROW = 1.5  # and back where a row is shorter than a vector


def is_pointwise(kernel: PlanarKernel | BlockedKernel) -> bool:
    """Whether a kernel is a 1×1 convolution of every pixel."""
    op = kernel.op
    if not isinstance(op, Conv) or op.groups > 1 or any(op.padding):
        return False
    return op.weight.shape[2:] == (1, 1) and op.stride == (1, 1)


def can_be_blocked(kernel: Kernel) -> TypeGuard[PlanarKernel]:
    """Whether there is C for a kernel with channels in the lanes."""
    if not isinstance(kernel, PlanarKernel):
        return False
    if isinstance(kernel.op, Conv):
        depthwise = kernel.op.groups == kernel.channels == len(kernel.x.planes)
        if not (depthwise or is_pointwise(kernel) or is_winograd(kernel)):
            return False
    elif kernel.op is not None or kernel.x.whole is None:
        return False
    return all(_fits(step.other, kernel) for step in kernel.steps if isinstance(step, Binary))


def _fits(other: Value | None, kernel: PlanarKernel) -> bool:
    """Whether a step's operand is as large as the result, a gate for each channel or one number."""
    if other is None:
        return True
    if (other.height, other.width) == (1, 1):
        buffer = other.whole
        gate = buffer is not None and len(other.planes) == kernel.channels
        return len(other.planes) == 1 or (gate and buffer is not None and buffer.gap == (0, 0))
    shape = (len(other.planes), other.height, other.width)
    return shape == (kernel.channels, kernel.height, kernel.width)


def choose(program: Program, layout: Layout = "best") -> None:
    """Replace the line kernels that are better off by abreast ones, and turn values between them.

    Pitches must be those of a program of planes alone; they change. "planes" and "abreast" decide
    for all kernels that can be both.
    """
    able = [kernel for kernel in program.kernels if can_be_blocked(kernel)]
    starts = {"planes": [len(able)], "abreast": [0]}.get(layout, list(range(len(able) + 1)))
    chosen = set(able[starts[0] :])
    if len(starts) > 1:
        price = _Price(program)
        chosen = set(able[min(starts, key=lambda start: price(set(able[start:]))) :])
        chosen = _better(price, able, chosen)
    _lay(program, chosen)


def _better(
    price: "_Price", able: list[PlanarKernel], chosen: set[PlanarKernel]
) -> set[PlanarKernel]:
    """Change one kernel at a time while that makes the program cheaper."""
    best, before = price(chosen), float("inf")
    while best < before:
        before = best
        for kernel in able:
            if (cost := price(chosen ^ {kernel})) < best:
                chosen, best = chosen ^ {kernel}, cost
    return chosen


def _wanted(
    kernel: Kernel, becomes_abreast: bool, buffers: list[tuple[Buffer, bool]], whole: bool
) -> bool | None:
    """How a kernel wants a value it reads: abreast, in planes (False), or as it is (None).

    `buffers`: those of the value, and whether they lie abreast; `whole`: whether, abreast, it could
    be read as it is.
    """
    kinds = {blocked for buffer, blocked in buffers if not buffer.vector}
    if not kinds:
        return None
    match kernel:
        case PlanarKernel() if becomes_abreast:
            return None if kinds == {True} and whole else True
        case ReduceKernel():
            return None if kinds == {False} or (kinds == {True} and whole) else False
        case DenseKernel() | FlattenKernel() | SoftmaxKernel():
            return None if len(kinds) == 1 else False
    return None if kinds == {False} else False


class _Price:
    """Cycles, about, of a program in which some of its line kernels are abreast."""

    def __init__(self, program: Program) -> None:
        self.costs = {
            kernel: (planar_cost(kernel) + finish_cost(kernel), blocked_cost(kernel))
            for kernel in program.kernels
            if isinstance(kernel, PlanarKernel)
        }
        self.makers = {buffer: kernel for kernel in program.kernels for buffer in writes(kernel)}
        self.reads = [
            (kernel, value.planes, value.buffers, _is_whole(kernel, value), _size(value))
            for kernel in program.kernels
            for value in reads(kernel)
        ]

    def __call__(self, chosen: set[PlanarKernel]) -> float:
        total = sum(costs[kernel in chosen] for kernel, costs in self.costs.items())
        turned: set[object] = set()
        for kernel, planes, buffers, readable, size in self.reads:
            laid = [(buffer, self.makers.get(buffer) in chosen) for buffer in buffers]
            wanted = _wanted(kernel, kernel in chosen, laid, readable)
            if wanted and id(planes) not in turned:
                turned.add(id(planes))
                total += TURNED[True] * size
            for buffer, blocked in laid if wanted is False else ():
                if blocked and buffer not in turned:
                    turned.add(buffer)
                    size = buffer.channels * buffer.height * buffer.width
                    total += size * (TURNED[False] if buffer.width >= WIDEST else NARROW)
        return total


def _size(value: Value) -> int:
    return round_up(len(value.planes)) * value.height * value.width


def _is_whole(kernel: Kernel, value: Value) -> bool:
    """Whether a value can be read abreast as it is; a 1×1 convolution finds each channel."""
    if isinstance(kernel, PlanarKernel) and value is kernel.x:
        if is_pointwise(kernel):
            return all((b.height, b.width) == (value.height, value.width) for b in value.buffers)
        if is_winograd(kernel):
            return in_vectors(value)
    return value.whole is not None


def _lay(program: Program, chosen: set[PlanarKernel]) -> None:
    """Rewrite the kernels: abreast those that are chosen, with turns where a reader needs one."""
    kernels: list[Kernel] = []
    turned: dict[object, Value] = {}

    def turn(name: str, value: Value, out: Buffer) -> Value:
        program.buffers.append(out)
        kernels.append(LayoutKernel(name, value, out))
        return whole(out)

    def flat(buffer: Buffer) -> Buffer:
        """A whole buffer in planes, for all that read some of it."""
        if buffer not in turned:
            name = f"{buffer.name}_turned"
            out = replace(buffer, name=name, blocked=False)
            turned[buffer] = turn(name, whole(buffer), out)
        return turned[buffer].planes[0][0]

    for kernel in program.kernels:

        def ready(value: Value, kernel: Kernel = kernel) -> Value:
            laid = [(buffer, buffer.blocked) for buffer in value.buffers]
            wanted = _wanted(kernel, kernel in chosen, laid, _is_whole(kernel, value))
            if wanted is None:
                return value
            if not wanted:
                planes = tuple((flat(b), c) if b.blocked else (b, c) for b, c in value.planes)
                return replace(value, planes=planes)
            key = (value.planes, value.height, value.width, value.top, value.left)
            if key not in turned:
                name = f"{value.planes[0][0].name}_turned"
                shape = (len(value.planes), value.height, value.width)
                positive = all(buffer.positive for buffer in value.buffers)
                turned[key] = turn(name, value, Buffer(name, *shape, positive, blocked=True))
            return turned[key]

        if isinstance(kernel, PlanarKernel) and kernel in chosen:
            for buffer in writes(kernel):  # before what it reads: a step may read what it wrote
                buffer.blocked = True
        new = _ready(kernel, ready)
        if isinstance(new, PlanarKernel) and kernel in chosen:
            assert new.op is None or isinstance(new.op, Conv)
            shape = (new.channels, new.height, new.width)
            new = BlockedKernel(new.name, new.op, new.x, *shape, new.steps)
        kernels.append(new)
    program.kernels = kernels


def _ready(kernel: Kernel, ready) -> Kernel:  # type: ignore[no-untyped-def]
    """The kernel with every value it reads replaced."""
    kernel = replace(kernel, x=ready(kernel.x))
    if isinstance(kernel, PlanarKernel | DenseKernel | ReduceKernel):
        steps: tuple[Step, ...] = tuple(
            replace(step, other=ready(step.other))
            if isinstance(step, Binary) and step.other is not None
            else step
            for step in kernel.steps
        )
        kernel = replace(kernel, steps=steps)
    return kernel


def finish_cost(kernel: PlanarKernel) -> float:
    """Cycles of the steps of a line kernel beyond what its tiles count."""
    pitch = next(buffer.pitch for buffer in writes(kernel))
    vectors = -(-kernel.height * pitch // WIDEST)
    return kernel.channels * vectors * steps_cost(kernel.steps)


def steps_cost(steps: tuple[Step, ...]) -> float:
    """Cycles of steps on one vector; a first store is free."""
    total = -1.0
    for step in steps:
        total += CURVES[step.curve] if isinstance(step, Activation) else 1.0
    return max(total, 0.0)


def blocked_cost(kernel: PlanarKernel) -> float:
    """Cycles of a kernel with channels in the lanes; infinite where it cannot be."""
    return blocked_cycles(kernel) if can_be_blocked(kernel) else float("inf")


def blocked_cycles(kernel: PlanarKernel | BlockedKernel) -> float:
    """Cycles of a kernel with channels in the lanes, its steps included."""
    vectors = -(-kernel.channels // WIDEST)
    pixels = kernel.height * kernel.width
    finish = vectors * pixels * (2.0 + steps_cost(kernel.steps))
    if is_pointwise(kernel):
        return min(cost for cost, _, _ in _tiles(kernel)) + finish
    if is_winograd(kernel):
        return ways(kernel)[0][0] + vectors * pixels * steps_cost(kernel.steps)
    if isinstance(kernel.op, Conv):
        rows, columns = kernel.op.weight.shape[2:]
        return float(finish + vectors * pixels * (0.6 * columns + 1.0) * rows)
    return finish + vectors * pixels * 1.0


def _tiles(kernel: PlanarKernel | BlockedKernel) -> Iterator[tuple[float, int, int]]:
    """Cycles, pixels and vectors of the register tiles that a 1×1 convolution could have."""
    return product_tiles(len(kernel.x.planes), kernel.channels, kernel.height * kernel.width)


def likely(kernel: PlanarKernel | BlockedKernel, count: int) -> list[tuple[int, int]]:
    """Pixels and vectors of register tiles, the best by the cost model first; for a 3×3 convolution
    results of a tile in each direction and vectors."""
    if is_winograd(kernel):
        return likely_ways(kernel, count)
    order = sorted((cost, -vectors, pixels) for cost, pixels, vectors in _tiles(kernel))
    return [(pixels, -vectors) for _, vectors, pixels in order[:count]]


def tile(kernel: BlockedKernel, given: tuple[int, int] | None = None) -> Tile:
    """The register tile of a 1×1 convolution, by the cost model unless it is given."""
    return tile_of(*(given or likely(kernel, 1)[0]))
