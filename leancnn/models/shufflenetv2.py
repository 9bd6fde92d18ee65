"""ShuffleNetV2: half of the channels pass a unit untouched, then both halves are shuffled.

Source: Ma, Zhang, Zheng and Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN
Architecture Design", ECCV 2018, Table 5 and Fig. 3(c, d). For 32×32 the stem has stride 1 and no
pool.

                image (N, C, 224, 224), width 1              (N, C, 32, 32), width 0.5
  stem     3×3, stride 2; pool → (N,   24, 56, 56)           stride 1 → (N,   24, 32, 32)
  stage 2  4 units, stride 2   → (N,  116, 28, 28)                    → (N,   48, 16, 16)
  stage 3  8 units, stride 2   → (N,  232, 14, 14)                    → (N,   96,  8,  8)
  stage 4  4 units, stride 2   → (N,  464,  7,  7)                    → (N,  192,  4,  4)
  top      1×1                 → (N, 1024,  7,  7)                    → (N, 1024,  4,  4)
  mean over H and W, fc        → (N, classes)
"""

from typing import Literal

import torch
from torch import Tensor, nn

from leancnn.layers import AverageVector, ChannelShuffle, check_image, choose, conv_bn, initialise
from leancnn.models._base import Card, register

STEM = 24
WIDTHS = {"0.5": (48, 96, 192), "1.0": (116, 232, 464)}
UNITS = (4, 8, 4)
TOP = 1024


def branch(c_in: int, width: int, stride: int) -> nn.Sequential:
    """1×1, depthwise 3×3, 1×1."""
    return nn.Sequential(
        conv_bn(c_in, width, 1),
        conv_bn(width, width, 3, stride=stride, groups=width, act=None),
        conv_bn(width, width, 1),
    )


class Unit(nn.Module):
    """Stride 1: one half through the branch, the other untouched; (N, C, H, W) → (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = branch(width // 2, width // 2, 1)
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        out: Tensor = self.shuffle(torch.cat([kept, self.branch(changed)], 1))
        return out


class Down(nn.Module):
    """Stride 2: everything through both branches; (N, c_in, H, W) → (N, c_out, H/2, W/2)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(
            conv_bn(c_in, c_in, 3, stride=2, groups=c_in, act=None), conv_bn(c_in, c_out // 2, 1)
        )
        self.branch = branch(c_in, c_out // 2, 2)
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shuffle(torch.cat([self.shortcut(x), self.branch(x)], 1))
        return out


class ShuffleNetV2(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, width: str, stem: str, init: str) -> None:
        super().__init__()
        choose(width, tuple(WIDTHS), "width")
        choose(stem, ("imagenet", "cifar"), "stem")
        self.channels = channels
        self.stem = (
            conv_bn(channels, STEM, 3)
            if stem == "cifar"
            else nn.Sequential(*conv_bn(channels, STEM, 3, stride=2), nn.MaxPool2d(3, 2, 1))
        )
        units: list[nn.Module] = []
        c_in = STEM
        for c_out, count in zip(WIDTHS[width], UNITS, strict=True):
            units += [Down(c_in, c_out), *(Unit(c_out) for _ in range(count - 1))]
            c_in = c_out
        self.units = nn.Sequential(*units)
        self.top = conv_bn(c_in, TOP, 1)
        self.pool = AverageVector()
        self.fc = nn.Linear(TOP, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "ShuffleNetV2", channels=self.channels)
        out: Tensor = self.pool(self.top(self.units(self.stem(x))))  # (N, 1024)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def shufflenetv2(
    *,
    classes: int = 1000,
    channels: int = 3,
    width: Literal["0.5", "1.0"] = "1.0",
    stem: Literal["imagenet", "cifar"] = "imagenet",
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """ShuffleNetV2; stem="cifar" is for images of about 32×32."""
    return ShuffleNetV2(classes=classes, channels=channels, width=width, stem=stem, init=init)


_SOURCE = "Ma et al., ShuffleNet V2, ECCV 2018, Table 5"
register(
    Card(
        name="shufflenetv2",
        source=_SOURCE,
        image=(3, 224, 224),
        classes=1000,
        trainable=2_278_604,
        macs=144_907_992,
        buffers=16_180,
        published="2.3 M parameters, 146 MFLOPs; NVM paper, Table 6 (ShuffleNet): 1.32 M, 0.32",
        differs="MFLOPs there are MACs; with 40 classes 1,294,604, the nearest to 1.32 M",
    ),
    shufflenetv2,
)
register(
    Card(
        name="shufflenetv2_x0_5",
        source=_SOURCE,
        image=(3, 32, 32),
        classes=10,
        trainable=352_042,
        macs=10_902_016,
        buffers=7_952,
        published="1.4 M with 1000 classes",
        search={"width": ("0.5", "1.0"), "stem": ("cifar", "imagenet")},
    ),
    shufflenetv2,
    width="0.5",
    stem="cifar",
)
