"""A recorded network as C steps over memory that is laid out once."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leancnn.compiled import open_library
from leancnn.cpu_training.trace import LINEAR, Late, Node, NoSimdError, Trace, mapped
from leancnn.errors import LeanCNNError
from leancnn.toolchain import compile_library

MOST_USES = 8  # gradients that kernels.c adds up in one pass
CHUNK, BAND = 32, 8  # as in kernels.c
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-pthread")
HUGE_PAGES = 14  # MADV_HUGEPAGE


class _CTensor(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "scale", "shift")),
        *((name, ctypes.c_int64) for name in ("channels", "pixels", "act")),
    )


class _CNode(ctypes.Structure):
    _fields_ = tuple(
        (name, kind)
        for kind, names in (
            (ctypes.c_void_p, "tensors first terms use_first uses"),
            (ctypes.c_int64, "out grad total blocks c_in c_out groups"),
            (ctypes.c_int64, "height width out_height out_width weights"),
            (ctypes.c_void_p, "weight weight_grad weight_partial sums scratch"),
            (ctypes.c_int64, "scratch_size"),
            (ctypes.c_void_p, "scale shift mean inverse slope curve offset"),
            (ctypes.c_void_p, "gamma beta bias gamma_grad beta_grad running_mean running_var"),
            (ctypes.c_double, "eps momentum"),
            (ctypes.c_int64, "training normed sum_act window step border"),
        )
        for name in names.split()
    )


class _CStep(ctypes.Structure):
    _fields_ = (("run", ctypes.c_void_p), ("node", ctypes.c_void_p))


STRUCTURES: dict[str, Any] = {"Tensor": _CTensor, "Node": _CNode, "Step": _CStep}
"""What is laid out here as kernels.c declares it, by its name there."""


class _Table:
    """The tensors that the C functions read, a line each."""

    def __init__(self, plain: tuple[Tensor, Tensor]) -> None:
        self.plain = plain
        self.lines: list[_CTensor] = []

    def put(
        self, data: Tensor, view: tuple[Tensor, Tensor] | None = None, act: int = LINEAR
    ) -> int:
        """Append a tensor, read as scale · x + shift; gradients are read as they are."""
        scale, shift = view or self.plain
        channels, pixels = data.shape[1:3]
        pointers = data.data_ptr(), scale.data_ptr(), shift.data_ptr()
        self.lines.append(_CTensor(*pointers, channels, pixels, act))
        return len(self.lines) - 1


@dataclass(slots=True)
class _Uses:
    """Where the gradient of a node's output and that of what it reads stand in the table."""

    read: list[list[tuple[int, int]]]
    """For each channel of the output, (tensor, channel) of each gradient that is added up."""
    gradient: int = -1
    """Of what it reads; -1: of nothing but images."""
    total: int = -1
    """Of its output, where that is a sum of several; -1: it is not stored."""


class Program:
    """A traced network over its own memory, for one shape of input, run by `threads` threads.

    Raises `NoSimdError` for what only shows here: a batch that does not fill the lanes, a weight
    used twice, an output read too often.
    """

    def __init__(self, trace: Trace, result: int, *, training: bool, half: bool, threads: int):
        self.trace, self.result, self.training, self.threads = trace, result, training, threads
        shapes = {_shape(node) for node in trace.nodes if node.weight is not None}
        self.library = _library(tuple(sorted(shapes)), half)
        self.lanes: int = self.library.lanes_width()
        if trace.batch % self.lanes:
            raise NoSimdError(f"a batch of {trace.batch} does not fill {self.lanes} lanes")
        self.blocks = trace.batch // self.lanes
        self.kind = torch.bfloat16 if half else torch.float32
        self.kept: list[Any] = []  # what the C structures point to
        self.passes = 0
        slots = [(node, slot, p) for node in trace.nodes for slot, p in _slots(node)]
        self.parameters = [p for _, _, p in slots]
        if len({id(p) for p in self.parameters}) != len(self.parameters):
            raise NoSimdError("two convolutions share a weight")
        self._lay_out()
        place = {node: i for i, node in enumerate(trace.nodes)}
        self.slots = [(self.nodes[place[node]], slot) for node, slot, _ in slots]

    def _lay_out(self) -> None:
        """Give every value and gradient memory, and describe the nodes to the C functions."""
        nodes = self.trace.nodes
        seen = [(self._floats(n.shape[0], fill=1), self._floats(n.shape[0])) for n in nodes]
        table = _Table(seen[0])
        self.values = [self._stored(node.shape) for node in nodes]
        for node, value, view in zip(nodes, self.values, seen, strict=True):
            table.put(value, view, node.act or LINEAR)
        uses = {node: _Uses([[] for _ in range(node.shape[0])]) for node in nodes}
        self._leave(table, uses)
        if self.training:
            self._place_gradients(table, uses)
        self._fill_nodes(table, seen, uses)
        self.forward_steps = self._steps(self.forward_names())
        self.backward_steps = self._steps(self.backward_names())

    def _leave(self, table: "_Table", uses: dict[Node, "_Uses"]) -> None:
        """Memory for the gradients of what leaves the lanes."""
        self.left = [self._stored(node.shape) for node, _ in self.trace.exits if self.training]
        for (node, _), left in zip(self.trace.exits, self.left, strict=False):
            at = table.put(left)
            for channel, found in enumerate(uses[node].read):
                found.append((at, channel))

    def _place_gradients(self, table: "_Table", uses: dict[Node, "_Uses"]) -> None:
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
            if node.weight is not None and counts != {1}:
                total = self._stored(node.shape, spare)
                own.total = table.put(total)
                held[node].append(total)
            read = [term.node for plane in node.planes for term in plane if term.node.planes]
            if read:  # more than the images
                _, height, width = read[0].shape
                data = self._stored((len(node.planes), height, width), spare)
                own.gradient = table.put(data)
                held[min(read, key=lambda other: place[other])].append(data)
                for channel, plane in enumerate(node.planes):
                    for term in plane:
                        uses[term.node].read[term.channel].append((own.gradient, channel))
            spare += held[node]

    def _fill_nodes(
        self, table: "_Table", seen: list[tuple[Tensor, Tensor]], uses: dict[Node, "_Uses"]
    ) -> None:
        """What the C functions read of each node, and the scratch that they share."""
        nodes = self.trace.nodes
        place = {node: i for i, node in enumerate(nodes)}
        tensors = (_CTensor * len(table.lines))(*table.lines)
        room = max(
            _scratch(node) + -(-_weights(node) // node.groups // self.lanes) for node in nodes
        )
        rooms = self._floats(self.threads, room, self.lanes)
        partial = self._floats(self.threads, max(map(_weights, nodes)), self.lanes)
        sums = torch.zeros(self.threads, 2, max(n.shape[0] for n in nodes), dtype=torch.float64)
        self.kept += [tensors, sums]
        self.nodes: list[_CNode] = []
        for node, (scale, shift) in zip(nodes, seen, strict=True):
            c = _CNode()
            c.tensors = ctypes.addressof(tensors)
            c.first, c.terms = self._terms(
                [[(place[term.node], term.channel) for term in plane] for plane in node.planes]
            )
            c.use_first, c.uses = self._terms(uses[node].read)
            c.out, c.grad, c.total = place[node], uses[node].gradient, uses[node].total
            _describe(c, node)
            c.blocks, c.training, c.sums = self.blocks, self.training, sums.data_ptr()
            c.scratch, c.scratch_size = rooms.data_ptr(), rooms.shape[1]
            c.scale, c.shift = scale.data_ptr(), shift.data_ptr()
            for name in ("mean", "inverse", "slope", "curve", "offset", "running_mean"):
                setattr(c, name, self._floats(node.shape[0]).data_ptr())
            if isinstance(node.weight, nn.Parameter) and node.weight.requires_grad:
                c.weight_partial = partial.data_ptr()
            self.nodes.append(c)

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
                names.append(("lanes_max" if node.pool else "lanes_sum", place))
            else:
                names += [(f"forward_{_shape(node)}", place), ("lanes_normalise", place)]
        return names

    def backward_names(self) -> list[tuple[str, int]]:
        """The same of a backward pass; nothing when not training."""
        names = []
        for place, node in list(enumerate(self.trace.nodes))[:0:-1] if self.training else ():
            c = self.nodes[place]
            if node.weight is not None:
                names += [("lanes_reduce", place), ("lanes_denormalise", place)]
                names.append((f"backward_{_shape(node)}", place))
                names += [("lanes_weights", place)] if c.weight_partial else []
            elif c.grad >= 0:
                names.append((f"lanes_{'max' if node.pool else 'sum'}_gradient", place))
        return names

    def _steps(self, names: list[tuple[str, int]]) -> Any:
        steps = (_CStep * len(names))()
        for step, (name, place) in zip(steps, names, strict=True):
            step.run = ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value
            step.node = ctypes.addressof(self.nodes[place])
        return steps

    def _run(self, steps: Any) -> None:
        if self.library.lanes_run(steps, len(steps), self.threads):
            raise LeanCNNError(f"{self.threads} training threads could not be started")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) to the values that leave the lanes, each float (N, C, H, W)."""
        self.passes += 1
        for node, c in zip(self.trace.nodes, self.nodes, strict=True):
            c.weight = node.weight.data_ptr() if node.weight is not None else None
            c.bias = node.bias.data_ptr() if node.bias is not None else None
            if node.norm:
                c.running_mean, c.running_var = node.norm.mean.data_ptr(), node.norm.var.data_ptr()
                c.gamma, c.beta = node.norm.gamma.data_ptr(), node.norm.beta.data_ptr()
        self.values[0].copy_(self._into_lanes(images))
        self._run(self.forward_steps)
        value = dict(zip(self.trace.nodes, self.values, strict=True))
        return [
            value[node].permute(0, 3, 1, 2).reshape(self.trace.batch, *node.shape).float()
            for node, _ in self.trace.exits
        ]

    def _into_lanes(self, x: Tensor) -> Tensor:
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
            left.copy_(self._into_lanes(gradient))
        results = [torch.zeros_like(p) for p in self.parameters]
        for (c, slot), result in zip(self.slots, results, strict=True):
            if slot:
                setattr(c, slot, result.data_ptr())
        self._run(self.backward_steps)
        return results


def _describe(c: _CNode, node: Node) -> None:
    """Fill in what the network says of a node."""
    c.c_in, c.groups, c.weights = len(node.planes), node.groups, _weights(node)
    c.c_out, c.out_height, c.out_width = node.shape
    _, c.height, c.width = node.planes[0][0].node.shape if node.planes else node.shape
    c.normed, c.sum_act = node.norm is not None, node.sum_act
    c.window, c.step, c.border = node.pool or (0, 0, 0)
    if node.norm:
        c.momentum, c.eps = node.norm.momentum, node.norm.eps


def _slots(node: Node) -> list[tuple[str, Tensor]]:
    """A node's parameters, each with the C field that takes its gradient.

    The bias of a convolution before a norm has none: its gradient is 0, for the norm removes it.
    """
    slots: list[tuple[str, Tensor]] = []
    if isinstance(node.weight, nn.Parameter):
        slots.append(("weight_grad", node.weight))
    if node.bias is not None:
        slots.append(("" if node.norm else "beta_grad", node.bias))
    if node.norm:
        slots += [("gamma_grad", node.norm.gamma), ("beta_grad", node.norm.beta)]
    return slots


def _shape(node: Node) -> str:
    """The name of a convolution's kernels: inputs and outputs of a group, side, stride, pad."""
    assert node.weight is not None
    inputs, outputs = node.weight.shape[1], node.shape[0] // node.groups
    return f"{inputs}_{outputs}_{node.kernel}_{node.stride}_{node.pad}"


def _weights(node: Node) -> int:
    return 0 if node.weight is None else node.weight.numel()


def _scratch(node: Node) -> int:
    """Vectors that one thread needs beside a node, as kernels.c walks over it.

    A group's weights, turned round for the way back, lie behind them.
    """
    if node.pool:
        window, _, border = node.pool
        _, height, width = node.planes[0][0].node.shape
        return 2 * (height + 2 * border + window) * (width + 2 * border + window)
    if node.weight is None:
        return CHUNK
    inputs, outputs = node.weight.shape[1], node.shape[0] // node.groups
    if node.kernel == 1 and node.stride == 1:
        return CHUNK * (inputs + outputs)
    _, height, width = node.planes[0][0].node.shape
    pitch = width + 2 * node.pad
    forward = inputs * ((BAND - 1) * node.stride + node.kernel) * pitch
    if node.stride == 1:
        return max(forward, (inputs + outputs) * (BAND + 2 * node.pad) * pitch)
    padded = outputs * (node.shape[1] + 2) * (node.shape[2] + 16)
    return max(forward, inputs * (height + 2 * node.pad) * pitch + padded)


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
    return f"const int64_t lanes_layout[] = {{{', '.join(words)}}};"


def check_layout(library: ctypes.CDLL) -> None:
    """That C lays its structures out as they are filled here. Raises `LeanCNNError`."""
    wanted: list[int] = []
    for structure in STRUCTURES.values():
        places = [getattr(structure, field).offset for field, *_ in structure._fields_]
        wanted += [ctypes.sizeof(structure), *places]
    found = list((ctypes.c_int64 * len(wanted)).in_dll(library, "lanes_layout"))
    if found != wanted:
        raise LeanCNNError("the C compiler lays out the training kernels' structures otherwise")


@cache
def _library(shapes: tuple[str, ...], half: bool) -> ctypes.CDLL:
    """The kernels, specialised for these shapes."""
    source = Path(__file__).with_name("kernels.c").read_text(encoding="utf-8")
    lines = [f"CONVOLUTION({shape}, {', '.join(shape.split('_'))})" for shape in shapes]
    text = "\n".join([source, *lines, _layout(), ""])
    path = compile_library(text, name="lanes", flags=(*FLAGS, f"-DHALF={half:d}"))
    library = open_library(path)
    check_layout(library)
    library.lanes_run.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    return library
