"""ResNetV2: bottlenecks whose norm and activation come before each convolution, for 32×32.

Source: He, Zhang, Ren and Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016, Fig. 4(e),
Tables 4 and 6; compared with in the LB-MBNet paper, Table 4, whose counts include the running
statistics.

image (N, C, 32, 32), layers 9·repeats + 2
  conv1    3×3                                          → (N,  16, 32, 32)
  stage 1  `repeats` bottlenecks                        → (N,  64, 32, 32)
  stage 2  `repeats`, the first with stride 2           → (N, 128, 16, 16)
  stage 3  `repeats`, the first with stride 2           → (N, 256,  8,  8)
  batch norm, ReLU, mean over H and W, fc               → (N, classes)
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import AverageVector, check_image, grouped_conv, initialise
from leancnn.models._base import Card, register

STEM = 16
WIDTHS = (64, 128, 256)
BOTTLENECK = 4  # the output is this much wider than the 3×3


class Block(nn.Module):
    """1×1, 3×3, 1×1, each after BN and ReLU, and a shortcut; (N, c_in, H, W) → (N, c_out, …).

    The 3×3 has the stride. Where the shape changes the shortcut is a 1×1 that reads the first
    activation too.
    """

    def __init__(self, c_in: int, c_out: int, *, stride: int) -> None:
        super().__init__()
        mid = c_out // BOTTLENECK
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = grouped_conv(c_in, mid, 1)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv2 = grouped_conv(mid, mid, 3, stride=stride, padding=1)
        self.bn3 = nn.BatchNorm2d(mid)
        self.conv3 = grouped_conv(mid, c_out, 1)
        self.project = c_in != c_out or stride > 1
        self.shortcut = (
            grouped_conv(c_in, c_out, 1, stride=stride) if self.project else nn.Identity()
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(x))
        kept = self.shortcut(h if self.project else x)
        h = self.conv2(self.relu(self.bn2(self.conv1(h))))
        out: Tensor = kept + self.conv3(self.relu(self.bn3(h)))
        return out


class ResNetV2(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, repeats: int, init: str) -> None:
        super().__init__()
        if repeats < 1:
            raise MismatchError(f"ResNetV2 needs repeats of 1 or more, not {repeats}")
        self.channels = channels
        self.conv1 = grouped_conv(channels, STEM, 3, padding=1)
        blocks = []
        c_in = STEM
        for width in WIDTHS:
            for index in range(repeats):
                stride = 2 if index == 0 and width != WIDTHS[0] else 1
                blocks.append(Block(c_in, width, stride=stride))
                c_in = width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(c_in)
        self.relu = nn.ReLU(inplace=True)
        self.pool = AverageVector()
        self.fc = nn.Linear(c_in, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "ResNetV2", channels=self.channels)
        out: Tensor = self.pool(self.relu(self.bn(self.blocks(self.conv1(x)))))  # (N, 256)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def resnetv2(
    *,
    classes: int = 10,
    channels: int = 3,
    repeats: int = 6,
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """ResNetV2 of 9·`repeats` + 2 layers."""
    return ResNetV2(classes=classes, channels=channels, repeats=repeats, init=init)


for _repeats, _trainable, _macs, _buffers, _published in (
    (6, 590_426, 87_214_592, 8_096, "LB-MBNet paper, Table 4: 0.597 M, 1.71e8 FLOPs, 93.01 %"),
    (
        18,
        1_703_258,
        247_646_720,
        24_224,
        "1.7 M, 94.54 %; LB-MBNet paper, Table 4: 1.73 M, 4.97e8 FLOPs, 94.58 %",
    ),
    (
        111,
        10_327_706,
        1_490_995_712,
        149_216,
        "10.2 M, 95.08 %; LB-MBNet paper, Table 4: 10.48 M, 30.3e8 FLOPs, 95.08 %",
    ),
):
    register(
        Card(
            name=f"resnetv2_{9 * _repeats + 2}",
            source="He et al., Identity Mappings in Deep Residual Networks, ECCV 2016",
            image=(3, 32, 32),
            classes=10,
            trainable=_trainable,
            macs=_macs,
            buffers=_buffers,
            published=_published,
            differs="Table 4 counts batch-norm statistics too, and 2 FLOPs per MAC",
            search={"repeats": (1, 2, 3, 6)} if _repeats == 6 else {},
        ),
        resnetv2,
        repeats=_repeats,
    )
