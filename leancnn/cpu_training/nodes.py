"""What the C kernels want to know of a node: its kernels' name, what it reads, its parameters."""

from math import prod
from typing import NamedTuple

from torch import Tensor, nn

from leancnn.cpu_training.trace import Node, Norm, Plane

PRODUCT = "products"  # the kernels of products.c
MANY_WEIGHTS, FEW_PIXELS = 256, 8  # from which on, below which 1×1 convolutions are products


def read_planes(node: Node) -> dict[str, list[Plane]]:
    """What a node reads, by the name in `Uses` of its gradient's place."""
    if node.form != "gate":
        return {"gradient": node.planes}
    count = node.shape[0]
    return {"gradient": node.planes[:count], "gate_gradient": node.planes[count:]}


def share_of(tensor: Tensor, norm: Norm) -> int:
    """The address of a norm's share of a tensor."""
    return tensor.data_ptr() + 4 * norm.start


class Slot(NamedTuple):
    """A parameter, or the part of it from `start` on, and the C field that takes its gradient."""

    field: str
    of: Tensor
    start: int = 0


def slots_of(node: Node) -> list[Slot]:
    """A node's parameters.

    The bias of a convolution before a norm has no field: its gradient is 0, for the norm removes
    it.
    """
    slots: list[Slot] = []
    if isinstance(node.weight, nn.Parameter):
        slots.append(Slot("weight_grad", node.weight))
    if node.bias is not None:
        slots.append(Slot("" if node.norm else "beta_grad", node.bias))
    if norm := node.norm:
        slots.append(Slot("gamma_grad", norm.gamma, norm.start))
        slots.append(Slot("beta_grad", norm.beta, norm.start))
    return slots


def kernels_of(node: Node) -> str:
    """The name of a convolution's kernels: inputs and outputs of a group, side, stride, pad.

    1×1 convolutions of many channels are matrix products, which are not compiled for their shapes.
    """
    assert node.weight is not None
    inputs, outputs = node.weight.shape[1], node.shape[0] // node.groups
    many = inputs * outputs >= MANY_WEIGHTS or prod(node.shape[1:]) < FEW_PIXELS
    if many and (node.kernel, node.stride, node.pad) == (1, 1, 0):
        return PRODUCT
    return f"{inputs}_{outputs}_{node.kernel}_{node.stride}_{node.pad}"
