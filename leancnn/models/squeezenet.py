"""SqueezeNet: fire modules, a convolution as classifier, no fully connected layer.

Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB
model size", 2016, Table 1 (1.0); the authors' release of version 1.1, which pools earlier.

version 1.0: image (N, C, 224, 224)
  conv1    7×7, stride 2, ReLU; pool 3×3, stride 2         → (N,  96, 54, 54)
  fire     16, 64 + 64 · 16, 64 + 64 · 32, 128 + 128; pool → (N, 256, 27, 27)
  fire     32, 128 + 128 · 48, 192 + 192 (twice) · 64, 256 + 256; pool → (N, 512, 13, 13)
  fire     64, 256 + 256                                   → (N, 512, 13, 13)
  dropout, conv10 1×1, ReLU, mean over H and W             → (N, classes)
version 1.1: image (N, C, 224, 224)
  conv1    3×3, stride 2, ReLU; pool                       → (N,  64, 55, 55)
  fire     16, 64 + 64 (twice); pool                       → (N, 128, 27, 27)
  fire     32, 128 + 128 (twice); pool                     → (N, 256, 13, 13)
  fire     48, 192 + 192 (twice) · 64, 256 + 256 (twice)   → (N, 512, 13, 13)
  classifier as above

Pools round up. No batch norm, as in the paper; `bn` adds some for training on little data.
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.layers import (
    SqueezeExpand,
    check_image,
    choose,
    grouped_conv,
    initialise,
)
from leancnn.models._base import Card, register

STEM = {"1.0": (7, 96), "1.1": (3, 64)}  # kernel, width
STAGES = {  # (squeeze, expand) of each fire module; a pool stands before each stage
    "1.0": (
        ((16, 64), (16, 64), (32, 128)),
        ((32, 128), (48, 192), (48, 192), (64, 256)),
        ((64, 256),),
    ),
    "1.1": (
        ((16, 64), (16, 64)),
        ((32, 128), (32, 128)),
        ((48, 192), (48, 192), (64, 256), (64, 256)),
    ),
}
SMALLEST = {"1.0": 21, "1.1": 17}


class ConvClassifier(nn.Module):
    """A 1×1 convolution as classifier: (N, in_features, H, W) → (N, out_features), averaged."""

    def __init__(self, in_features: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv = grouped_conv(in_features, out_features, 1, bias=True)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)

    @property
    def in_features(self) -> int:
        """As many as there are now: pruning takes some."""
        return self.conv.in_channels

    @property
    def out_features(self) -> int:
        """The classes."""
        return self.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.relu(self.conv(self.dropout(x)))).flatten(1)
        return out


class SqueezeNet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(
        self, *, classes: int, channels: int, version: str, bn: str, dropout: float, init: str
    ) -> None:
        super().__init__()
        choose(version, tuple(STAGES), "version")
        self.channels = channels
        self.version = version
        kernel, width = STEM[version]
        self.conv1 = grouped_conv(channels, width, kernel, stride=2, bias=True)
        self.bn1 = nn.BatchNorm2d(width) if bn == "all" else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        parts: list[nn.Module] = []
        for stage in STAGES[version]:
            parts.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in stage:
                parts.append(SqueezeExpand(width, squeeze, expand, bn=bn))
                width = 2 * expand
        self.fires = nn.Sequential(*parts)
        self.fc = ConvClassifier(width, classes, dropout)
        initialise(self, init)
        nn.init.normal_(self.fc.conv.weight, std=0.01)

    def features(self, x: Tensor) -> Tensor:
        smallest = SMALLEST[self.version]
        check_image(x, "SqueezeNet", channels=self.channels, smallest=smallest)
        out: Tensor = self.fires(self.relu(self.bn1(self.conv1(x))))  # (N, 512, H/16, W/16)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def squeezenet(
    *,
    classes: int = 1000,
    channels: int = 3,
    version: Literal["1.0", "1.1"] = "1.0",
    bn: Literal["none", "squeeze", "all"] = "none",
    dropout: float = 0.5,
    init: Literal["fan_in", "kaiming"] = "fan_in",
) -> nn.Module:
    """SqueezeNet without bypasses."""
    return SqueezeNet(
        classes=classes, channels=channels, version=version, bn=bn, dropout=dropout, init=init
    )


for _version, _trainable, _macs, _published, _differs in (
    (
        "1.0",
        1_248_424,
        818_924_576,
        "NVM paper, Table 6: 1.24 M, 0.70; Table 4: 4.81 M, 71.25 ± 0.04 % on ORL",
        "1.24 truncates; 4.81 is a file of megabytes; 0.70 is 2 × 0.349 GMAC, version 1.1's",
    ),
    (
        "1.1",
        1_235_496,
        349_151_936,
        "NVM paper, Table 6: 1.24 M, 0.70",
        "0.70 is 2 × 0.349 GMAC",
    ),
):
    register(
        Card(
            name=f"squeezenet{_version.replace('.', '_')}",
            source="Iandola et al., SqueezeNet, 2016, Table 1",
            image=(3, 224, 224),
            classes=1000,
            trainable=_trainable,
            macs=_macs,
            smallest=SMALLEST[_version],
            published=_published,
            differs=_differs,
            search={"version": ("1.0", "1.1"), "bn": ("all",)} if _version == "1.1" else {},
        ),
        squeezenet,
        version=_version,
    )
