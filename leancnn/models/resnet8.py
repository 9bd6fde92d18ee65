"""ResNet-8 of MLPerf Tiny: the reference for image classification on microcontrollers, 32×32.

Source: Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks 2021, Table 1, and
the reference model of its repository (resnet_v1_eembc), whose convolutions all have a bias.

image (N, C, 32, 32)
  conv1    3×3, batch norm, ReLU                        → (N, 16, 32, 32)
  block 1  two 3×3, shortcut                            → (N, 16, 32, 32)
  block 2  two 3×3, stride 2, 1×1 shortcut              → (N, 32, 16, 16)
  block 3  two 3×3, stride 2, 1×1 shortcut              → (N, 64,  8,  8)
  mean over H and W, fc                                 → (N, classes)

Keras counts 78,666: 78,186 that train and 480 running statistics. Its strided convolutions pad
below and to the right only; ours pad all round, which moves nothing in the counts.
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import AverageVector, check_image, grouped_conv, initialise
from leancnn.models._base import Card, register

WIDTH = 16  # of the first block; each has twice the width of the one before


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A padded convolution with bias."""
    return grouped_conv(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=True)


class Block(nn.Module):
    """Two 3×3 and a shortcut without norm: (N, c_in, H, W) → (N, c_out, H/s, W/s)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(c_in, c_out, 3, stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out, 3)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = conv(c_in, c_out, 1, stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(h + self.shortcut(x))
        return out


class ResNet8(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, width: int, init: str) -> None:
        super().__init__()
        self.channels = channels
        if width < 1:
            raise MismatchError(f"ResNet-8 needs a width of 1 or more, not {width}")
        narrow, middle, wide = width, 2 * width, 4 * width
        self.conv1 = conv(channels, narrow, 3)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(
            Block(narrow, narrow, 1), Block(narrow, middle, 2), Block(middle, wide, 2)
        )
        self.pool = AverageVector()
        self.fc = nn.Linear(wide, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "ResNet-8", channels=self.channels)
        out: Tensor = self.pool(self.blocks(self.relu(self.bn1(self.conv1(x)))))  # (N, 64)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def resnet8(
    *,
    classes: int = 10,
    channels: int = 3,
    width: int = WIDTH,
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """MLPerf Tiny's ResNet-8."""
    return ResNet8(classes=classes, channels=channels, width=width, init=init)


register(
    Card(
        name="resnet8",
        source="Banbury et al., MLPerf Tiny Benchmark, 2021; its reference model",
        image=(3, 32, 32),
        classes=10,
        trainable=78_186,
        macs=12_501_632,
        buffers=480,
        published="78,666 parameters in Keras, 85 % accuracy target on CIFAR-10",
        differs="78,666 holds 480 running statistics",
        search={"width": (8, 12, 16, 24, 32)},
    ),
    resnet8,
)
