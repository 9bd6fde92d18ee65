"""A simplified graph to kernels: element-wise operators join the kernel before them."""

from dataclasses import replace

from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Crop,
    Gather,
    Graph,
    Node,
    Shape,
)
from leancnn.compiler.kernel import Program, kind_of
from leancnn.compiler.values import Binary, Buffer, EpilogueOp, Store, Value, whole
from leancnn.errors import UnsupportedError
from leancnn.registry import import_members

import_members("leancnn.compiler", "kernel_")

LONGEST = 64  # of an epilogue: C compilers take hours for one of thousands


def lower(graph: Graph) -> Program:
    """Kernels for a simplified graph, in its order. Buffers have no places yet."""
    lowering = Lowering(graph)
    for node in graph.nodes:
        if node not in lowering.done:
            lowering.node(node)
    program = lowering.program
    program.logits = lowering.values[graph.output]
    if program.logits.height * program.logits.width != 1:
        raise UnsupportedError(
            f"the network's answer has the shape {graph.shapes[graph.output]}; "
            "the compiler takes classifiers, whose answer is one vector"
        )
    return program


class Lowering:
    """The values known so far and the program that computes them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = graph.users()
        self.done: set[Node] = (
            set()
        )  # element-wise nodes that joined the epilogue of an earlier kernel
        image = Buffer("image", *graph.shapes[graph.input])
        self.values = {graph.input: whole(image)}
        self.program = Program(graph, image, whole(image), [image])

    def node(self, node: Node) -> None:
        """Turn one node, and the element-wise ones that can follow it at once, into a kernel."""
        op, x = node.op, self.values[node.inputs[0]]
        match op:
            case Gather(channels):
                planes = tuple(x.planes[c] for c in channels)
                self.values[node.output] = Value(planes, x.height, x.width, x.top, x.left)
            case Concat():
                self.values[node.output] = self._joined([self.values[v] for v in node.inputs])
            case Crop(top, left, height, width):
                value = Value(x.planes, height, width, x.top + top, x.left + left)
                self.values[node.output] = value
            case _:
                self._kernel(node, x)

    def _kernel(self, node: Node, x: Value) -> None:
        """A kernel for an operator, or for element-wise ones with no kernel before them."""
        elementwise = isinstance(node.op, Activation | Affine | Combine)
        first = (self._epilogue_op(node, node.inputs[0]),) if elementwise else ()
        op = None if elementwise else node.op
        kind = kind_of(op, self.graph.shapes[node.output])
        kernel = kind(node.output, op, x, first)
        if any(kernel.margins()) and self._cropped(x):
            x = self._copied(x, f"{node.output}_window")
        if kind.follows:
            epilogue = self._epilogue(node.output, first, kernel.positive)
        else:
            epilogue = (self._store(node.output),)
        self.program.kernels.append(replace(kernel, x=x, epilogue=epilogue))

    def _cropped(self, x: Value) -> bool:
        """Whether a value shows less than its buffers: then the zeros around it are elsewhere."""
        return any((b.height, b.width) != (x.height, x.width) for b in x.buffers)

    def _copied(self, x: Value, name: str) -> Value:
        out = self._new(x.shape, name)
        kind = kind_of(None, x.shape)
        self.program.kernels.append(kind(name, None, x, (Store(out),)))
        return whole(out)

    def _joined(self, parts: list[Value]) -> Value:
        """Planes of several values, as one; views of different windows are copied first."""
        if len({(part.top, part.left) for part in parts}) > 1:
            parts = [self._copied(part, "part") if self._cropped(part) else part for part in parts]
        first = parts[0]
        planes = tuple(plane for part in parts for plane in part.planes)
        return Value(planes, first.height, first.width, first.top, first.left)

    def _epilogue(
        self, value: str, first: tuple[EpilogueOp, ...], positive: bool
    ) -> tuple[EpilogueOp, ...]:
        """Follow the element-wise nodes from `value` on, storing what others read."""
        epilogue = list(first)
        if first:
            positive = is_positive(first[-1], positive)
        while True:
            following = self._following(value)
            others = [user for user in self.users[value] if user is not following]
            if len(epilogue) >= LONGEST:  # goes on in a kernel of its own
                following = None
            if following is None or others or value == self.graph.output:
                epilogue.append(self._store(value, positive))
            if following is None:
                return tuple(epilogue)
            epilogue.append(self._epilogue_op(following, value))
            self.done.add(following)
            positive = is_positive(epilogue[-1], positive)
            value = following.output

    def _following(self, value: str) -> Node | None:
        """An element-wise reader of `value` whose other operand is already there."""
        for user in self.users[value]:
            if isinstance(user.op, Activation | Affine):
                return user
            if isinstance(user.op, Combine):
                others = [v for v in user.inputs if v != value]
                fits = self.graph.shapes[user.output] == self.graph.shapes[value]
                known = all(v in self.values for v in others)
                plain = all(not self._cropped(self.values[v]) for v in others if known)
                if fits and known and plain and not (user.inputs[1] == value and self._small(user)):
                    return user
        return None

    def _small(self, node: Node) -> bool:
        """Whether the first operand of a combination does not have the full shape."""
        return self.graph.shapes[node.inputs[0]] != self.graph.shapes[node.output]

    def _epilogue_op(self, node: Node, value: str) -> EpilogueOp:
        if isinstance(node.op, Activation | Affine):
            return node.op
        if not isinstance(node.op, Combine):
            raise UnsupportedError(f"{type(node.op).__name__} at {node.output} has no kernel")
        if node.inputs[0] == node.inputs[1]:
            return Binary(node.op, None)
        flipped = node.inputs[1] == value
        other = self.values[node.inputs[0 if flipped else 1]]
        return Binary(node.op, other, flipped)

    def _new(self, shape: Shape, name: str, positive: bool = False) -> Buffer:
        self.program.buffers.append(Buffer(name, *shape, positive=positive))
        return self.program.buffers[-1]

    def _store(self, value: str, positive: bool = False) -> Store:
        """The operator that stores a value of the graph in a buffer of its own."""
        out = self._new(self.graph.shapes[value], value, positive)
        self.values[value] = whole(out)
        return Store(out)


def is_positive(op: EpilogueOp, before: bool) -> bool:
    """Whether nothing is below zero after an operator."""
    if isinstance(op, Activation):
        bounded = op.kind in ("sigmoid", "hardsigmoid", "exp", "sqrt")
        return bounded or (op.kind == "clip" and op.low >= 0)
    if isinstance(op, Binary) and op.other is not None:
        both = before and all(b.positive for b in op.other.buffers)
        return both and op.how.how in ("add", "mul", "max", "min")
    return False
