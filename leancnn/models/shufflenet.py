"""ShuffleNet as the HENet paper compares with it: three groups, widths 24 to 192, for 31×31.

Source: "HENet: A Highly Efficient Convolutional Neural Networks Optimized for Accuracy, Speed and
Storage", Tables 3-5; the units are those of Zhang et al., ShuffleNet, CVPR 2018. The paper gives no
layer table: of the readings we searched, only this one has all eight of its CIFAR-10 figures.

image (N, C, 31, 31)
  conv1    3×3                                                       → (N,  24, 31, 31)
  stage 1  one unit without shortcut, `repeat` − 1 units             → (N,  48, 31, 31)
  stage 2  stride 2, `repeat` units                                  → (N,  96, 15, 15)
  stage 3  stride 2, `repeat` units                                  → (N, 192,  7,  7)
  mean over H and W, fc                                              → (N, classes)
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import AverageVector, ShuffleUnit, check_image, conv_bn, initialise
from leancnn.models._base import Card, register

GROUPS = 3
STAGES = 3
FACTOR = 2  # a unit's middle is half as wide as its branch's output
WIDTH = 24  # of conv1; each stage is twice as wide as what it reads
SEARCH = {"repeat": (1, 2, 3, 4, 5), "width": (12, 18, 24, 36, 48)}
SMALLEST = 7  # two stride-2 steps without padding: 7 → 3 → 1


class ShuffleNet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, repeat: int, width: int, init: str) -> None:
        super().__init__()
        if repeat < 1:
            raise MismatchError(f"ShuffleNet needs repeat of 1 or more, not {repeat}")
        if width < GROUPS or width % GROUPS:
            raise MismatchError(f"ShuffleNet needs a width of whole {GROUPS}s, not {width}")
        self.channels = channels
        self.stem = conv_bn(channels, width, 3)
        units = []
        c_in = width
        for stage in range(STAGES):
            c_out = 2 * width << stage
            for stride in [1] * repeat if stage == 0 else [2] + [1] * repeat:
                mid = (c_out if stride == 1 else c_out - c_in) // FACTOR
                units.append(ShuffleUnit(c_in, c_out, mid, stride=stride, groups=GROUPS, padding=0))
                c_in = c_out
        self.units = nn.Sequential(*units)
        self.pool = AverageVector()
        self.fc = nn.Linear(c_in, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "ShuffleNet", channels=self.channels, smallest=SMALLEST)
        out: Tensor = self.pool(self.units(self.stem(x)))  # (N, 192)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def shufflenet(
    *,
    classes: int = 10,
    channels: int = 3,
    repeat: int = 3,
    width: int = WIDTH,
    init: Literal["gaussian001", "kaiming"] = "kaiming",
) -> nn.Module:
    """The HENet paper's ShuffleNet with `repeat` stride-1 units in each of three stages."""
    return ShuffleNet(classes=classes, channels=channels, repeat=repeat, width=width, init=init)


for _repeat, _trainable, _macs, _buffers, _printed in (
    (2, 45_466, 6_143_136, 3_312, "357K parameters, 6.1 MFLOPs"),
    (3, 64_450, 8_521_608, 4_656, "515K parameters, 8.5 MFLOPs"),
    (4, 83_434, 10_900_080, 6_000, "674K parameters, 10.9 MFLOPs"),
    (5, 102_418, 13_278_552, 7_344, "833K parameters, 13.3 MFLOPs"),
):
    register(
        Card(
            name=f"shufflenet_r{_repeat}",
            source="HENet paper, Tables 3-5; units of Zhang et al., ShuffleNet, CVPR 2018",
            image=(3, 31, 31),
            classes=10,
            trainable=_trainable,
            macs=_macs,
            buffers=_buffers,
            smallest=SMALLEST,
            published=_printed,
            differs="that parameter count ignores the groups; MFLOPs there are MACs, and agree",
            search=SEARCH if _repeat == 3 else {},
        ),
        shufflenet,
        repeat=_repeat,
    )
