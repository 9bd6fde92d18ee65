"""Random small networks of every construction the compiler knows, and a compiled one to compare."""

import numpy as np
import torch
from torch import nn

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.narrow import narrow_tiles
from leancnn.compiler.simplify import simplify
from leancnn.compiler.translate import translate
from leancnn.layers import ChannelShuffle
from leancnn.toolchain import compile_library

FLAGS = ("-std=c11", "-O1", "-march=native", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror")


def settled(module, seed=0):
    """The module in eval mode with weights and running statistics that are not the defaults."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan = part.weight[0].numel()
            with torch.no_grad():
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) / fan**0.5)
                if part.bias is not None:
                    part.bias.copy_(torch.randn(part.bias.shape, generator=generator) * 0.1)
        if isinstance(part, nn.BatchNorm2d):
            with torch.no_grad():
                part.weight.copy_(torch.rand(part.weight.shape, generator=generator) + 0.5)
                part.bias.copy_(torch.randn(part.bias.shape, generator=generator) * 0.1)
                part.running_mean.copy_(torch.randn(part.bias.shape, generator=generator) * 0.1)
                part.running_var.copy_(torch.rand(part.bias.shape, generator=generator) + 0.5)
    return module.eval()


def written(module, shape, name="net"):
    """A module's C file."""
    graph = import_torch(module, shape)
    with torch.no_grad():
        answers = module(torch.zeros(1, *shape)).shape[1]
    return translate(
        graph,
        name=name,
        classes=[f"class {i}" for i in range(answers)],
        mean=[0.5] * shape[0],
        std=[0.25] * shape[0],
    )


def laid_source(module, shape, layout, narrow=False):
    """A module's C text in which values lie in planes or in blocks, wherever they can; `narrow`:
    with the tiles of WebAssembly."""
    graph = simplify(import_torch(module, shape))
    classes = tuple(f"class {i}" for i in range(graph.shapes[graph.output][0]))
    metadata = Metadata(name="net", classes=classes, mean=(0.5,) * shape[0], std=(0.25,) * shape[0])
    tiles = narrow_tiles(graph, layout) if narrow else None
    return emit(schedule(lower(graph), tiles, layout), metadata).source


def laid(module, shape, layout, flags=FLAGS, narrow=False):
    """The same as machine code."""
    source = laid_source(module, shape, layout, narrow)
    return CompiledNetwork(compile_library(source, name="net", flags=flags))


def compiled(module, shape, flags=FLAGS):
    """A module as machine code."""
    return CompiledNetwork(compile_library(written(module, shape).source, name="net", flags=flags))


def max_error(module, native, images):
    """The largest difference of logits, relative to their scale."""
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    scale = max(np.abs(expected).max(), 1e-3)
    return np.abs(native.logits(images) - expected).max() / scale


class Residual(nn.Module):
    def __init__(self, body, activation):
        super().__init__()
        self.body, self.activation = body, activation

    def forward(self, x):
        return self.activation(x + self.body(x))


class Itself(nn.Module):
    """Activations written out, as exporters do: an image combined with what was made of it."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x):
        match self.way:
            case "x·sigmoid(x)":
                return x * torch.sigmoid(x)
            case "x·relu6(x+3)/6":
                return x * torch.clamp(x + 3, 0, 6) / 6
            case "relu(x)·x":
                return torch.relu(x) * x
        return x + torch.relu(x)


WAYS = ("x·sigmoid(x)", "x·relu6(x+3)/6", "relu(x)·x", "x+relu(x)")


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width, activation):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)
        self.activation = activation

    def forward(self, x):
        return x * torch.sigmoid(self.up(self.activation(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """1×1 up, depthwise, gate, 1×1 down, and the input added where it fits."""

    def __init__(self, c_in, c_out, wide, *, stride=1, kernel=3, dilation=1, act=None):
        super().__init__()
        pad = dilation * (kernel // 2)
        self.body = nn.Sequential(
            nn.Conv2d(c_in, wide, 1),
            nn.BatchNorm2d(wide),
            act or nn.ReLU6(),
            nn.Conv2d(wide, wide, kernel, stride, pad, dilation, groups=wide),
            act or nn.ReLU6(),
            Gate(wide, nn.SiLU()),
            nn.Conv2d(wide, c_out, 1),
        )
        self.residual = c_in == c_out and stride == 1

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class SplitJoin(nn.Module):
    """Halves that go different ways, then a shuffle of both."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width // 2, width // 2, 3, padding=1, groups=1)

    def forward(self, x):
        first, second = x.chunk(2, 1)
        n, c, h, w = x.shape
        joined = torch.cat([second, torch.relu(self.conv(first))], 1)
        return joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class DenseKernel(nn.Module):
    """What was read, beside what was made of it."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return torch.cat([x, torch.relu(self.conv(x))], 1)


ACTIVATIONS = (
    nn.ReLU(),
    nn.ReLU6(),
    nn.SiLU(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Sigmoid(),
    nn.LeakyReLU(0.1),
    nn.Identity(),
)


def random_network(pick, shape):
    """A network for images of `shape`; `pick(options)` chooses, so that hypothesis can."""
    width, height = shape[0], min(shape[1:])
    layers = []
    for _ in range(pick(range(1, 5))):
        act = pick(ACTIVATIONS)
        kinds = ["conv", "grouped", "depthwise", "gate", "norm", "residual", "dense", "itself"]
        kinds += ["max", "mean"] if height >= 4 else []
        kinds += ["split"] if width % 2 == 0 else []
        match pick(kinds):
            case "conv":
                kernel, wide = pick((1, 3, 5)), pick(range(1, 20))
                stride, dilation = pick((1, 2)), pick((1, 2)) if kernel == 3 else 1
                pad = pick((0, dilation * (kernel // 2)))
                reach = dilation * (kernel - 1) + 1
                pad = dilation * (kernel // 2) if reach > height else pad
                layers += [
                    nn.Conv2d(width, wide, kernel, stride, pad, dilation, bias=pick((True, False))),
                    nn.BatchNorm2d(wide),
                    act,
                ]
                height = (height + 2 * pad - reach) // stride + 1
                width = wide
            case "grouped":
                groups = pick([g for g in range(1, width + 1) if width % g == 0])
                wide = groups * pick(range(1, 5))
                layers += [ChannelShuffle(groups), nn.Conv2d(width, wide, 3, 1, 1, groups=groups)]
                layers += [act]
                width = wide
            case "depthwise":
                stride = pick((1, 2))
                layers += [nn.Conv2d(width, width, 3, stride, 1, groups=width), act]
                height = (height - 1) // stride + 1
            case "gate":
                layers += [Gate(width, act)]
            case "norm":
                layers += [nn.BatchNorm2d(width), act]
            case "residual":
                layers += [Residual(nn.Conv2d(width, width, 3, padding=1), act)]
            case "itself":
                layers += [nn.Conv2d(width, width, 1), Itself(pick(WAYS))]
            case "dense":
                layers += [DenseKernel(width)]
                width *= 2
            case "split":
                layers += [SplitJoin(width)]
            case "max":
                stride, pad, ceil = pick((1, 2)), pick((0, 1)), pick((True, False))
                layers += [act, nn.MaxPool2d(3, stride, pad, ceil_mode=ceil)]
                height = (height + 2 * pad - 3) // stride + 1
            case _:
                stride, pad, all_ = pick((1, 2)), pick((0, 1)), pick((True, False))
                layers += [nn.AvgPool2d(3, stride, pad, count_include_pad=all_), act]
                height = (height + 2 * pad - 3) // stride + 1
    body = nn.Sequential(*layers)
    with torch.no_grad():
        out = body.eval()(torch.zeros(1, *shape)).shape
    if pick((True, False)):
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(out[1], 5))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(out[1] * out[2] * out[3], 5))
