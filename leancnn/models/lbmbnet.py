"""LB-MBNet: inverted bottlenecks whose depthwise kernels are random, ternary and never trained.

Source: "Data-Driven Channel Pruning towards Local Binary Convolution Inverse Bottleneck Network
Based on Squeeze-and-Excitation Optimization Weights", Electronics 2021, 10, 1329: Tables 1-4. r is
`expansion`; a stack has 6 blocks in the network of 59 layers and 3 in that of 32 (`repeats`).

image (N, C, 32, 32)
  stem     3×3                                             → (N,  32, 32, 32)
  stage 0  one block without expansion                     → (N,  16, 32, 32)
  stage 1  `repeats` blocks, the first with stride 2       → (N,  64, 16, 16)
  stage 2  `repeats` blocks, the first with stride 2       → (N, 128,  8,  8)
  stage 3  `repeats` blocks, the first with stride 2       → (N, 256,  4,  4)
  top      1×1                                             → (N, 512,  4,  4)
  mean over H and W, fc                                    → (N, classes)

Trainable, 10 classes: 1,160,528·r + 145,302 for 59 layers and 508,688·r + 142,278 for 32; frozen
9·(2448·r + 32) and 9·(1104·r + 32). All eleven parameter counts of the paper come out to the last
digit, and so do its eleven FLOPs: 2 per MAC, 2 per batch-norm output, 2 per activation. The paper
leaves open: the share of entries that are not zero (`density`), the activations (`act`, and
`gate_act` inside the gates), batch norm's eps and momentum, and whether stage 0 has a gate (552
parameters; both readings fit).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import (
    AverageVector,
    LocalBinaryConv2d,
    SqueezeExcite,
    check_image,
    choose,
    conv_bn,
    initialise,
)
from leancnn.models._base import Card, register

STEM = 32
SEARCH = {"repeats": (1, 2, 3, 6), "expansion": (1, 2, 3, 6)}
STAGE_0 = 16
STAGES = (64, 128, 256)
TOP = 512
SQUEEZE = 4  # the gate's hidden width is the block's input width divided by this
ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU}


class LBMBConv(nn.Module):
    """1×1 up, fixed depthwise 3×3, gate, 1×1 down: (N, c_in, H, W) → (N, c_out, H/s, W/s).

    Inside there are `expansion`·c_in channels; expansion 1 has no first 1×1. With stride 1 and
    equal widths the input is added.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        expansion: int,
        stride: int,
        act: type[nn.Module],
        gate_act: type[nn.Module],
        gated: bool,
        density: float,
        redraw: bool,
    ) -> None:
        super().__init__()
        mid = expansion * c_in
        self.residual = stride == 1 and c_in == c_out
        self.expand = conv_bn(c_in, mid, 1, act=act) if expansion > 1 else nn.Identity()
        self.depthwise = LocalBinaryConv2d(mid, stride=stride, density=density, redraw=redraw)
        self.depthwise_bn = nn.BatchNorm2d(mid)
        self.act = act()
        self.gate = SqueezeExcite(mid, c_in // SQUEEZE, act=gate_act) if gated else nn.Identity()
        self.project = conv_bn(mid, c_out, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.depthwise_bn(self.depthwise(self.expand(x))))  # (N, mid, H/s, W/s)
        h = self.project(self.gate(h))
        out: Tensor = x + h if self.residual else h
        return out


def _stages(block: Callable[..., LBMBConv], repeats: int) -> Iterator[LBMBConv]:
    """`repeats` blocks of each width; each stage begins with stride 2."""
    c_in = STAGE_0
    for width in STAGES:
        for index in range(repeats):
            yield block(c_in, width, stride=2 if index == 0 else 1, gated=True)
            c_in = width


class LBMBNet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        repeats: int,
        expansion: int,
        act: str,
        gate_act: str,
        gate_stage0: bool,
        density: float,
        redraw: bool,
        bn_eps: float,
        bn_momentum: float,
        init: str,
    ) -> None:
        super().__init__()
        if repeats < 1 or expansion < 1:
            raise MismatchError(
                f"LB-MBNet needs repeats and expansion of 1 or more, not {repeats} and {expansion}"
            )
        if not (bn_eps > 0 and 0 <= bn_momentum <= 1):
            raise MismatchError(
                f"batch norm has eps above 0 and momentum in 0..1, not {bn_eps} and {bn_momentum}"
            )
        kind = ACTIVATIONS[choose(act, tuple(ACTIVATIONS), "act")]
        choose(gate_act, ("same", *ACTIVATIONS), "gate_act")
        gate_kind = ACTIVATIONS.get(gate_act, kind)
        self.channels = channels
        block = partial(LBMBConv, act=kind, gate_act=gate_kind, density=density, redraw=redraw)
        self.stem = conv_bn(channels, STEM, 3, act=kind)
        self.stage0 = block(STEM, STAGE_0, expansion=1, stride=1, gated=gate_stage0)
        self.blocks = nn.Sequential(*_stages(partial(block, expansion=expansion), repeats))
        self.top = conv_bn(STAGES[-1], TOP, 1, act=kind)
        self.pool = AverageVector()
        self.fc = nn.Linear(TOP, classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = bn_eps, bn_momentum
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "LB-MBNet", channels=self.channels)
        out: Tensor = self.pool(self.top(self.blocks(self.stage0(self.stem(x)))))  # (N, 512)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def lbmbnet(
    *,
    classes: int = 10,
    channels: int = 3,
    repeats: int = 6,
    expansion: int = 6,
    act: Literal["silu", "relu"] = "silu",
    gate_act: Literal["same", "silu", "relu"] = "same",
    gate_stage0: bool = True,
    density: float = 0.5,
    redraw: bool = True,
    bn_eps: float = 1e-5,
    bn_momentum: float = 0.1,
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """LB-MBNet with `repeats` blocks in each of three stacks, `expansion` times wider inside."""
    return LBMBNet(
        classes=classes,
        channels=channels,
        repeats=repeats,
        expansion=expansion,
        act=act,
        gate_act=gate_act,
        gate_stage0=gate_stage0,
        density=density,
        redraw=redraw,
        bn_eps=bn_eps,
        bn_momentum=bn_momentum,
        init=init,
    )


_PRUNED = "pruned from r80"
for _layers, _expansion, _trainable, _frozen, _buffers, _macs, _published in (
    (59, 3, 3_626_886, 66_384, 35_936, 114_012_032, f"3.63 M, 2.33e8 FLOPs, 93.97 % {_PRUNED}"),
    (
        59,
        6,
        7_108_470,
        132_480,
        65_312,
        224_217_344,
        "7.11 M, 4.57e8 FLOPs, 92.47 % (Table 4: 92.35 %), 95.24 % " + _PRUNED,
    ),
    (
        59,
        10,
        11_750_582,
        220_608,
        104_480,
        371_157_760,
        f"11.75 M, 7.57e8 FLOPs, 93.65 %, 95.65 % {_PRUNED}",
    ),
    (
        59,
        18,
        21_034_806,
        396_864,
        182_816,
        665_038_592,
        f"21.03 M, 13.6e8 FLOPs, 93.81 %, 95.58 % {_PRUNED}",
    ),
    (
        59,
        20,
        23_355_862,
        440_928,
        202_400,
        738_508_800,
        f"23.36 M, 15.0e8 FLOPs, 95.76 % {_PRUNED}",
    ),
    (59, 30, 34_961_142, 661_248, 300_320, 1_105_859_840, "34.96 M, 22.5e8 FLOPs, 94.40 %"),
    (
        59,
        40,
        46_566_422,
        881_568,
        398_240,
        1_473_210_880,
        f"46.57 M, 30.0e8 FLOPs, 96.15 % {_PRUNED}",
    ),
    (59, 60, 69_776_982, 1_322_208, 594_080, 2_207_912_960, "69.78 M, 45.0e8 FLOPs, 95.05 %"),
    (
        59,
        80,
        92_987_542,
        1_762_848,
        789_920,
        2_942_615_040,
        "92.99 M, 59.9e8 FLOPs, 96.06 % (the text: 92.75 %)",
    ),
    (
        32,
        6,
        3_194_406,
        59_904,
        30_368,
        105_552_128,
        f"3.19 M, 2.16e8 FLOPs, 92.88 %, 94.90 % {_PRUNED}",
    ),
    (32, 80, 40_837_318, 795_168, 357_152, 1_360_412_160, "40.84 M, 27.7e8 FLOPs, 95.63 %"),
):
    register(
        Card(
            name=f"lbmbnet{_layers}_r{_expansion}",
            source="Electronics 2021, 10, 1329, Tables 1-3",
            image=(3, 32, 32),
            classes=10,
            trainable=_trainable,
            frozen=_frozen,
            macs=_macs,
            buffers=_buffers,
            published=_published,
            differs="FLOPs there are 2 per MAC, per batch-norm output and per activation",
            search=SEARCH if (_layers, _expansion) == (32, 6) else {},
        ),
        lbmbnet,
        repeats={59: 6, 32: 3}[_layers],
        expansion=_expansion,
    )
