"""What several networks share. Shapes are (N, C, H, W): images, channels, rows, columns."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn, overrides

from leancnn.errors import MismatchError
from leancnn.regions import Window, rmac_windows


def check_image(
    x: Tensor | fx.Proxy,
    network: str,
    *,
    channels: int,
    smallest: int = 1,
    largest: int | None = None,
) -> None:
    """Refuse an image that `network` cannot take, with the numbers; a symbolic trace has none.

    Raises `MismatchError`.
    """
    if isinstance(x, fx.Proxy):
        return
    if len(x.shape) != 4:
        raise MismatchError(
            f"{network} needs images as (N, C, H, W), not a shape of {tuple(x.shape)}"
        )
    _, c, height, width = x.shape
    if c != channels:
        raise MismatchError(f"{network} was built for {channels} channels, not {c}")
    if min(height, width) < smallest:
        raise MismatchError(
            f"{network} needs images of {smallest}×{smallest} or more, not {height}×{width}"
        )
    if largest is not None and max(height, width) > largest:
        raise MismatchError(
            f"{network} ends on one pixel for {smallest} to {largest}, not for {height}×{width}; "
            "allow_any_size=true averages the rest"
        )


def choose(value: str, allowed: tuple[str, ...], argument: str) -> str:
    """Return `value`; raises `MismatchError` when it is none of `allowed`."""
    if value not in allowed:
        raise MismatchError(f"{argument} is one of {', '.join(allowed)}, not '{value}'")
    return value


def grouped_conv(
    c_in: int,
    c_out: int,
    kernel: int | tuple[int, int],
    *,
    groups: int = 1,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution whose groups are checked here, where the message can hold the numbers.

    `kernel` is a side, or rows and columns. Raises `MismatchError` when `groups` does not divide
    both channel counts, or one is 0.
    """
    if min(c_in, c_out) < 1:
        raise MismatchError(f"a convolution has 1 or more channels, not {c_in} → {c_out}")
    if groups < 1 or c_in % groups or c_out % groups:
        raise MismatchError(f"{groups} groups do not divide {c_in} → {c_out} channels")
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=bias)


INITS = ("gaussian001", "kaiming", "fan_in")


def initialise(model: nn.Module, init: str) -> None:
    """Draw the weights of convolutions and linear layers; biases become 0.

    * kaiming: He et al. 2015 by fan out, for convolutions followed by batch norm; linear std 0.01
    * fan_in: the same by fan in, groups respected, which keeps the scale where no norm does
    * gaussian001: std 0.01 for all, as the HENet paper's authors draw them

    Raises `MismatchError` for another word.
    """
    choose(init, INITS, "init")
    mode: Literal["fan_in", "fan_out"] = "fan_in" if init == "fan_in" else "fan_out"
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if init == "gaussian001" or isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def conv_bn(
    c_in: int,
    c_out: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] | None = None,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless `act` is None, an activation.

    `padding` defaults to half the kernel, which keeps H and W at stride 1. Raises `MismatchError`
    as `grouped_conv` does.
    """
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    conv = grouped_conv(c_in, c_out, kernel, groups=groups, stride=stride, padding=padding)
    parts: list[nn.Module] = [conv, nn.BatchNorm2d(c_out)]
    return nn.Sequential(*parts, *([] if act is None else [act()]))


class ChannelShuffle(nn.Module):
    """Let the groups of the next grouped convolution see all of the last one's.

    Channel `g * n + i` (group g of `groups`, place i of n) moves to `i * groups + g`.
    Source: Zhang et al., ShuffleNet, CVPR 2018.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        width: object = c
        if isinstance(width, int) and width % self.groups:
            raise MismatchError(f"{self.groups} groups do not divide {c} channels")
        x = x.view(n, self.groups, c // self.groups, h, w)
        return x.transpose(1, 2).reshape(n, c, h, w)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class ShuffleUnit(nn.Module):
    """1×1 in groups, shuffle, depthwise 3×3, 1×1 in groups; (N, c_in, H, W) → (N, c_out, H, W).

    With stride 2 the branch makes c_out − c_in channels, which follow the averaged input, and
    `padding` rows and columns are added on both paths. With stride 1 the input is added where the
    widths agree. Source: Zhang et al., ShuffleNet, CVPR 2018, Fig. 2.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        mid: int,
        *,
        stride: int,
        groups: int,
        first_groups: int | None = None,
        padding: int = 1,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.residual = stride == 1 and c_in == c_out
        branch = c_out if stride == 1 else c_out - c_in
        padding = 1 if stride == 1 else padding
        first_groups = groups if first_groups is None else first_groups
        self.squeeze = conv_bn(c_in, mid, 1, groups=first_groups)
        self.shuffle = ChannelShuffle(groups)
        self.depthwise = conv_bn(mid, mid, 3, groups=mid, stride=stride, padding=padding, act=None)
        self.expand = conv_bn(mid, branch, 1, groups=groups, act=None)
        self.pool = nn.AvgPool2d(3, 2, padding) if stride == 2 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.expand(self.depthwise(self.shuffle(self.squeeze(x))))
        if self.stride == 2:
            h = torch.cat([self.pool(x), h], 1)
        elif self.residual:
            h = x + h
        out: Tensor = self.relu(h)
        return out


class PadChannels(nn.Module):
    """He's option A, a shortcut without weights: every second pixel, zeros for new channels.

    (N, C, H, W) → (N, before + C + after, ⌈H/stride⌉, ⌈W/stride⌉). Source: He et al., Deep Residual
    Learning, CVPR 2016, section 3.3.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.before, self.after, self.stride = before, after, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"{self.before}, {self.after}, stride={self.stride}"


SQUEEZE_NORMS = ("none", "squeeze", "all")


class SqueezeExpand(nn.Module):
    """1×1 to few channels, then 1×1 and 3×3 side by side; (N, c_in, H, W) → (N, 2·expand, H, W).

    `groups` is that of both 1×1 convolutions, with a shuffle between; the 3×3 sees everything. `bn`
    says which convolutions a batch norm follows; all have a bias, the first if `squeeze_bias`.
    Source: Iandola et al., SqueezeNet, 2016, Fig. 1 (the fire module, groups of 1); the NVM paper
    for groups.
    """

    def __init__(
        self,
        c_in: int,
        squeeze: int,
        expand: int,
        *,
        groups: int = 1,
        bn: str = "none",
        squeeze_bias: bool = True,
    ) -> None:
        super().__init__()
        choose(bn, SQUEEZE_NORMS, "bn")
        self.squeeze = grouped_conv(c_in, squeeze, 1, groups=groups, bias=squeeze_bias)
        self.squeeze_bn = nn.Identity() if bn == "none" else nn.BatchNorm2d(squeeze)
        self.shuffle = ChannelShuffle(groups) if groups > 1 else nn.Identity()
        self.expand1 = grouped_conv(squeeze, expand, 1, groups=groups, bias=True)
        self.expand3 = grouped_conv(squeeze, expand, 3, padding=1, bias=True)
        self.expand_bn = nn.BatchNorm2d(2 * expand) if bn == "all" else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffle(self.relu(self.squeeze_bn(self.squeeze(x))))
        out: Tensor = self.relu(self.expand_bn(torch.cat([self.expand1(x), self.expand3(x)], 1)))
        return out


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate that looks at all of them; (N, C, H, W) → (N, C, H, W).

    `squeeze` turns the maps into (N, C), by default their means; two linear layers with bias
    follow. What `gate` puts out is the score that pruning reads: (N, C), in 0..1. Source: Hu, Shen
    and Sun, Squeeze-and-Excitation Networks, CVPR 2018, Fig. 2 and Eq. 2-4.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        act: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
        squeeze: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise MismatchError(
                f"squeeze-excite of {channels} channels needs 1 or more hidden ones, not {hidden}"
            )
        self.squeeze = AverageVector() if squeeze is None else squeeze
        self.reduce = nn.Linear(channels, hidden)
        self.act = act()
        self.expand = nn.Linear(hidden, channels)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        gates: Tensor = self.gate(self.expand(self.act(self.reduce(self.squeeze(x)))))  # (N, C)
        return x * gates[:, :, None, None]


class AverageVector(nn.Module):
    """The mean of each map: (N, C, H, W) → (N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x).flatten(1)
        return out


RMAC_MODES = ("paper21", "rule", "pyramid21")


class RMAC(nn.Module):
    """Sum of the unit vectors of regional maxima: (N, C, H, W) → (N, C); no weights.

    The maximum of each channel over each window gives a vector, which is divided by its length; the
    sum is not, unless `normalised`. Source: Tolias, Sicre and Jégou, Particular object retrieval
    with integral max-pooling, ICLR 2016, section 3.2; `rmac_windows` has the modes.
    """

    def __init__(
        self, mode: str = "paper21", *, eps: float = 1e-6, normalised: bool = False
    ) -> None:
        super().__init__()
        self.mode = choose(mode, RMAC_MODES, "rmac")
        self.eps = eps
        self.normalised = normalised

    def forward(self, x: Tensor) -> Tensor:
        total = regional_max(x, self.mode, self.eps)
        return F.normalize(total, dim=1, eps=self.eps) if self.normalised else total


def regional_max(x: Tensor, mode: str, eps: float) -> Tensor:
    """What `RMAC` does, as one step of a symbolic trace: the windows depend on the maps' size."""
    if overrides.has_torch_function((x,)):
        return overrides.handle_torch_function(regional_max, (x,), x, mode, eps)
    strips: dict[tuple[int, int], Tensor] = {}
    peaks: dict[Window, Tensor] = {}
    windows = rmac_windows(int(x.shape[2]), int(x.shape[3]), mode)
    for window in windows:
        top, left, rows, columns = window
        if (top, rows) not in strips:
            strips[top, rows] = x[:, :, top : top + rows].amax(2)  # (N, C, W)
        if window not in peaks:
            peaks[window] = strips[top, rows][:, :, left : left + columns].amax(2)  # (N, C)
    vectors = torch.stack([peaks[window] for window in windows], 1)  # (N, windows, C)
    return F.normalize(vectors, dim=2, eps=eps).sum(1)


fx.wrap("regional_max")
SPARSEST = 0.01  # of ternary kernels: below, drawing until none is all zero takes for ever


class LocalBinaryConv2d(nn.Module):
    """Depthwise 3×3 convolution whose kernels are drawn once and never trained: −1, 0 or 1.

    (N, C, H, W) → (N, C, H/stride, W/stride). Each entry is not zero with chance `density`, its
    sign is a coin; a kernel of nine zeros would silence its channel and is drawn again, unless
    `redraw` is false. The kernels are an int8 buffer (C, 1, 3, 3); `ternary_codes` packs each into
    15 bits. Raises `MismatchError` for a density outside 0.01..1. Source: Juefei-Xu, Boddeti and
    Savvides, Local Binary Convolutional Neural Networks, CVPR 2017, section 3.
    """

    weight: Tensor

    def __init__(
        self, channels: int, *, stride: int = 1, density: float = 0.5, redraw: bool = True
    ) -> None:
        super().__init__()
        if not SPARSEST <= density <= 1:
            raise MismatchError(f"the share of non-zero entries is in {SPARSEST}..1, not {density}")
        self.channels = channels
        self.stride = stride
        self.density = density
        self.redraw = redraw
        self.register_buffer("weight", self.drawn(channels))

    def drawn(self, channels: int) -> Tensor:
        """Other kernels of the same kind."""
        return draw_ternary(channels, self.density, redraw=self.redraw)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), None, self.stride, 1, groups=self.channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}, density={self.density}"


def draw_ternary(channels: int, density: float, *, redraw: bool = True) -> Tensor:
    """Draw kernels from torch's global generator: int8 (channels, 1, 3, 3).

    With `redraw` none is all zero.
    """
    kernels = torch.zeros(channels, 1, 3, 3)
    if kernels.is_meta:
        return kernels.to(torch.int8)
    dead = torch.ones(channels, dtype=torch.bool)
    while dead.any():
        shape = (int(dead.sum()), 1, 3, 3)
        signs = torch.randint(0, 2, shape) * 2.0 - 1
        kernels[dead] = signs * (torch.rand(shape) < density)
        dead = kernels.flatten(1).eq(0).all(1) & redraw
    return kernels.to(torch.int8)


def ternary_codes(kernels: Tensor) -> Tensor:
    """Pack ternary kernels int8 (C, 1, 3, 3) into uint16 (C,): nine digits of base 3, 15 bits."""
    codes = torch.zeros(len(kernels), dtype=torch.int32, device=kernels.device)
    for entry in reversed(kernels.flatten(1).unbind(1)):
        codes = 3 * codes + entry + 1
    return codes.to(torch.uint16)


def ternary_kernels(codes: Tensor) -> Tensor:
    """Undo `ternary_codes`. Raises `MismatchError` for a code above 3⁹ − 1 = 19,682."""
    numbers = codes.to(torch.int32)
    if (numbers >= 3**9).any():
        raise MismatchError(f"a ternary kernel has a code below {3**9}, not {int(numbers.max())}")
    digits = [numbers // 3**place % 3 for place in range(9)]
    return (torch.stack(digits, 1) - 1).to(torch.int8).view(-1, 1, 3, 3)
