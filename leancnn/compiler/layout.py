"""Which kernels lay sixteen channels of a pixel side by side in the lanes, by the cost model.

Along its line a map of 4×4 fills 20 of 32 lanes. With channels in the lanes every lane works on
any map: a 1×1 convolution becomes a matrix product that reads its weights once and in order, a
depthwise one shifts whole vectors, a dense 3×3 one takes fewer multiplications. Maps shrink and
channels grow on the way through a network, so the search begins with the best kernel from which on
all that can are laid out so; then single ones change sides. A `LayoutKernel` stands where layouts
meet.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

from leancnn.compiler.arena import WIDEST, round_up
from leancnn.compiler.kernel import InputLayout, Kernel, Program
from leancnn.compiler.kernel_layout import LayoutKernel
from leancnn.compiler.values import Buffer, Store, Value, whole

Layout = Literal["best", "planes", "blocked"]
TO_BLOCKED, TO_PLANES = 0.5, 0.8  # cycles of moving one number
NARROW = 1.5  # to planes whose rows are shorter than a vector
# All three are measured by `python benchmarks/kernel_costs.py layouts`.


def choose(program: Program, layout: Layout = "best") -> None:
    """Replace the kernels that are better off by blocked ones, and copy values between layouts.

    Pitches must be those of a program of planes alone; they change. "planes" and "blocked" decide
    for all kernels that can be both.
    """
    able = {k: other for k in program.kernels if (other := k.blocked()) is not None}
    starts = {"planes": [len(able)], "blocked": [0]}.get(layout, list(range(len(able) + 1)))
    kernels = list(able)
    chosen = set(kernels[starts[0] :])
    if len(starts) > 1:
        price = _Price(program, able)
        chosen = set(kernels[min(starts, key=lambda start: price(set(kernels[start:]))) :])
        chosen = _better(price, kernels, chosen)
    program.kernels = _Laying(program, {kernel: able[kernel] for kernel in chosen}).kernels


def _better(price: "_Price", able: list[Kernel], chosen: set[Kernel]) -> set[Kernel]:
    """Change one kernel at a time while that makes the program cheaper."""
    best, before = price(chosen), float("inf")
    while best < before:
        before = best
        for kernel in able:
            if (cost := price(chosen ^ {kernel})) < best:
                chosen, best = chosen ^ {kernel}, cost
    return chosen


def input_layout(
    kernel: Kernel, laid: list[tuple[Buffer, bool]], readable: bool
) -> InputLayout | None:
    """How a kernel wants a value it reads, None: as it is.

    `laid`: the value's buffers, and whether they lie blocked; vectors lie in both ways.
    """
    kinds = {blocked for buffer, blocked in laid if not buffer.vector}
    return kernel.input_layout(kinds, readable) if kinds else None


class _Price:
    """Cycles, about, of a program in which some kernels are blocked."""

    def __init__(self, program: Program, able: Mapping[Kernel, Kernel]) -> None:
        self.able = able
        self.costs = {kernel: (kernel.cost(), other.cost()) for kernel, other in able.items()}
        self.producers = {buffer: k for k in program.kernels for buffer in k.writes()}
        self.reads = [
            (
                kernel,
                value.planes,
                value.buffers,
                [(k, k.readable(value)) for k in (kernel, able.get(kernel, kernel))],
                round_up(len(value.planes)) * value.height * value.width,
            )
            for kernel in program.kernels
            for value in kernel.reads()
        ]

    def __call__(self, chosen: set[Kernel]) -> float:
        total = sum(costs[kernel in chosen] for kernel, costs in self.costs.items())
        copied: set[object] = set()
        for kernel, planes, buffers, forms, size in self.reads:
            laid = [(buffer, self.producers.get(buffer) in chosen) for buffer in buffers]
            wanted = input_layout(forms[kernel in chosen][0], laid, forms[kernel in chosen][1])
            if wanted == "blocked" and id(planes) not in copied:
                copied.add(id(planes))
                total += TO_BLOCKED * size
            for buffer, blocked in laid if wanted == "planes" else ():
                if blocked and buffer not in copied:
                    copied.add(buffer)
                    size = buffer.channels * buffer.height * buffer.width
                    total += size * (TO_PLANES if buffer.width >= WIDEST else NARROW)
        return total


class _Laying:
    """The kernels of a program anew, some blocked, with copies where a reader needs one."""

    def __init__(self, program: Program, chosen: Mapping[Kernel, Kernel]) -> None:
        self.program = program
        self.kernels: list[Kernel] = []
        self.copies: dict[object, Value] = {}
        for kernel in program.kernels:
            form = chosen.get(kernel, kernel)
            for buffer in form.writes():  # before what it reads: an operator may read what it wrote
                buffer.blocked = form.lays_blocked
            self.kernels.append(form.reading(partial(self._ready, form)))

    def _ready(self, kernel: Kernel, value: Value) -> Value:
        laid = [(buffer, buffer.blocked) for buffer in value.buffers]
        wanted = input_layout(kernel, laid, kernel.readable(value))
        if wanted is None:
            return value
        if wanted == "planes":
            planes = tuple(
                (self._in_planes(b), c) if b.blocked else (b, c) for b, c in value.planes
            )
            return replace(value, planes=planes)
        key = (value.planes, value.height, value.width, value.top, value.left)
        if key not in self.copies:
            name = f"{value.planes[0][0].name}_turned"
            positive = all(buffer.positive for buffer in value.buffers)
            out = Buffer(name, *value.shape, positive, blocked=True)
            self.copies[key] = self._copied(value, out)
        return self.copies[key]

    def _in_planes(self, buffer: Buffer) -> Buffer:
        """A whole buffer in planes, for all that read some of it."""
        if buffer not in self.copies:
            out = replace(buffer, name=f"{buffer.name}_turned", blocked=False)
            self.copies[buffer] = self._copied(whole(buffer), out)
        return self.copies[buffer].planes[0][0]

    def _copied(self, value: Value, out: Buffer) -> Value:
        self.program.buffers.append(out)
        self.kernels.append(LayoutKernel(out.name, None, value, (Store(out),)))
        return whole(out)
