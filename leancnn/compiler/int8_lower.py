"""A quantized network to kernels on planes of quads: what is copied, in what order channels lie."""

from collections.abc import Sequence
from itertools import product

from leancnn.compiler.arena import round_up
from leancnn.compiler.graph import Shape
from leancnn.compiler.int8_boxes import box_of, suits
from leancnn.compiler.int8_depthwise import scratch_words
from leancnn.compiler.int8_floats import FloatPart
from leancnn.compiler.int8_layout import Arena, ChannelView, Place, Plane
from leancnn.compiler.int8_program import (
    Border,
    Dense,
    Depthwise,
    GlobalSum,
    Int8Program,
    Lookup,
    Norm,
    Order,
    Pack,
    PackedPhases,
    Pool,
    Tiled,
    filled,
    lives,
    natural,
    order_of,
    padded,
)
from leancnn.compiler.int8_tiles import Tiling, fitted, gathers, tilings
from leancnn.compiler.integers import (
    Add,
    Gate,
    QConcat,
    QConv,
    QCrop,
    QDequantize,
    QElementwise,
    QFloat,
    QGather,
    QGlobalSum,
    QLookup,
    QMaxPool,
    QNorm,
    QQuantize,
    Quantized,
    QValue,
    conv_shape,
    reads,
    stores,
)
from leancnn.errors import UnsupportedError


def lower(network: Quantized) -> Int8Program:
    """Kernels for a quantized network, with every plane in its place.

    Raises `UnsupportedError` for an answer that is no vector.
    """
    lowering = Lowering(network)
    for node in network.nodes:
        lowering.node(node)
    program = lowering.program
    if network.mixed:
        program.floats = lowering.floats.finished(network.output)
    program.answer = lowering.views.get(network.output)
    if network.values[network.output].shape[1:] != (1, 1):
        raise UnsupportedError("the compiler takes classifiers, whose answer is one vector")
    lives(program)
    program.arena.pitches(lowering.reaches)
    lowering.place_phases()
    for kernel in program.kernels:
        if isinstance(kernel, Depthwise):
            kernel.scratch.size = round_up(scratch_words(kernel))
    program.arena.place()
    return program


class Lowering:
    """The views known so far."""

    def __init__(self, network: Quantized) -> None:
        self.network = network
        self.arena = Arena()
        self.reaches: dict[tuple[int, int], int] = {}
        self.phased: list[tuple[Plane, PackedPhases, Plane]] = []
        meaning = network.values[network.image]
        self.floats = FloatPart(network)
        self.views: dict[str, ChannelView] = {}
        image: Plane | None = None
        if not meaning.real:
            order = natural(meaning.shape[0])
            image = self._plane(network.image, meaning, order)
            self.views[network.image] = self._view(image, order, meaning.shape[0])
        self.program = Int8Program(network, image, None, self.arena)

    def node(self, node: object) -> None:
        """Turn one node into kernels."""
        match node:
            case QGather() | QConcat() | QCrop():
                self.views[node.out] = self._viewed(node)
            case QConv():
                shape = conv_shape(node, self.network.values[node.x].shape)
                if shape[1:] == (1, 1):
                    self._dense(node, shape)
                else:
                    self._conv(node, shape)
            case QElementwise():
                shape = self.network.values[reads(node)[0]].shape
                if shape[1:] == (1, 1):
                    self._dense(node, shape)
                else:
                    self._elementwise(node, shape)
            case QMaxPool():
                self._pool(node)
            case QGlobalSum(x, out):
                self._global_sum(x, out)
            case QLookup():
                self._lookup(node)
            case QNorm():
                self._norm(node)
            case QFloat():
                self.floats.layer(node)
            case QDequantize():
                border = self.floats.real(node, self.network, self.views[node.x])
                self.program.kernels.append(Border(border))
            case QQuantize():
                self._rounded(node)

    def _viewed(self, node: QGather | QConcat | QCrop) -> ChannelView:
        """Where the channels lie of a node that only picks some that are there."""
        match node:
            case QGather(x, _, channels):
                seen = self.views[x]
                places = tuple(seen.places[c] for c in channels)
                return ChannelView(places, seen.height, seen.width)
            case QConcat(xs):
                parts = [self.views[x] for x in xs]
                if len({(p.height, p.width) for part in parts for p in part.planes}) > 1:
                    parts = [self._uncropped(x) for x in xs]
                places = tuple(place for part in parts for place in part.places)
                return ChannelView(places, parts[0].height, parts[0].width)
            case QCrop(x, out, top, left):
                _, h, w = self.network.values[out].shape
                places = tuple(
                    Place(p.plane, p.quad, p.lane, p.top + top, p.left + left)
                    for p in self.views[x].places
                )
                return ChannelView(places, h, w)

    # Planes and orders

    def _plane(self, name: str, meaning: QValue, order: Order) -> Plane:
        _, high, wide = meaning.shape
        plane = Plane(name, len(order) // 4, high, wide, filled(meaning, order))
        self.arena.planes.append(plane)
        return plane

    def _view(self, plane: Plane, order: Order, channels: int) -> ChannelView:
        slots = {c: slot for slot, c in enumerate(order) if c is not None}
        places = tuple(Place(plane, slots[c] // 4, slots[c] % 4) for c in range(channels))
        return ChannelView(places, plane.height, plane.width)

    def _order(self, node: QConv | QElementwise, channels: int) -> Order:
        """In what order a node's outputs lie: as their one reader wants them, or as they came."""
        for store in stores(node):
            takes = [n for n in self.network.nodes if store.value in reads(n)]
            if takes and all(isinstance(n, QGather) for n in takes):
                wanted = {n.channels for n in takes if isinstance(n, QGather)}
                first = wanted.pop()
                if not wanted and sorted(first) == list(range(channels)):
                    return padded(first)
        source = self.views[reads(node)[0]]
        channelwise = isinstance(node, QElementwise) or node.groups == len(node.weight)
        if channelwise and len(source.places) == channels:
            inherited = order_of(source)
            if inherited is not None:
                return inherited
        return natural(channels)

    def _outs(self, node: QConv | QElementwise, order: Order) -> dict[str, Plane]:
        outs = {}
        for store in stores(node):
            meaning = self.network.values[store.value]
            if store.multiplier is None:
                outs[store.value] = self._sums(store.value, meaning.shape[0])
                continue
            outs[store.value] = self._plane(store.value, meaning, order)
            self.views[store.value] = self._view(outs[store.value], order, meaning.shape[0])
        return outs

    def _sums(self, name: str, channels: int) -> Plane:
        """A vector of 32-bit sums."""
        plane = Plane(name, 0, 1, 1, (), words=channels, stride=1)
        self.arena.planes.append(plane)
        self.views[name] = ChannelView(tuple(Place(plane, c, -1) for c in range(channels)), 1, 1)
        return plane

    # Kernels

    def _conv(self, node: QConv, shape: Shape) -> None:
        x, order = self.views[node.x], self._order(node, shape[0])
        if suits(node, len(x.places)):
            self._depthwise(node, shape, order)
            return
        if any(store.multiplier is None for store in stores(node)):
            raise UnsupportedError("the compiler takes classifiers, whose answer is one vector")
        twice = len({(p.plane, p.quad, p.lane) for p in x.places}) < len(x.places)
        direct = node.stride == (1, 1) and x.whole and not twice
        direct = direct and shape[1:] == (x.height, x.width)
        outs = self._outs(node, order)
        phases: PackedPhases | None = None
        grouped = self._grouped(node)
        if not direct:
            first = next(iter(outs.values()))
            phases = self._phases(node, shape)
            places = self._packed(node.x, x, grouped, phases, first)
        else:
            places = x.places
            if gathers(node, x.places, grouped, order, shape[1:]):
                places = self._copied(node.x, x, grouped)
            top, left, bottom, right = node.padding
            for plane in {place.plane for place in places}:
                rows, columns = plane.gap
                plane.gap = (max(rows, top, bottom), max(columns, left, right))
        cuts = tilings(node, places, order, shape[1:])
        self._tiled(node, places, phases, cuts, order, shape, outs)

    def _depthwise(self, node: QConv, shape: Shape, order: Order) -> None:
        x, quads, outs = self.views[node.x], self._aligned(node.x, order), self._outs(node, order)
        fill = filled(self.network.values[node.x], order)
        box = box_of(node, (x.height, x.width), shape[1:])
        scratch = Plane(f"{next(iter(outs))}_box", 0, 1, 1, (), words=box.words)
        self.arena.planes.append(scratch)
        self.program.kernels.append(Depthwise(node, quads, fill, box, order, shape, outs, scratch))

    def _elementwise(self, node: QElementwise, shape: Shape) -> None:
        order = self._order(node, shape[0])
        outs = self._outs(node, order)
        quads = len(order) // 4
        size = next(size for size in (2, 1) if quads % size == 0)
        tiles = tuple(order[at : at + 4 * size] for at in range(0, len(order), 4 * size))
        cut = Tiling(size, (0,) * (4 * size), 0, tuple(((),) for _ in tiles), tiles)
        cut = fitted(cut, shape[1:], 0)
        self._tiled(node, (), None, [cut], order, shape, outs)

    def _tiled(
        self,
        node: QConv | QElementwise,
        places: Sequence[Place],
        phases: PackedPhases | None,
        cuts: list[Tiling],
        order: Order,
        shape: Shape,
        outs: dict[str, Plane],
    ) -> None:
        others: dict[str, list[tuple[Plane, int]]] = {}
        gates: dict[str, ChannelView] = {}
        for op in node.epilogue:
            if isinstance(op, Add | Gate):
                others[op.value] = self._aligned(op.value, order)
            if isinstance(op, Gate):
                gates[op.gate] = self.views[op.gate]
        self.program.kernels.append(
            Tiled(node, tuple(places), phases, cuts, order, shape, outs, others, gates)
        )

    def _dense(self, node: QConv | QElementwise, shape: Shape) -> None:
        outs = self._outs(node, natural(shape[0]))
        x = self.views[node.x] if isinstance(node, QConv) else None
        others = {name: self.views[name] for name in reads(node)[0 if x is None else 1 :]}
        self.program.kernels.append(Dense(node, x, natural(shape[0]), outs, others))

    def _pool(self, node: QMaxPool) -> None:
        x, meaning = self.views[node.x], self.network.values[node.out]
        order = order_of(x) or natural(meaning.shape[0])
        out = self._plane(node.out, meaning, order)
        self.views[node.out] = self._view(out, order, meaning.shape[0])
        phases = self._phases(node, meaning.shape)
        source = self._pack(node.x, x, order, phases, out, (0,) * (len(order) // 4))
        self.program.kernels.append(Pool(node, source, phases, out))

    def _global_sum(self, x: str, out: str) -> None:
        zero = tuple(int(z) for z in self.network.values[x].zero)
        seen = self.views[x]
        once = {place: c for c, place in reversed(list(enumerate(seen.places)))}
        kept = sorted(once.values())  # a channel that is seen twice is summed once
        sums = self._sums(out, len(kept))
        found = {seen.places[c]: Place(sums, at, -1) for at, c in enumerate(kept)}
        self.views[out] = ChannelView(tuple(found[place] for place in seen.places), 1, 1)
        view = ChannelView(tuple(seen.places[c] for c in kept), seen.height, seen.width)
        self.program.kernels.append(GlobalSum(view, tuple(zero[c] for c in kept), sums))

    def _norm(self, node: QNorm) -> None:
        x, order = self.views[node.x], natural(len(self.views[node.x].places))
        plane = self._plane(node.out, self.network.values[node.out], order)
        self.program.kernels.append(Norm(node, x, plane))
        self.views[node.out] = self._view(plane, order, len(x.places))

    def _rounded(self, node: QQuantize) -> None:
        meaning = self.network.values[node.out]
        order = natural(meaning.shape[0])
        out = self._plane(node.out, meaning, order)
        self.views[node.out] = self._view(out, order, meaning.shape[0])
        self.program.kernels.append(Border(self.floats.rounded(node, self.network, out)))

    def _lookup(self, node: QLookup) -> None:
        x, meaning = self.views[node.x], self.network.values[node.out]
        order = order_of(x) or natural(meaning.shape[0])
        quads = self._aligned(node.x, order)
        out = self._plane(node.out, meaning, order)
        self.views[node.out] = self._view(out, order, meaning.shape[0])
        self.program.kernels.append(Lookup(node, quads, out))

    # Copies

    def _grouped(self, node: QConv) -> Order:
        """The input's channels with each group in quads of its own."""
        each = node.weight.shape[1]
        if node.groups == 1 or each % 4 == 0 or node.groups == len(node.weight) or each < 3:
            return natural(each * node.groups)
        order: list[int | None] = []
        for group in range(node.groups):
            order += [*range(group * each, (group + 1) * each), *[None] * (-each % 4)]
        return tuple(order)

    def _aligned(self, name: str, order: Order) -> list[tuple[Plane, int]]:
        """The quads of a value in another's order; copied where it lies otherwise."""
        view = self.views[name]
        quads = []
        for at in range(0, len(order), 4):
            places = [
                (lane, view.places[c]) for lane, c in enumerate(order[at : at + 4]) if c is not None
            ]
            homes = {(place.plane, place.quad) for _, place in places}
            if len(homes) != 1 or not view.whole or any(p.lane != lane for lane, p in places):
                copied = self._copied(name, view, order)
                planes = {place.plane for place in copied}
                return [(planes.copy().pop(), quad) for quad in range(len(order) // 4)]
            quads.append(homes.pop())
        return quads

    def _uncropped(self, name: str) -> ChannelView:
        """A view that shows all of its planes; a window is copied."""
        x = self.views[name]
        if x.whole:
            return x
        return ChannelView(self._copied(name, x, natural(len(x.places))), x.height, x.width)

    def _copied(self, name: str, x: ChannelView, order: Order) -> tuple[Place, ...]:
        """A value of the same size in another order."""
        meaning = self.network.values[name]
        plane = self._plane(f"{name}_packed", meaning, order)
        self.program.kernels.append(Pack(x, order, plane, plane.fill))
        return self._view(plane, order, len(x.places)).places

    def _phases(self, node: QConv | QMaxPool, shape: Shape) -> PackedPhases:
        kernel = node.kernel if isinstance(node, QMaxPool) else node.weight.shape[2:]
        dilation = (1, 1) if isinstance(node, QMaxPool) else node.dilation
        taps = [(y * dilation[0], x * dilation[1]) for y, x in product(*map(range, kernel))]
        rows, columns = node.stride
        which = tuple(sorted({(y % rows, x % columns) for y, x in taps}))
        beyond = max(x // columns for _, x in taps)
        size = (shape[1], shape[2])
        self.reaches[size] = max(self.reaches.get(size, 0), beyond)
        high = shape[1] + max(y // rows for y, _ in taps)
        return PackedPhases(which, node.stride, node.padding[:2], high, shape[2] + beyond)

    def _packed(
        self, name: str, x: ChannelView, order: Order, phases: PackedPhases, like: Plane
    ) -> tuple[Place, ...]:
        fill = filled(self.network.values[name], order)
        plane = self._pack(name, x, order, phases, like, fill)
        return self._view(plane, order, len(x.places)).places

    def _pack(
        self,
        name: str,
        x: ChannelView,
        order: Order,
        phases: PackedPhases,
        like: Plane,
        fill: tuple[int, ...],
    ) -> Plane:
        plane = Plane(f"{name}_phases", len(order) // 4, 0, 0, fill, words=1)
        self.arena.planes.append(plane)
        self.phased.append((plane, phases, like))
        self.program.kernels.append(Pack(x, order, plane, fill, phases))
        return plane

    def place_phases(self) -> None:
        """Phases have the pitch of what is computed from them."""
        for plane, phases, like in self.phased:
            plane.pitch = max(like.pitch, phases.columns) if like.line == 1 else like.pitch
            each = round_up(phases.rows * plane.pitch + phases.columns)
            plane.stride = each * len(phases.which)
            plane.size = plane.quads * plane.stride + round_up(plane.pitch)
