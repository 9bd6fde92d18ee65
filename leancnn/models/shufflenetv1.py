"""ShuffleNet 1×: grouped 1×1 convolutions with a channel shuffle between.

Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network
for Mobile Devices", CVPR 2018, Table 1 (g = 3 by default) and Fig. 2.

image (N, C, 224, 224), g = 3
  stem     3×3, stride 2; pool 3×3, stride 2                → (N,  24, 56, 56)
  stage 2  4 units, the first with stride 2                 → (N, 240, 28, 28)
  stage 3  8 units, the first with stride 2                 → (N, 480, 14, 14)
  stage 4  4 units, the first with stride 2                 → (N, 960,  7,  7)
  mean over H and W, fc                                     → (N, classes)

The first 1×1 of stage 2 is not grouped: it reads 24 channels. A unit's middle is a quarter of its
output.
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.layers import AverageVector, ShuffleUnit, check_image, choose, conv_bn, initialise
from leancnn.models._base import Card, register

STEM = 24
FIRST_WIDTH = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of stage 2, by groups; it doubles after
UNITS = (4, 8, 4)
FACTOR = 4


class ShuffleNetV1(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, groups: int, init: str) -> None:
        super().__init__()
        choose(str(groups), tuple(str(known) for known in FIRST_WIDTH), "groups")
        self.channels = channels
        self.stem = nn.Sequential(*conv_bn(channels, STEM, 3, stride=2), nn.MaxPool2d(3, 2, 1))
        units = []
        c_in = STEM
        for stage, count in enumerate(UNITS):
            width = FIRST_WIDTH[groups] * 2**stage
            for index in range(count):
                first = stage == 0 and index == 0
                units.append(
                    ShuffleUnit(
                        c_in,
                        width,
                        width // FACTOR,
                        stride=1 if index else 2,
                        groups=groups,
                        first_groups=1 if first else groups,
                    )
                )
                c_in = width
        self.units = nn.Sequential(*units)
        self.pool = AverageVector()
        self.fc = nn.Linear(c_in, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "ShuffleNet", channels=self.channels)
        out: Tensor = self.pool(self.units(self.stem(x)))  # (N, 960)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def shufflenetv1(
    *,
    classes: int = 1000,
    channels: int = 3,
    groups: Literal[1, 2, 3, 4, 8] = 3,
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """ShuffleNet of width 1 with `groups` groups."""
    return ShuffleNetV1(classes=classes, channels=channels, groups=groups, init=init)


register(
    Card(
        name="shufflenetv1",
        source="Zhang et al., ShuffleNet, CVPR 2018, Table 1, g = 3",
        image=(3, 224, 224),
        classes=1000,
        trainable=1_865_728,
        macs=137_460_672,
        buffers=24_480,
        published="137 MFLOPs; NVM paper, Table 6: 1.32 M, 0.32",
        differs="no ShuffleNet has 1.32 M; nearest is v2 1× with 40 classes, 1,294,604",
    ),
    shufflenetv1,
)
