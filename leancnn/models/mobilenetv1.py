"""MobileNet: depthwise 3×3 and 1×1 convolutions, nothing else.

Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", 2017, Table 1, width multiplier 1.

image (N, C, 224, 224)
  stem    3×3, stride 2                                     → (N,   32, 112, 112)
  pair 1  depthwise 3×3, 1×1                                → (N,   64, 112, 112)
  2-3     the first with stride 2                           → (N,  128,  56,  56)
  4-5     the first with stride 2                           → (N,  256,  28,  28)
  6-11    the first with stride 2                           → (N,  512,  14,  14)
  12-13   the first with stride 2                           → (N, 1024,   7,   7)
  mean over H and W, fc                                     → (N, classes)

With stem="cifar" the stem and the first strided pair keep the size: 32 → 32, 32, 16, 8, 4.
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.layers import AverageVector, check_image, choose, conv_bn, initialise
from leancnn.models._base import Card, register

STEM = 32
PAIRS = (  # width, stride
    (64, 1),
    *((128, 2), (128, 1)),
    *((256, 2), (256, 1)),
    *((512, 2), *((512, 1),) * 5),
    *((1024, 2), (1024, 1)),
)


class MobileNetV1(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, stem: str, init: str) -> None:
        super().__init__()
        choose(stem, ("imagenet", "cifar"), "stem")
        self.channels = channels
        small = stem == "cifar"
        self.stem = conv_bn(channels, STEM, 3, stride=1 if small else 2)
        pairs = []
        c_in = STEM
        for index, (width, stride) in enumerate(PAIRS):
            step = 1 if small and index == 1 else stride
            pairs.append(
                nn.Sequential(
                    conv_bn(c_in, c_in, 3, stride=step, groups=c_in), conv_bn(c_in, width, 1)
                )
            )
            c_in = width
        self.pairs = nn.Sequential(*pairs)
        self.pool = AverageVector()
        self.fc = nn.Linear(c_in, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "MobileNet", channels=self.channels)
        out: Tensor = self.pool(self.pairs(self.stem(x)))  # (N, 1024)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def mobilenetv1(
    *,
    classes: int = 1000,
    channels: int = 3,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """MobileNet of width 1."""
    return MobileNetV1(classes=classes, channels=channels, stem=stem, init=init)


register(
    Card(
        name="mobilenetv1",
        source="Howard et al., MobileNets, 2017, Table 1",
        image=(3, 224, 224),
        classes=1000,
        trainable=4_231_976,
        macs=568_740_352,
        buffers=21_888,
        published="4.2 M parameters, 569 M multiply-adds",
        search={"stem": ("cifar", "imagenet")},
    ),
    mobilenetv1,
)
