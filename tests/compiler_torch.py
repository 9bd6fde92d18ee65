"""A graph of the compiler computed by torch in float64, operator by operator."""

import torch
from torch.nn import functional

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
    Reshape,
    Softmax,
)

ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "log": torch.log,
    "softplus": functional.softplus,
}
COMBINED = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
}


def answers(graph, images):
    """The graph's output for float64 images (N, C, H, W): (N, answers)."""
    values = {graph.input: images}
    for node in graph.nodes:
        values[node.output] = computed(node.op, *(values[name] for name in node.inputs))
        assert values[node.output].shape[1:] == graph.shapes[node.output]
    return values[graph.output].flatten(1)


def computed(op, x, *others):
    """One operator on a batch (N, C, H, W)."""
    match op:
        case Conv():
            weight, bias = torch.tensor(op.weight).double(), torch.tensor(op.bias).double()
            x = padded(x, op.padding, 0)
            return functional.conv2d(x, weight, bias, op.stride, 0, op.dilation, op.groups)
        case Affine(scale, shift):
            return x * torch.tensor(scale)[:, None, None] + torch.tensor(shift)[:, None, None]
        case Activation("clip", low, high):
            return x.clamp(low, high)
        case Activation("leaky", low):
            return functional.leaky_relu(x, low)
        case Activation("power", exponent):
            return torch.pow(x, exponent)
        case Activation(kind):
            return ACTIVATIONS[kind](x)
        case Combine(how):
            return COMBINED[how](x, *others)
        case Gather(channels):
            return x[:, list(channels)]
        case Concat():
            return torch.cat([x, *others], 1)
        case Crop(top, left, height, width):
            return x[:, :, top : top + height, left : left + width]
        case Pool("max"):
            return functional.max_pool2d(padded(x, op.padding, -torch.inf), op.kernel, op.stride)
        case Pool():
            top, left, bottom, right = op.padding
            bottom, right = bottom - op.beyond[0], right - op.beyond[1]
            count = padded(torch.ones_like(x), (top, left, bottom, right), float(op.count_padding))
            count = padded(count, (0, 0, *op.beyond), 0)
            sums = [
                functional.avg_pool2d(part, op.kernel, op.stride)
                for part in (padded(x, op.padding, 0), count)
            ]
            return sums[0] / sums[1]
        case Reduce(how, over):
            axes = (2, 3) if over == "pixels" else (1,)
            if how == "norm":
                return x.square().sum(axes, keepdim=True).sqrt()
            return {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[how](x, axes, True)
        case Reshape(to):
            return x.reshape(len(x), *to)
        case Softmax(log):
            return x.log_softmax(1) if log else x.softmax(1)
    raise TypeError(op)


def padded(x, sides, value):
    """Pixels around an image: `sides` are top, left, bottom, right."""
    top, left, bottom, right = sides
    return functional.pad(x, (left, right, top, bottom), value=value)
