"""A recorded network as C steps over memory that is laid out once."""

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leancnn.compiled import open_library
from leancnn.cpu_training.nodes import PRODUCT, kernels_of, read_planes, share_of, slots_of
from leancnn.cpu_training.structures import STRUCTURES, CNode, CStep, CTensor, Table, Uses
from leancnn.cpu_training.trace import (
    LINEAR,
    Late,
    Node,
    NoSimdError,
    Trace,
    mapped,
)
from leancnn.errors import LeanCNNError
from leancnn.toolchain import compile_library

FILL = 16  # floats of a cache line
MOST_USES = 8  # gradients that simd.c adds up in one pass
CHUNK = 32  # as in convolutions.c
PARTS = ("simd.c", "products.c", "convolutions.c", "steps.c")
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-pthread")
HUGE_PAGES = 14  # MADV_HUGEPAGE


class Program:
    """A traced network over its own memory, for one shape of input, run by `threads` threads.

    The last block of lanes may be partly empty. Raises `NoSimdError` for what only shows here: a
    weight used twice, an output read too often.
    """

    def __init__(self, trace: Trace, result: int, *, training: bool, half: bool, threads: int):
        self.trace, self.result, self.training, self.threads = trace, result, training, threads
        shapes = {kernels_of(node) for node in trace.nodes if node.weight is not None} - {PRODUCT}
        self.library = _library(tuple(sorted(shapes)), half)
        self.lanes: int = self.library.simd_width()
        self.blocks = -(-trace.batch // self.lanes)
        self.kind = torch.bfloat16 if half else torch.float32
        self.kept: list[Any] = []  # what the C structures point to
        self.passes = 0
        slots = [(node, slot) for node in trace.nodes for slot in slots_of(node)]
        if len({(id(slot.of), slot.start) for _, slot in slots}) != len(slots):
            raise NoSimdError("two convolutions share a weight")
        self.parameters = list({id(slot.of): slot.of for _, slot in slots}.values())
        self._lay_out()
        place = {node: i for i, node in enumerate(trace.nodes)}
        number = {id(p): i for i, p in enumerate(self.parameters)}
        self.slots = [(self.nodes[place[n]], slot, number[id(slot.of)]) for n, slot in slots]

    def _lay_out(self) -> None:
        """Give every value and gradient memory, and describe the nodes to the C functions."""
        nodes = self.trace.nodes
        seen = [(self._floats(n.shape[0], fill=1), self._floats(n.shape[0])) for n in nodes]
        table = Table(seen[0])
        self.values = [self._stored(node.shape) for node in nodes]
        for node, value, view in zip(nodes, self.values, seen, strict=True):
            table.put(value, view, node.act or LINEAR)
        uses = {node: Uses([[] for _ in range(node.shape[0])]) for node in nodes}
        self._leave(table, uses)
        if self.training:
            self._place_gradients(table, uses)
        self._fill_nodes(table, seen, uses)
        self._lend()
        self.forward_steps = self._steps(self.forward_names())
        self.backward_steps = self._steps(self.backward_names())

    def _leave(self, table: Table, uses: dict[Node, Uses]) -> None:
        """Memory for the gradients of what leaves the lanes."""
        self.left = [self._stored(node.shape) for node, _ in self.trace.exits if self.training]
        for (node, _), left in zip(self.trace.exits, self.left, strict=False):
            at = table.put(left)
            for channel, found in enumerate(uses[node].read):
                found.append((at, channel))

    def _place_gradients(self, table: Table, uses: dict[Node, Uses]) -> None:
        """Memory for the gradients, from the last node to the first.

        A gradient's memory is given back after the last node that reads it. Raises `NoSimdError`
        for an output that is read too often.
        """
        place = {node: i for i, node in enumerate(self.trace.nodes)}
        spare: list[Tensor] = []  # gradients that all their readers have read
        held: dict[Node, list[Tensor]] = {node: [] for node in place}  # given back after that node
        for node in self.trace.nodes[:0:-1]:
            own = uses[node]
            counts = {len(found) for found in own.read}
            if max(counts) > MOST_USES:
                raise NoSimdError(f"an output is read {max(counts)} times")
            if node.viewed and (counts != {1} or node.dear):
                total = self._stored(node.shape, spare)
                own.total = table.put(total)
                held[node].append(total)
            for role, planes in read_planes(node).items():
                read = [term.node for plane in planes for term in plane if term.node.planes]
                if not read:  # nothing but the images
                    continue
                height, width = (1, 1) if node.form == "mean" else read[0].shape[1:]
                data = self._stored((len(planes), height, width), spare)
                at = table.put(data)
                setattr(own, role, at)
                held[min(read, key=lambda other: place[other])].append(data)
                for channel, plane in enumerate(planes):
                    for term in plane:
                        uses[term.node].read[term.channel].append((at, channel))
            spare += held[node]

    def _fill_nodes(
        self, table: Table, seen: list[tuple[Tensor, Tensor]], uses: dict[Node, Uses]
    ) -> None:
        """What the C functions read of each node."""
        nodes = self.trace.nodes
        place = {node: i for i, node in enumerate(nodes)}
        tensors = (CTensor * len(table.lines))(*table.lines)
        sums = torch.zeros(self.threads, 2, max(n.shape[0] for n in nodes), dtype=torch.float64)
        left = self.lanes * self.blocks - self.trace.batch
        filled = torch.tensor([-1] * (self.lanes - left) + [0] * left, dtype=torch.int32)
        self.kept += [tensors, sums, filled]
        self.nodes: list[CNode] = []
        for node, (scale, shift) in zip(nodes, seen, strict=True):
            c, own = CNode(), uses[node]
            c.tensors = ctypes.addressof(tensors)
            c.first, c.terms = self._terms(
                [[(place[term.node], term.channel) for term in plane] for plane in node.planes]
            )
            c.use_first, c.uses = self._terms(own.read)
            c.out, c.total = place[node], own.total
            c.grad, c.gate_grad = own.gradient, own.gate_gradient
            _describe(c, node)
            c.windows = self._numbers(node.windows)
            c.blocks, c.training, c.sums = self.blocks, self.training, sums.data_ptr()
            c.images, c.filled = self.trace.batch, filled.data_ptr()
            c.scale, c.shift = scale.data_ptr(), shift.data_ptr()
            for name in ("mean", "inverse", "slope", "curve", "offset", "running_mean"):
                setattr(c, name, self._floats(node.shape[0]).data_ptr())
            self.nodes.append(c)

    def _lend(self) -> None:
        """Room beside each node for one step at a time, and for its weights' partial gradients."""
        nodes = list(zip(self.trace.nodes, self.nodes, strict=True))
        room = max(self._scratch(node, c) for node, c in nodes)
        rooms = self._floats(self.threads, room, self.lanes)
        sizes = [self._partial(node, c) for node, c in nodes]
        partial = self._floats(self.threads, -(-max(sizes) // FILL) * FILL)
        for (_, c), size in zip(nodes, sizes, strict=True):
            c.scratch, c.scratch_size = rooms.data_ptr(), room
            c.partial_size = partial.shape[1]
            c.weight_partial = partial.data_ptr() if size else None

    def _scratch(self, node: Node, c: CNode) -> int:
        """Vectors that one thread needs beside a node."""
        height, width = int(c.height), int(c.width)
        if node.weight is not None:
            name = (
                f"{PRODUCT}_scratch"
                if kernels_of(node) == PRODUCT
                else f"scratch_{kernels_of(node)}"
            )
            return int(getattr(self.library, name)(ctypes.addressof(c)))
        if node.pool:
            window, _, border = node.pool
            return 2 * (height + 2 * border + window) * (width + 2 * border + window)
        own = {"peaks": 2 * height * width + width, "units": 4 * width + node.shape[0]}
        return own.get(node.form, CHUNK)

    def _partial(self, node: Node, c: CNode) -> int:
        """Floats in which a thread gathers the gradient of a node's weights, if they train."""
        if not (isinstance(node.weight, nn.Parameter) and node.weight.requires_grad):
            return 0
        if kernels_of(node) == PRODUCT:
            return int(self.library.products_partial(ctypes.addressof(c)))
        return node.weight.numel()

    def _numbers(self, rows: Sequence[Sequence[int]]) -> int:
        """The address of int32 numbers."""
        self.kept.append(np.array(rows, np.int32))
        return self.kept[-1].ctypes.data  # type: ignore[no-any-return]

    def _floats(self, *shape: int, fill: float = 0) -> Tensor:
        self.kept.append(torch.full(shape, float(fill)))
        return self.kept[-1]  # type: ignore[no-any-return]

    def _stored(self, shape: tuple[int, int, int], spare: list[Tensor] | None = None) -> Tensor:
        """Memory for activations, (blocks, channels, pixels, lanes); a spare piece if one fits."""
        channels, height, width = shape
        size = (self.blocks, channels, height * width, self.lanes)
        for place, data in enumerate(spare or ()):
            if data.shape == size:
                return (spare or []).pop(place)
        data = torch.empty(size, dtype=self.kind)
        _huge_pages(data)
        self.kept.append(data.zero_())
        return data

    def _terms(self, lists: Sequence[Sequence[tuple[int, int]]]) -> tuple[int, int]:
        """Lists of (tensor, channel) as the addresses of their ends and of them all."""
        first = np.cumsum([0, *map(len, lists)], dtype=np.int32)
        terms = np.array([term for found in lists for term in found], np.int32).reshape(-1, 2)
        self.kept += [first, terms]
        return first.ctypes.data, terms.ctypes.data

    def forward_names(self) -> list[tuple[str, int]]:
        """The C functions of a forward pass, each with the place of its node."""
        names = []
        for place, node in enumerate(self.trace.nodes[1:], 1):
            if node.weight is None:
                names.append((f"simd_{node.form}", place))
            elif kernels_of(node) == PRODUCT:
                names.append(("products_forward", place))
            else:
                names.append((f"forward_{kernels_of(node)}", place))
            names += [("simd_normalise", place)] if node.viewed else []
        return names

    def backward_names(self) -> list[tuple[str, int]]:
        """The same of a backward pass; nothing when not training."""
        names = []
        for place, node in list(enumerate(self.trace.nodes))[:0:-1] if self.training else ():
            c = self.nodes[place]
            if node.viewed:
                names += [("simd_reduce", place), ("simd_denormalise", place)]
            if node.weight is not None:
                product = kernels_of(node) == PRODUCT
                names.append(
                    ("products_backward" if product else f"backward_{kernels_of(node)}", place)
                )
                weights = "products_weights" if product else "simd_weights"
                names += [(weights, place)] if c.weight_partial else []
            elif c.grad >= 0 or c.gate_grad >= 0:
                form = "seen" if node.viewed else node.form
                names.append((f"simd_{form}_gradient", place))
        return names

    def _steps(self, names: list[tuple[str, int]]) -> Any:
        steps = (CStep * len(names))()
        for step, (name, place) in zip(steps, names, strict=True):
            step.run = ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value
            step.node = ctypes.addressof(self.nodes[place])
        return steps

    def _run(self, steps: Any) -> None:
        if self.library.simd_run(steps, len(steps), self.threads):
            raise LeanCNNError(f"{self.threads} training threads could not be started")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to the values that leave the lanes, each float (N, C, H, W)."""
        self.passes += 1
        for node, c in zip(self.trace.nodes, self.nodes, strict=True):
            if node.weight is not None and node.source is not None:
                node.weight.copy_(node.source)
            c.weight = node.weight.data_ptr() if node.weight is not None else None
            c.bias = node.bias.data_ptr() if node.bias is not None else None
            if norm := node.norm:
                c.running_mean, c.running_var = share_of(norm.mean, norm), share_of(norm.var, norm)
                c.gamma, c.beta = share_of(norm.gamma, norm), share_of(norm.beta, norm)
        self.values[0].copy_(self._to_simd_batches(images))
        self._run(self.forward_steps)
        value = dict(zip(self.trace.nodes, self.values, strict=True))
        return [
            value[node]
            .permute(0, 3, 1, 2)
            .flatten(0, 1)[: self.trace.batch]
            .float()
            .reshape(self.trace.shapes[place])
            for node, place in self.trace.exits
        ]

    def _to_simd_batches(self, x: Tensor) -> Tensor:
        if empty := self.blocks * self.lanes - len(x):
            x = torch.cat([x, x.new_zeros(empty, *x.shape[1:])])
        return x.reshape(self.blocks, self.lanes, x.shape[1], -1).permute(0, 2, 3, 1)

    def tail(self, values: Sequence[Tensor]) -> Tensor:
        """What follows the lanes, as ordinary torch calls."""
        real = {place: value for (_, place), value in zip(self.trace.exits, values, strict=True)}

        def enter(value: Any) -> Any:
            return real[value.place] if isinstance(value, Late) else value

        for function, args, kwargs, place in self.trace.calls:
            real[place] = function(*mapped(args, enter), **mapped(kwargs, enter))
        return real[self.result]

    def backward(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of what left the lanes to gradients of `parameters`, after `forward`."""
        for left, gradient in zip(self.left, gradients, strict=True):
            left.copy_(self._to_simd_batches(gradient))
        results = [torch.zeros_like(p) for p in self.parameters]
        for c, slot, number in self.slots:
            if slot.field:
                setattr(c, slot.field, results[number].data_ptr() + 4 * slot.start)
        self._run(self.backward_steps)
        return results


def _describe(c: CNode, node: Node) -> None:
    """Fill in what the network says of a node."""
    c.c_in, c.groups, c.weights = (
        len(node.planes),
        node.groups,
        0 if node.weight is None else node.weight.numel(),
    )
    c.c_out, c.out_height, c.out_width = node.shape
    _, c.height, c.width = node.planes[0][0].node.shape if node.planes else node.shape
    c.gated, c.normed, c.sum_act = node.dear, node.norm is not None, node.sum_act
    c.window, c.step, c.border = node.pool or (0, 0, 0)
    c.eps = node.shortest
    if node.norm:
        c.momentum, c.eps = node.norm.momentum, node.norm.eps


def _huge_pages(data: Tensor) -> None:
    """Ask Linux for 2 MiB pages before memory is touched: planes are read in short, far runs."""
    page = 4096
    start = -(-data.data_ptr() // page) * page
    length = (data.data_ptr() + data.nbytes - start) // page * page
    if sys.platform == "linux" and length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), HUGE_PAGES)


def _layout() -> str:
    """C that tells the size of each structure and the place of each of its fields."""
    words = []
    for name, structure in STRUCTURES.items():
        fields = [field for field, *_ in structure._fields_]
        words += [f"sizeof({name})", *(f"offsetof({name}, {field})" for field in fields)]
    return f"const int64_t simd_layout[] = {{{', '.join(words)}}};"


def check_layout(library: ctypes.CDLL) -> None:
    """That C lays its structures out as they are filled here. Raises `LeanCNNError`."""
    wanted: list[int] = []
    for structure in STRUCTURES.values():
        places = [getattr(structure, field).offset for field, *_ in structure._fields_]
        wanted += [ctypes.sizeof(structure), *places]
    found = list((ctypes.c_int64 * len(wanted)).in_dll(library, "simd_layout"))
    if found != wanted:
        raise LeanCNNError("the C compiler lays out the training kernels' structures otherwise")


@cache
def _library(shapes: tuple[str, ...], half: bool) -> ctypes.CDLL:
    """The kernels, specialised for these shapes."""
    here = Path(__file__).parent
    source = "\n".join((here / part).read_text(encoding="utf-8") for part in PARTS)
    lines = [f"CONVOLUTION({shape}, {', '.join(shape.split('_'))})" for shape in shapes]
    text = "\n".join([source, *lines, _layout(), ""])
    path = compile_library(text, name="simd", flags=(*FLAGS, f"-DHALF={half:d}"))
    library = open_library(path)
    check_layout(library)
    library.simd_run.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    for name in ("products_scratch", "products_partial", *(f"scratch_{shape}" for shape in shapes)):
        function = getattr(library, name)
        function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_int64
    return library
