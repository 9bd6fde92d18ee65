"""MobileNetV2: inverted residuals with linear bottlenecks.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, Table
2. The strides for 32×32 are those with which the LB-MBNet paper's Table 4 gives 0.88e8.

stem="cifar": image (N, C, 32, 32)                stem="imagenet": image (N, C, 224, 224)
  stem   3×3, stride 1 → (N,   32, 32, 32)          stride 2 → (N,   32, 112, 112)
  1 ×  16, expansion 1 → (N,   16, 32, 32)                   → (N,   16, 112, 112)
  2 ×  24, stride 1    → (N,   24, 32, 32)          stride 2 → (N,   24,  56,  56)
  3 ×  32, stride 2    → (N,   32, 16, 16)                   → (N,   32,  28,  28)
  4 ×  64, stride 2    → (N,   64,  8,  8)                   → (N,   64,  14,  14)
  3 ×  96              → (N,   96,  8,  8)                   → (N,   96,  14,  14)
  3 × 160, stride 2    → (N,  160,  4,  4)                   → (N,  160,   7,   7)
  1 × 320              → (N,  320,  4,  4)                   → (N,  320,   7,   7)
  top    1×1           → (N, 1280,  4,  4)                   → (N, 1280,   7,   7)
  mean over H and W, dropout, fc                             → (N, classes)
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import AverageVector, check_image, choose, conv_bn, initialise
from leancnn.models._base import Card, register
from leancnn.models._widths import eights

STEM = 32
STAGES = (  # expansion, width, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TOP = 1280


class InvertedResidual(nn.Module):
    """1×1 up, depthwise 3×3, linear 1×1 down: (N, c_in, H, W) → (N, c_out, H/s, W/s)."""

    def __init__(self, c_in: int, c_out: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        mid = expansion * c_in
        self.residual = stride == 1 and c_in == c_out
        self.expand = conv_bn(c_in, mid, 1, act=nn.ReLU6) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn(mid, mid, 3, stride=stride, groups=mid, act=nn.ReLU6)
        self.project = conv_bn(mid, c_out, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        h = self.project(self.depthwise(self.expand(x)))
        out: Tensor = x + h if self.residual else h
        return out


class MobileNetV2(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(
        self, *, classes: int, channels: int, width: float, stem: str, dropout: float, init: str
    ) -> None:
        super().__init__()
        choose(stem, ("imagenet", "cifar"), "stem")
        if width <= 0:
            raise MismatchError(f"MobileNetV2 needs a width above 0, not {width}")
        self.channels = channels
        top = eights(TOP * max(width, 1))  # a narrow network keeps it, as in the authors' code
        small = stem == "cifar"
        c_in = eights(STEM * width)
        self.stem = conv_bn(channels, c_in, 3, stride=1 if small else 2, act=nn.ReLU6)
        blocks = []
        for stage, (expansion, usual, count, first) in enumerate(STAGES):
            c_out = eights(usual * width)
            for index in range(count):
                stride = 1 if index or (small and stage == 1) else first
                blocks.append(InvertedResidual(c_in, c_out, expansion=expansion, stride=stride))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.top = conv_bn(c_in, top, 1, act=nn.ReLU6)
        self.pool = AverageVector()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(top, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "MobileNetV2", channels=self.channels)
        out: Tensor = self.dropout(self.pool(self.top(self.blocks(self.stem(x)))))  # (N, 1280)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def mobilenetv2(
    *,
    classes: int = 10,
    channels: int = 3,
    width: float = 1.0,
    stem: Literal["imagenet", "cifar"] = "cifar",
    dropout: float = 0.2,
    init: Literal["kaiming", "gaussian001"] = "kaiming",
) -> nn.Module:
    """MobileNetV2, all widths but the last multiplied by `width` and rounded to eights."""
    return MobileNetV2(
        classes=classes, channels=channels, width=width, stem=stem, dropout=dropout, init=init
    )


_SOURCE = "Sandler et al., MobileNetV2, CVPR 2018, Table 2"
register(
    Card(
        name="mobilenetv2",
        source=_SOURCE,
        image=(3, 32, 32),
        classes=10,
        trainable=2_236_682,
        macs=87_976_448,
        buffers=34_112,
        published="LB-MBNet paper, Table 4: 2.2 M, 0.88e8 FLOPs, 91.93 %",
        differs="that 0.88e8 counts MACs, other rows of the table 2 per MAC",
        search={"width": (0.35, 0.5, 0.75, 1.0), "stem": ("cifar", "imagenet")},
    ),
    mobilenetv2,
)
register(
    Card(
        name="mobilenetv2_224",
        source=_SOURCE,
        image=(3, 224, 224),
        classes=1000,
        trainable=3_504_872,
        macs=300_774_272,
        buffers=34_112,
        published="3.4 M parameters, 300 M multiply-adds",
    ),
    mobilenetv2,
    stem="imagenet",
)
