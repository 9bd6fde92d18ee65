"""MobileNetV3-Small: inverted residuals, some gated, some with hard-swish.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, Table 2.

image (N, C, 224, 224)
  stem    3×3, stride 2, hard-swish                        → (N,  16, 112, 112)
  block 1 3×3,  16 inside, gate, ReLU, stride 2            → (N,  16,  56,  56)
  2-3     3×3,  72 and 88 inside, ReLU, stride 2 first     → (N,  24,  28,  28)
  4-6     5×5,  96, 240 and 240 inside, gate, stride 2     → (N,  40,  14,  14)
  7-8     5×5, 120 and 144 inside, gate                    → (N,  48,  14,  14)
  9-11    5×5, 288, 576 and 576 inside, gate, stride 2     → (N,  96,   7,   7)
  top     1×1, hard-swish                                  → (N, 576,   7,   7)
  mean over H and W, linear, hard-swish, dropout           → (N, 1024)
  fc                                                       → (N, classes)

Batch norm has eps 0.001 and momentum 0.01, as in the authors' code. A gate's hidden width is a
quarter of the width inside, rounded to eights.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from leancnn.layers import AverageVector, SqueezeExcite, check_image, choose, conv_bn, initialise
from leancnn.models._base import Card, register
from leancnn.models._widths import eights

STEM = 16
BLOCKS = (  # kernel, width inside, width, gated, hard-swish, stride
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
TOP = 576
HIDDEN = 1024


class Block(nn.Module):
    """1×1 up, depthwise, gate, 1×1 down: (N, c_in, H, W) → (N, c_out, H/s, W/s)."""

    def __init__(
        self,
        c_in: int,
        mid: int,
        c_out: int,
        *,
        kernel: int,
        gated: bool,
        act: Callable[[], nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and c_in == c_out
        self.expand = conv_bn(c_in, mid, 1, act=act) if mid != c_in else nn.Identity()
        self.depthwise = conv_bn(mid, mid, kernel, stride=stride, groups=mid, act=act)
        self.gate = (
            SqueezeExcite(mid, eights(mid / 4), gate=nn.Hardsigmoid) if gated else nn.Identity()
        )
        self.project = conv_bn(mid, c_out, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        h = self.project(self.gate(self.depthwise(self.expand(x))))
        out: Tensor = x + h if self.residual else h
        return out


class MobileNetV3Small(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(
        self, *, classes: int, channels: int, stem: str, dropout: float, init: str
    ) -> None:
        super().__init__()
        choose(stem, ("imagenet", "cifar"), "stem")
        self.channels = channels
        small = stem == "cifar"
        self.stem = conv_bn(channels, STEM, 3, stride=1 if small else 2, act=nn.Hardswish)
        blocks = []
        c_in = STEM
        for index, (kernel, mid, width, gated, hard, stride) in enumerate(BLOCKS):
            blocks.append(
                Block(
                    c_in,
                    mid,
                    width,
                    kernel=kernel,
                    gated=gated,
                    act=nn.Hardswish if hard else nn.ReLU,
                    stride=1 if small and index == 0 else stride,
                )
            )
            c_in = width
        self.blocks = nn.Sequential(*blocks)
        self.top = conv_bn(c_in, TOP, 1, act=nn.Hardswish)
        self.pool = AverageVector()
        self.hidden = nn.Sequential(nn.Linear(TOP, HIDDEN), nn.Hardswish(), nn.Dropout(dropout))
        self.fc = nn.Linear(HIDDEN, classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 0.001, 0.01
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "MobileNetV3", channels=self.channels)
        out: Tensor = self.hidden(self.pool(self.top(self.blocks(self.stem(x)))))  # (N, 1024)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def mobilenetv3_small(
    *,
    classes: int = 1000,
    channels: int = 3,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    dropout: float = 0.2,
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """MobileNetV3-Small of width 1; stem="cifar" drops the first two strides."""
    return MobileNetV3Small(
        classes=classes, channels=channels, stem=stem, dropout=dropout, init=init
    )


register(
    Card(
        name="mobilenetv3_small",
        source="Howard et al., Searching for MobileNetV3, ICCV 2019, Table 2",
        image=(3, 224, 224),
        classes=1000,
        trainable=2_542_856,
        macs=56_510_400,
        buffers=12_112,
        published="2.5 M, 56 M multiply-adds; "
        "LB-MBNet paper, Table 4: 1.52 M, 0.35e8 FLOPs, 92.97 %",
        differs="1.52 M is the network with 10 classes, 1,528,106, truncated",
        search={"stem": ("cifar", "imagenet")},
    ),
    mobilenetv3_small,
)
