"""HENet: grouped convolutions in complementary group counts, a full shuffle, sum-and-concat skips.

Source: "HENet: A Highly Efficient Convolutional Neural Networks Optimized for Accuracy, Speed and
Storage", Tables 1-3 and Eq. 1, 5, 6, with the authors' Caffe deploy files (repeat 2 and 3), which
decide where they differ from the paper.

image (N, C, 31, 31)
  conv1    3×3                                       → (N,  24, 31, 31)
  stage 1  `repeat` blocks of 24, then stride 2      → (N,  48, 15, 15)
  stage 2  `repeat` blocks of 48, then stride 2      → (N,  96,  7,  7)
  stage 3  `repeat` blocks of 96, then stride 2      → (N,  96,  3,  3)
  stage 4  stride 2 only                             → (N, 192,  1,  1)
  fc                                                 → (N, classes)

The paper's "#param" (507K, 641K, 775K) counts every convolution as if it had one group, and its
MFLOPs are MACs. Truly trainable are 68,626, 87,058 and 105,490 weights with 10 classes. Its HENet
r2 then has 67.0 % of the weights of ShuffleNet r5 (printed: 60.9 %), and at equal repeat HENet has
1.51, 1.35 and 1.26 times as many (printed: 1.42, 1.24, 1.15). Table 1 lets the first block of a
stage read 2C channels; the files, and we, let it read C.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import AverageVector, ChannelShuffle, check_image, grouped_conv, initialise
from leancnn.models._base import Card, register

WIDTH = 24  # of the first stage, of which all others are multiples
STAGES = (1, 2, 4)  # width of the stride-1 blocks, in first stages
DOWN = (
    (2, 1, 2),
    (4, 2, 4),
    (8, 2, 4),
    (4, 4, 8),
)  # in, mid, out; the third is irregular in the file
SMALLEST = 31  # four stride-2 convolutions without padding: 31 → 15 → 7 → 3 → 1
SEARCH = {"repeat": (1, 2, 3, 4, 5, 6), "width": (12, 20, 24, 30, 40, 48)}
LARGEST = 46  # 46 → 22 → 10 → 4 → 1; from 47 on the last map is larger than 1×1


def complementary_groups(width: int) -> tuple[int, int]:
    """The pair (m, n) with m·n = width, m > n and m − n minimal (Eq. 1), as 24 → (6, 4)."""
    n = next(n for n in range(math.isqrt(width), 0, -1) if width % n == 0 and n * n < width)
    return width // n, n


class Block(nn.Module):
    """Stride 1: 1×1 in m groups, shuffle, 3×3 in n groups; (N, c_in, H, W) → (N, width, H, W).

    No activation after the 1×1. After the shuffle each of the n groups holds one channel of each of
    the m.
    """

    def __init__(self, c_in: int, width: int, *, conv_bias: bool) -> None:
        super().__init__()
        m, n = complementary_groups(width)
        self.mix = grouped_conv(c_in, width, 1, groups=m, bias=conv_bias)
        self.mix_bn = nn.BatchNorm2d(width)
        self.shuffle = ChannelShuffle(m)
        self.conv = grouped_conv(width, width, 3, groups=n, padding=1, bias=conv_bias)
        self.conv_bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffle(self.mix_bn(self.mix(x)))
        out: Tensor = self.relu(self.conv_bn(self.conv(x)))
        return out


class Down(nn.Module):
    """Stride 2: 3×3 in m groups without padding, shuffle, 1×1 in n groups.

    (N, c_in, H, W) → (N, c_out, ⌊(H−1)/2⌋, ⌊(W−1)/2⌋)
    """

    def __init__(self, c_in: int, mid: int, c_out: int, *, conv_bias: bool) -> None:
        super().__init__()
        m, n = complementary_groups(mid)
        self.conv = grouped_conv(c_in, mid, 3, groups=m, stride=2, bias=conv_bias)
        self.conv_bn = nn.BatchNorm2d(mid)
        self.shuffle = ChannelShuffle(m)
        self.mix = grouped_conv(mid, c_out, 1, groups=n, bias=conv_bias)
        self.mix_bn = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffle(self.conv_bn(self.conv(x)))
        out: Tensor = self.relu(self.mix_bn(self.mix(x)))
        return out


class Stage(nn.Module):
    """`repeat` blocks under the skip rule of Eq. 5 and 6; (N, width, H, W) → (N, 2·width, H, W).

    With h_l the output of block l: X_l = X_{l−1} + h_l with X_0 the stage's input, and the next
    block reads [X_l, h_l].
    """

    def __init__(self, width: int, repeat: int, *, conv_bias: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width if index == 0 else 2 * width, width, conv_bias=conv_bias)
            for index in range(repeat)
        )

    def forward(self, x: Tensor) -> Tensor:
        total, read = x, x
        for block in self.blocks:
            h = block(read)
            total = total + h
            read = torch.cat([total, h], 1)  # (N, 2·width, H, W)
        return read


class HENet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table.

    H and W from 31 to 46 end as one pixel. Larger ones need `allow_any_size`, which averages what
    is left; the specification leaves them open.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        repeat: int,
        width: int,
        conv_bias: bool,
        init: str,
        allow_any_size: bool,
    ) -> None:
        super().__init__()
        if repeat < 1:
            raise MismatchError(f"HENet needs repeat of 1 or more, not {repeat}")
        if width < 2:
            raise MismatchError(f"HENet needs a width of 2 or more, not {width}")
        stages = [width * times for times in STAGES]
        downs = [[width * times for times in row] for row in DOWN]
        self.allow_any_size = allow_any_size
        self.conv1 = grouped_conv(channels, width, 3, padding=1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.stages = nn.ModuleList(Stage(each, repeat, conv_bias=conv_bias) for each in stages)
        self.downs = nn.ModuleList(Down(*row, conv_bias=conv_bias) for row in downs)
        self.pool = AverageVector()
        self.fc = nn.Linear(downs[-1][-1], classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        largest = None if self.allow_any_size else LARGEST
        check_image(x, "HENet", channels=self.conv1.in_channels, smallest=SMALLEST, largest=largest)
        x = self.relu(self.bn1(self.conv1(x)))
        for stage, down in zip(self.stages, self.downs, strict=False):
            x = down(stage(x))
        out: Tensor = self.pool(self.downs[-1](x))  # (N, 192)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def henet(
    *,
    classes: int = 10,
    channels: int = 3,
    repeat: int = 3,
    width: int = WIDTH,
    conv_bias: bool = True,
    init: Literal["gaussian001", "kaiming"] = "kaiming",
    allow_any_size: bool = False,
) -> nn.Module:
    """HENet with `repeat` stride-1 blocks in each of three stages."""
    return HENet(
        classes=classes,
        channels=channels,
        repeat=repeat,
        width=width,
        conv_bias=conv_bias,
        init=init,
        allow_any_size=allow_any_size,
    )


for _repeat, _trainable, _macs, _buffers, _printed in (
    (2, 68_626, 7_125_576, 2_688, "507K parameters, 7.3 MFLOPs"),
    (3, 87_058, 10_046_040, 3_360, "641K parameters, 10.2 MFLOPs"),
    (4, 105_490, 12_966_504, 4_032, "775K parameters, 13.2 MFLOPs"),
):
    register(
        Card(
            name=f"henet_r{_repeat}",
            source="HENet paper, Tables 1-3, and the authors' Caffe files",
            image=(3, 31, 31),
            classes=10,
            trainable=_trainable,
            macs=_macs,
            buffers=_buffers,
            smallest=SMALLEST,
            published=_printed,
            differs="that parameter count ignores the groups; MFLOPs there are MACs, with every "
            "first block of a stage read as wide as the others",
            search=SEARCH if _repeat == 3 else {},
        ),
        henet,
        repeat=_repeat,
    )
