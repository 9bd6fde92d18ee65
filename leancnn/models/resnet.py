"""ResNet: residual blocks, for 224×224 (18 and 50 layers) and for CIFAR's 32×32 (20 and 56 layers).

Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1
(ImageNet) and section 4.2 (CIFAR-10). In bottlenecks the 3×3 has the stride and not the first 1×1,
as everybody trains them since Gross and Wilber's release: same parameters, 4.09 instead of 3.86
GMAC.

resnet18, resnet50: image (N, C, 224, 224)
  conv1    7×7, stride 2; pool 3×3, stride 2           → (N,  64, 56, 56)
  stage 1  2 blocks | 3 bottlenecks                    → (N,  64 |  256, 56, 56)
  stage 2  2 | 4, the first with stride 2              → (N, 128 |  512, 28, 28)
  stage 3  2 | 6, the first with stride 2              → (N, 256 | 1024, 14, 14)
  stage 4  2 | 3, the first with stride 2              → (N, 512 | 2048,  7,  7)
  mean over H and W, fc                                → (N, classes)
resnet20, resnet56: image (N, C, 32, 32)
  conv1    3×3                                         → (N,  16, 32, 32)
  stage 1  3 | 9 blocks                                → (N,  16, 32, 32)
  stage 2  3 | 9, the first with stride 2              → (N,  32, 16, 16)
  stage 3  3 | 9, the first with stride 2              → (N,  64,  8,  8)
  mean over H and W, fc                                → (N, classes)
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import (
    AverageVector,
    PadChannels,
    check_image,
    choose,
    conv_bn,
    initialise,
)
from leancnn.models._base import Card, register

WIDTH = 16  # of the first stage for 32×32
SEARCH = {"repeats": (1, 2, 3, 5), "width": (8, 12, 16, 24, 32)}
BOTTLENECK = 4  # a bottleneck's output is this much wider than its 3×3


class Block(nn.Module):
    """Two 3×3, or 1×1, 3×3, 1×1, and a shortcut: (N, c_in, H, W) → (N, c_out, H/s, W/s)."""

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, bottleneck: bool, shortcut: str
    ) -> None:
        super().__init__()
        mid = c_out // BOTTLENECK
        self.convs = (
            nn.Sequential(
                conv_bn(c_in, mid, 1),
                conv_bn(mid, mid, 3, stride=stride),
                conv_bn(mid, c_out, 1, act=None),
            )
            if bottleneck
            else nn.Sequential(
                conv_bn(c_in, c_out, 3, stride=stride), conv_bn(c_out, c_out, 3, act=None)
            )
        )
        self.shortcut: nn.Module = nn.Identity()
        new = c_out - c_in
        if stride > 1 or new:
            self.shortcut = (
                PadChannels(new // 2, new - new // 2, stride=stride)
                if shortcut == "pad"
                else conv_bn(c_in, c_out, 1, stride=stride, act=None)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.convs(x) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        blocks: Sequence[int],
        widths: Sequence[int],
        bottleneck: bool,
        shortcut: str,
        stem: str,
        init: str,
    ) -> None:
        super().__init__()
        choose(shortcut, ("pad", "conv"), "shortcut")
        choose(stem, ("imagenet", "cifar"), "stem")
        self.channels = channels
        c_in = widths[0]
        self.stem = (
            conv_bn(channels, c_in, 3)
            if stem == "cifar"
            else nn.Sequential(*conv_bn(channels, c_in, 7, stride=2), nn.MaxPool2d(3, 2, 1))
        )
        parts = []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            c_out = BOTTLENECK * width if bottleneck else width
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                parts.append(
                    Block(c_in, c_out, stride=stride, bottleneck=bottleneck, shortcut=shortcut)
                )
                c_in = c_out
        self.blocks = nn.Sequential(*parts)
        self.pool = AverageVector()
        self.fc = nn.Linear(c_in, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "ResNet", channels=self.channels)
        out: Tensor = self.pool(self.blocks(self.stem(x)))  # (N, last width)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def resnet(
    *,
    classes: int = 1000,
    channels: int = 3,
    depth: Literal[18, 50] = 18,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """ResNet with four stages; stem="cifar" is 3×3 without stride or pool."""
    choose(str(depth), ("18", "50"), "depth")
    return ResNet(
        classes=classes,
        channels=channels,
        blocks=(2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3),
        widths=(64, 128, 256, 512),
        bottleneck=depth == 50,
        shortcut="conv",
        stem=stem,
        init=init,
    )


def resnet_cifar(
    *,
    classes: int = 10,
    channels: int = 3,
    repeats: int = 3,
    width: int = WIDTH,
    shortcut: Literal["pad", "conv"] = "pad",
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """ResNet of 6·`repeats` + 2 layers for 32×32; shortcut="pad" is the paper's option A."""
    if repeats < 1:
        raise MismatchError(f"ResNet needs repeats of 1 or more, not {repeats}")
    if width < 1:
        raise MismatchError(f"ResNet needs a width of 1 or more, not {width}")
    return ResNet(
        classes=classes,
        channels=channels,
        blocks=(repeats,) * 3,
        widths=(width, 2 * width, 4 * width),
        bottleneck=False,
        shortcut=shortcut,
        stem="cifar",
        init=init,
    )


_SOURCE = "He et al., Deep Residual Learning, CVPR 2016"
register(
    Card(
        name="resnet18",
        source=f"{_SOURCE}, Table 1",
        image=(3, 224, 224),
        classes=1000,
        trainable=11_689_512,
        macs=1_814_073_344,
        buffers=9_600,
        published="1.8e9 FLOPs; NVM paper, Table 6: 11.69 M, 3.49",
        differs="3.49 is about 2 per MAC (3.63)",
        search={"depth": (18, 50), "stem": ("imagenet", "cifar")},
    ),
    resnet,
    depth=18,
)
register(
    Card(
        name="resnet50",
        source=f"{_SOURCE}, Table 1",
        image=(3, 224, 224),
        classes=1000,
        trainable=25_557_032,
        macs=4_089_184_256,
        buffers=53_120,
        published="3.8e9 FLOPs; NVM paper, Table 7: 98.1 MB, 95.1 % on CIFAR-10",
        differs="97.5 MiB, 97.7 with batch-norm statistics, and that with 1000 classes",
    ),
    resnet,
    depth=50,
)
for _repeats, _trainable, _macs, _buffers, _published in (
    (3, 269_722, 40_551_040, 1_376, "0.27 M, 91.25 % on CIFAR-10"),
    (9, 853_018, 125_485_696, 4_064, "0.85 M, 93.03 % on CIFAR-10"),
):
    register(
        Card(
            name=f"resnet{6 * _repeats + 2}",
            source=f"{_SOURCE}, section 4.2 and Table 6",
            image=(3, 32, 32),
            classes=10,
            trainable=_trainable,
            macs=_macs,
            buffers=_buffers,
            published=_published,
            search=SEARCH if _repeats == 3 else {},
        ),
        resnet_cifar,
        repeats=_repeats,
    )
