"""The integer arithmetic of a quantized network in PyTorch: what every compiled form has to equal.

Products of bytes are summed in floats, but exactly: a sum of whole numbers below 2^24 (float32) or
2^53 (float64) is the same in any order. Layers that stay in float32 are PyTorch's own.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leancnn.compiler.graph import Graph, Node
from leancnn.compiler.integers import (
    Add,
    Array,
    Clamp,
    Gate,
    QConcat,
    QConv,
    QCrop,
    QDequantize,
    QElementwise,
    QEpilogueOp,
    QFloat,
    QGather,
    QGlobalSum,
    QLookup,
    QMaxPool,
    QNode,
    QNorm,
    QQuantize,
    Quantized,
    QValue,
    arrays_of,
    reads,
)
from leancnn.compiler.ranges import apply, run

EXACT = 2**24  # float32 holds every whole number up to it


class IntegerNetwork(nn.Module):
    """A quantized network as a module: normalised floats (N, C, H, W) in, logits (N, classes) out.

    The floats are taken back to the pixels they came from; from there on all is integers. One of
    signals rounds them as they come, not normalised. Its arrays are buffers, so that they move and
    are saved like those of any network.
    """

    def __init__(self, network: Quantized) -> None:
        super().__init__()
        self.network = network
        arrays = arrays_of(network)
        self.names = {name: f"a{place}" for place, name in enumerate(arrays)}
        for name, array in arrays.items():
            self.register_buffer(self.names[name], torch.from_numpy(np.ascontiguousarray(array)))
        self.places = {id(array): self.names[name] for name, array in arrays.items()}

    def __deepcopy__(self, memo: dict[int, object]) -> "IntegerNetwork":
        """A copy with tensors of its own; the network, which is only read, is the same."""
        return IntegerNetwork(self.network).train(self.training)

    def on(self, array: Array) -> Tensor:
        """An array of the network as a tensor on this module's device."""
        tensor: Tensor = getattr(self, self.places[id(array)])
        return tensor

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(self.pixels(images))

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised floats, or those of signals, to the nearest bytes, what is no number to 0;
        floats as they are where a file never rounds them."""
        if self.network.values[self.network.image].real:
            return images
        step = self.network.step
        scale = self.network.values[self.network.image].scale if step is None else step
        bytes_ = (images.double() - _wide(self.on(self.network.shift))) / _wide(self.on(scale))
        return bytes_.nan_to_num(0.0).round().clamp(0, 255).to(torch.int32)

    @torch.no_grad()
    def answer(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) float32 of bytes (N, C, H, W), as int32."""
        found = self.values(pixels)[self.network.output]
        meaning = self.network.values[self.network.output]
        scale = self.on(meaning.scale).to(torch.float32)
        return (found.flatten(1) - self.on(meaning.zero)).to(torch.float32) * scale

    def values(self, pixels: Tensor, keep: bool = False) -> dict[str, Tensor]:
        """Every value (N, C, H, W) as int32, or as the float32 that it is; those read for the last
        time go, unless kept."""
        network = self.network
        known = {network.image: pixels}
        last = {name: place for place, node in enumerate(network.nodes) for name in reads(node)}
        for place, node in enumerate(network.nodes):
            self._node(node, known)
            if not keep:
                for name in set(reads(node)):
                    if last[name] == place and name != network.output:
                        del known[name]
        return known

    def _node(self, node: QNode, known: dict[str, Tensor]) -> None:
        match node:
            case QConv(x, _, bias, epilogue):
                self._epilogue(epilogue, self._conv(node, known[x]) + _wide(self.on(bias)), known)
            case QElementwise(bias, epilogue):
                shape = next(known[name].shape for name in reads(node))
                self._epilogue(epilogue, _wide(self.on(bias)).expand(shape), known)
            case QMaxPool(x, out):
                known[out] = _max_pool(node, known[x])
            case QGlobalSum(x, out):
                sums = (known[x] - self._zero(x)).sum((2, 3), keepdim=True)
                known[out] = sums.to(torch.int32)
            case QLookup(x, out, table):
                known[out] = self.on(table)[known[x].long()].to(torch.int32)
            case QNorm():
                known[node.out] = self._normed(node, known[node.x])
            case QGather(x, out, channels):
                known[out] = known[x][:, list(channels)]
            case QConcat(xs, out):
                known[out] = torch.cat([known[x] for x in xs], 1)
            case QCrop(x, out, top, left):
                _, h, w = self.network.values[out].shape
                known[out] = known[x][:, :, top : top + h, left : left + w]
            case QDequantize(x, out):
                known[out] = self._real(x, known[x])
            case QFloat(op, xs, out):
                given = [known[name].cpu() for name in xs]
                known[out] = apply(Node(op, xs, out), given).to(known[xs[0]].device)
            case QQuantize(x, out):
                whole = known[x] / _wide(self.on(self.network.values[out].scale).float())
                bytes_ = torch.nan_to_num(whole.round() + self._zero(out), 0.0).clamp(0, 255)
                known[out] = bytes_.to(torch.int32)

    def _real(self, name: str, numbers: Tensor) -> Tensor:
        """Bytes or sums as float32."""
        value = self.network.values[name]
        scale = _wide(self.on(value.scale).float())
        if name == self.network.image and self.network.step is None:
            return numbers.float() * scale + _wide(self.on(self.network.shift).float())
        return (numbers if value.wide else numbers - self._zero(name)).float() * scale

    def _zero(self, name: str) -> Tensor:
        return _wide(self.on(self.network.values[name].zero))

    def _conv(self, node: QConv, x: Tensor) -> Tensor:
        """The sums of a convolution less those of its zero points' part, which is in the bias."""
        zero = self.on(self.network.values[node.x].zero)
        weight = self.on(node.weight)
        most = self.network.values[node.x].most
        exact = bool((np.abs(node.weight.astype(int)).sum((1, 2, 3)) * most).max() < EXACT)
        kind = torch.float32 if exact and x.device.type == "cpu" else torch.float64
        top, left, bottom, right = node.padding
        padded = F.pad((x - _wide(zero)).to(kind), (left, right, top, bottom))
        sums = F.conv2d(
            padded, weight.to(kind), None, node.stride, 0, node.dilation, node.groups
        ).to(torch.int64)
        each = zero.to(torch.int64).view(node.groups, 1, -1, 1, 1)
        taps = weight.to(torch.int64).view(node.groups, -1, *weight.shape[1:])
        return sums + _wide((each * taps).sum((2, 3, 4)).flatten())

    def _normed(self, node: QNorm, x: Tensor) -> Tensor:
        """Each group by its length; float32 operations that are rounded one by one."""
        grouped = (x - self._zero(node.x)).view(len(x), node.groups, -1)
        length = grouped.to(torch.int64).square().sum(2, keepdim=True).to(torch.float32).sqrt()
        factor = torch.where(length > 0, self.on(node.step) / length, torch.zeros(()))
        product = (grouped.to(torch.float32) * factor).round().view(x.shape)
        return (product + self._zero(node.out)).clamp(0, 255).to(torch.int32)

    def _epilogue(
        self, epilogue: tuple[QEpilogueOp, ...], sums: Tensor, known: dict[str, Tensor]
    ) -> None:
        for op in epilogue:
            if isinstance(op, Clamp):
                low, high = _wide(self.on(op.low)), _wide(self.on(op.high))
                sums = torch.minimum(torch.maximum(sums, low), high)
            elif isinstance(op, Add):
                other = known[op.value] - self._zero(op.value)
                sums = sums + other.to(torch.int64) * _wide(self.on(op.factor))
            elif isinstance(op, Gate):
                gate = known[op.gate] - self._zero(op.gate)
                sums = sums + (known[op.value] - self._zero(op.value)).to(torch.int64) * gate
            elif op.multiplier is None:
                known[op.value] = sums.to(torch.int32)
            else:
                product = sums.to(torch.int32).to(torch.float32) * _wide(self.on(op.multiplier))
                bytes_ = (product.round() + self._zero(op.value)).clamp(0, 255)
                known[op.value] = bytes_.to(torch.int32)


def _wide(numbers: Tensor) -> Tensor:
    """One number a channel, so that it broadcasts against (N, C, H, W)."""
    return numbers.view(1, -1, 1, 1)


def _max_pool(node: QMaxPool, x: Tensor) -> Tensor:
    top, left, bottom, right = node.padding
    padded = F.pad(x.to(torch.float32), (left, right, top, bottom), value=-1.0)
    return F.max_pool2d(padded, node.kernel, node.stride).to(torch.int32)


def meaning(network: Quantized, name: str, numbers: Tensor) -> Tensor:
    """Integers of a value as the reals they stand for."""
    value: QValue = network.values[name]
    zero = _wide(torch.from_numpy(value.zero.astype(np.float64)))
    real = (numbers.double() - zero) * _wide(torch.from_numpy(value.scale))
    if name == network.image and network.step is None:
        real = real + _wide(torch.from_numpy(network.shift + value.zero * value.scale))
    return real


def errors(
    graph: Graph, body: IntegerNetwork, images: Tensor, fed: Tensor | None = None
) -> list[tuple[str, float]]:
    """How far each value is from the floats', relative to their spread, in the network's order.

    `fed` is what the integers take where that is not the normalised `images`: signals.
    """
    found: dict[str, float] = {}
    values = body.values(body.pixels(images if fed is None else fed), keep=True)

    def compare(name: str, x: Tensor) -> None:
        if name not in values or x.shape[2:] == (1, 1):
            return
        error = meaning(body.network, name, values[name]) - x.double()
        spread = (x.double() - x.double().mean((0, 2, 3), keepdim=True)).norm()
        found[name] = float(error.norm() / spread.clamp(min=1e-12))

    run(graph, images, compare)
    return list(found.items())


def furthest(found: Iterable[tuple[str, float]], many: int = 5) -> tuple[tuple[str, float], ...]:
    """The largest of such errors, the worst first."""
    return tuple(sorted(found, key=lambda item: -item[1])[:many])
