"""Random networks that hold what quantized ones are made of, and their ways to an answer."""

import numpy as np
import torch

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.frame import Metadata
from leancnn.compiler.graph import (
    Activation,
    Affine,
    Combine,
    Concat,
    Conv,
    Crop,
    Gather,
    Pool,
    Reduce,
    empty,
    floats,
)
from leancnn.compiler.int8_emit import emit_integers
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.toolchain import compile_library

QUICK = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.22)


def channels_of(seed):
    """Most images have three channels; some one, some more than a quad holds."""
    return {2: 6, 3: 1, 4: 9}.get(seed % 10, 3)


def spread(numbers, channels):
    """MEAN or STD for so many channels."""
    return tuple(numbers[c % 3] + 0.01 * (c // 3) for c in range(channels))


class Drawn:
    """A graph under construction, from a seed."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        shape = (channels_of(seed), *self.sides())
        self.graph = empty(shape)
        self.value = self.conv(self.graph.input, int(self.random.choice([8, 12, 16])), 3)
        for _ in range(int(self.random.integers(3, 8))):
            self.step()
        if self.random.random() < 0.7:
            self.value = self.add(Reduce("mean", "pixels"), self.value)
        _, h, w = self.shape(self.value)
        weight = self.random.normal(0, 0.3, (4, self.shape(self.value)[0], h, w))
        self.graph.output = self.add(Conv(floats(weight), self.numbers(4)), self.value)

    def sides(self):
        return [int(side) for side in self.random.integers(6, 15, 2)]

    def shape(self, value):
        return self.graph.shapes[value]

    def add(self, op, *inputs):
        return self.graph.add(op, *inputs, name=f"{type(op).__name__.lower()}_value")

    def numbers(self, count):
        return floats(self.random.normal(0, 0.3, count))

    def conv(self, x, outputs, side, groups=1, stride=1, dilation=1):
        c = self.shape(x)[0]
        weight = self.random.normal(
            0, (c * side * side / groups) ** -0.5, (outputs, c // groups, side, side)
        )
        pad = dilation * (side // 2) if self.random.random() < 0.8 else 0
        h, w = self.shape(x)[1:]
        if min(h, w) + 2 * pad < dilation * (side - 1) + 1 + stride:
            pad, stride = dilation * (side // 2), 1
        op = Conv(
            floats(weight),
            self.numbers(outputs),
            (stride, stride),
            (pad,) * 4,
            (dilation,) * 2,
            groups,
        )
        value = self.add(op, x)
        how = self.random.choice(["relu", "relu", "six", "none", "hardswish", "silu", "leaky"])
        if how in ("relu", "six"):
            value = self.add(Activation("clip", 0.0, 1.5 if how == "six" else float("inf")), value)
        elif how != "none":
            value = self.add(Activation(how, 0.1), value)
        return value

    def step(self):
        x, random = self.value, self.random
        c, h, w = self.shape(x)
        groups = [g for g in (1, 2, 3, 4, 6) if c % g == 0]
        kind = random.choice(
            [
                "conv",
                "grouped",
                "depthwise",
                "shuffle",
                "residual",
                "join",
                "gate",
                "pool",
                "split",
                "dilated",
                "crop",
                "affine",
            ]
        )
        if kind in ("conv", "grouped", "dilated"):
            g = int(random.choice(groups)) if kind != "conv" else 1
            stride = int(random.choice([1, 1, 2])) if min(h, w) > 4 else 1
            dilation = 2 if kind == "dilated" and min(h, w) > 5 else 1
            outputs = g * int(random.integers(2, 7))
            self.value = self.conv(x, outputs, int(random.choice([1, 3])), g, stride, dilation)
        elif kind == "depthwise":
            self.value = self.conv(x, c, 3, c, int(random.choice([1, 2])) if min(h, w) > 4 else 1)
        elif kind == "shuffle":
            self.value = self.add(Gather(tuple(int(i) for i in random.permutation(c))), x)
        elif kind == "split" and c >= 4:
            half = self.add(Gather(tuple(range(c // 2))), x)
            other = self.add(Gather(tuple(range(c // 2, c))), x)
            self.value = self.add(Concat(), self.conv(half, c // 2, 1), other)
            if self.shape(half)[1:] != self.shape(self.value)[1:]:
                self.value = x
        elif kind == "residual":
            g = int(random.choice(groups))
            weight = random.normal(0, (9 * c / g) ** -0.5, (c, c // g, 3, 3))
            op = Conv(floats(weight), self.numbers(c), (1, 1), (1, 1, 1, 1), (1, 1), g)
            y = self.add(op, x)
            early = random.random() < 0.5
            y = self.add(Activation("clip"), y) if early else y
            total = self.add(Combine("add"), *((x, y) if random.random() < 0.5 else (y, x)))
            if early and random.random() < 0.5:
                total = self.add(Concat(), total, y)
            elif not early:
                total = self.add(Activation("clip"), total)
            self.value = total
        elif kind == "join":
            y = self.add(Conv(floats(random.normal(0, c**-0.5, (6, c, 1, 1))), self.numbers(6)), x)
            self.value = self.add(Concat(), *((x, y) if random.random() < 0.5 else (y, x)))
        elif kind == "gate":
            pooled = self.add(Reduce("mean", "pixels"), x)
            small = self.add(
                Conv(floats(random.normal(0, 0.4, (4, c, 1, 1))), self.numbers(4)), pooled
            )
            small = self.add(Activation("clip"), small)
            large = self.add(
                Conv(floats(random.normal(0, 0.4, (c, 4, 1, 1))), self.numbers(c)), small
            )
            gate = self.add(Activation(random.choice(["sigmoid", "hardsigmoid"])), large)
            self.value = self.add(Combine("mul"), x, gate)
        elif kind == "pool" and min(h, w) >= 4:
            how, side = random.choice(["max", "mean"]), int(random.choice([2, 3]))
            pad = (1, 1, 1, 1) if how == "max" and side == 3 else (0, 0, 0, 0)
            self.value = self.add(Pool(how, (side, side), (2, 2), pad), x)
        elif kind == "crop" and min(h, w) >= 5:
            self.value = self.add(Crop(1, 1, h - 2, w - 1), x)
        elif kind == "affine":
            y = self.add(Affine(floats(random.normal(1, 0.5, c)), self.numbers(c)), x)
            self.value = self.add(Activation("clip"), y)


class DepthwiseDrawn(Drawn):
    """Two windows of each channel for itself, of any size, stride, dilation and padding."""

    def step(self):
        if len([node for node in self.graph.nodes if isinstance(node.op, Conv)]) > 3:
            return
        random, (c, h, w) = self.random, self.shape(self.value)
        rows, columns = (int(random.choice([1, 2, 3, 5, 6])) for _ in range(2))
        stride = tuple(int(random.choice([1, 1, 2, 3])) for _ in range(2))
        dilation = (
            int(random.choice([1, 1, 2])),
            2 if columns <= 3 and random.random() < 0.3 else 1,
        )
        reach = (dilation[0] * (rows - 1) + 1, dilation[1] * (columns - 1) + 1)
        top, left, bottom, right = (int(n) for n in random.integers(0, 4, 4))
        top, left = max(top, reach[0] - h), max(left, reach[1] - w)
        weight = random.normal(0, (rows * columns) ** -0.5, (c, 1, rows, columns))
        padding = (top, left, bottom, right)
        op = Conv(floats(weight), self.numbers(c), stride, padding, dilation, c)
        self.value = self.add(op, self.value)
        if random.random() < 0.7:
            high = float(random.choice([1.5, np.inf]))
            self.value = self.add(Activation("clip", 0.0, high), self.value)
        if random.random() < 0.3:
            self.value = self.conv(self.value, int(random.choice([5, 8])), 3)


class Downsampled(Drawn):
    """Residual blocks of stride 2 with 1×1 convolutions of that stride beside (ResNet's)."""

    def sides(self):
        return [16, 32][int(self.random.integers(2))], 32

    def step(self):
        c, h, w = self.shape(self.value)
        if min(h, w) < 5:
            return
        edge = (1, 1, 1, 1)
        weight = self.random.normal(0, (9 * c) ** -0.5, (c + 4, c, 3, 3))
        main = self.add(Conv(floats(weight), self.numbers(c + 4), (2, 2), edge), self.value)
        weight = self.random.normal(0, c**-0.5, (c + 4, c, 1, 1))
        past = self.add(Conv(floats(weight), self.numbers(c + 4), (2, 2)), self.value)
        self.value = self.add(Activation("clip"), self.add(Combine("add"), main, past))


class NormDrawn(Drawn):
    """A gate of regions' largest values, each region's divided by its length, and a shortcut past
    it (R-SeNet's)."""

    past = 1.0  # times the input

    def step(self):
        if any(isinstance(node.op, Reduce) for node in self.graph.nodes):
            return
        x, (c, h, w) = self.value, self.shape(self.value)
        regions = [x, *(self.add(Crop(top, top, h - 2, w - 3), x) for top in (0, 2))]
        joined = self.add(Concat(), *(self.add(Reduce("max", "pixels"), r) for r in regions))
        parts = [tuple(range(n * c, n * c + c)) for n in range(3)]
        lengths = [self.add(Reduce("norm", "channels"), self.add(Gather(p), joined)) for p in parts]
        kept = [self.add(Activation("clip", 1e-6, float("inf")), length) for length in lengths]
        each = self.add(Gather((0,) * c + (1,) * c + (2,) * c), self.add(Concat(), *kept))
        normed = self.add(Combine("div"), joined, each)
        first, *others = (self.add(Gather(p), normed) for p in parts)
        for other in others:
            first = self.add(Combine("add"), first, other)
        weight = floats(self.random.normal(0, 0.4, (c, c, 1, 1)))
        gate = self.add(Activation("sigmoid"), self.add(Conv(weight, self.numbers(c)), first))
        past = self.add(Affine(floats(np.full(c, self.past)), floats(np.zeros(c))), x)
        gated = self.add(Combine("mul"), x, gate)
        self.value = self.add(Activation("clip"), self.add(Combine("add"), gated, past))


class SmallPast(NormDrawn):
    """What passes the gate is a hundred times smaller: in bytes before the two are added."""

    past = 0.01


def drawn(seed, images=12, kind=Drawn):
    """A random network in integers, its reference, and images (N, C, H, W) as bytes."""
    graph = simplify(kind(seed).graph)
    shape = graph.shapes[graph.input]
    random = np.random.default_rng(seed + 1)
    pixels = random.integers(0, 256, (images, *shape)).astype(np.float32)
    mean, std = spread(MEAN, shape[0]), spread(STD, shape[0])
    normal = (pixels / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    network = quantize(graph, measure(graph, [torch.from_numpy(normal).float()]), mean, std)
    extremes = np.stack([np.zeros(shape), np.full(shape, 255.0)])
    pixels = np.concatenate([pixels, extremes])
    return graph, network, IntegerNetwork(network), torch.from_numpy(pixels).to(torch.int32)


def written(network, name="drawn"):
    """Its C."""
    channels = network.values[network.image].shape[0]
    mean, std = spread(MEAN, channels), spread(STD, channels)
    metadata = Metadata(name=name, classes=("a", "b", "c", "d"), mean=mean, std=std, logits=False)
    return emit_integers(network, metadata)


def answers(source, pixels, flags):
    """What the C, built so, answers to images (N, C, H, W) as bytes."""
    native = CompiledNetwork(compile_library(source, name="drawn", flags=(*QUICK, *flags)))
    return native(pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8))
