"""The sizes that pruning changes, as data: module path → numbers, enough to rebuild a cut network.

A network is built at full width from its name and arguments, then `reshape` gives the modules that
were cut their sizes. So a pruned network on disk is the same as any other, names and numbers, never
a pickled class: the sizes stand among its arguments, under `cut`. The numbers of each module:

    Conv2d               in, out, groups
    Linear               in, out
    BatchNorm1d, 2d      channels
    LocalBinaryConv2d    channels
    PadChannels          before, after
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import LocalBinaryConv2d, PadChannels

Widths = dict[str, tuple[int, ...]]


def widths_of(body: nn.Module) -> Widths:
    """The sizes of every module that has some."""
    found = ((path, sizes_of(module)) for path, module in body.named_modules())
    return {path: sizes for path, sizes in found if sizes}


def sizes_of(module: nn.Module) -> tuple[int, ...]:
    """The numbers of one module, see the table; nothing for one without channels of its own."""
    match module:
        case nn.Conv2d():
            return module.in_channels, module.out_channels, module.groups
        case nn.Linear():
            return module.in_features, module.out_features
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return (module.num_features,)
        case LocalBinaryConv2d():
            return (module.channels,)
        case PadChannels():
            return module.before, module.after
    return ()


def reshape(body: nn.Module, widths: Mapping[str, Sequence[int]]) -> None:
    """Give modules of `body` other sizes, in place; what stood in them is lost.

    Norms then do nothing, ternary kernels are drawn anew, other weights are zero.
    Raises `MismatchError` for a path that is not there or numbers that do not fit its module.
    """
    modules = dict(body.named_modules())
    for path, sizes in widths.items():
        module = modules.get(path)
        if module is None or not sizes_of(module):
            raise MismatchError(f"widths: there is no layer '{path}' to give {tuple(sizes)} to")
        fits = len(sizes) == len(sizes_of(module)) and all(type(n) is int for n in sizes)
        if not fits or min(sizes) < (0 if isinstance(module, PadChannels) else 1):
            raise MismatchError(
                f"widths: '{path}' has {sizes_of(module)}; {tuple(sizes)} cannot replace them"
            )
        _set(path, module, tuple(sizes))


def _set(path: str, module: nn.Module, sizes: tuple[int, ...]) -> None:
    match module:
        case nn.Conv2d():
            c_in, c_out, groups = sizes
            if c_in % groups or c_out % groups:
                raise MismatchError(
                    f"widths: {groups} groups of '{path}' do not divide {c_in} → {c_out} channels"
                )
            module.in_channels, module.out_channels, module.groups = sizes
            shape = (c_out, c_in // groups, *module.kernel_size)
            _empty(module, {"weight": shape, "bias": (c_out,)})
        case nn.Linear():
            module.in_features, module.out_features = sizes
            _empty(module, {"weight": (sizes[1], sizes[0]), "bias": (sizes[1],)})
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            module.num_features = sizes[0]
            names = ("weight", "bias", "running_mean", "running_var")
            _empty(module, dict.fromkeys(names, sizes))
            module.reset_parameters()
        case LocalBinaryConv2d():
            module.channels = sizes[0]
            module.weight = module.drawn(sizes[0])
        case PadChannels():
            module.before, module.after = sizes


def _empty(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Zeros of a shape in the place of each parameter or buffer that is there."""
    for name, shape in shapes.items():
        old: Tensor | None = getattr(module, name)
        if old is None or tuple(old.shape) == shape:
            continue
        new = torch.zeros(shape, dtype=old.dtype, device=old.device)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(module, name, new)
