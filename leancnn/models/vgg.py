"""VGG-16: thirteen 3×3 convolutions, three linear layers.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, Table 1, column D.

image (N, C, 224, 224)
  2 × conv 3×3 to  64, pool 2×2                        → (N,  64, 112, 112)
  2 × conv 3×3 to 128, pool                            → (N, 128,  56,  56)
  3 × conv 3×3 to 256, pool                            → (N, 256,  28,  28)
  3 × conv 3×3 to 512, pool                            → (N, 512,  14,  14)
  3 × conv 3×3 to 512, pool                            → (N, 512,   7,   7)
  mean to 7×7 for other image sizes, flatten           → (N, 25088)
  fc6, ReLU, dropout, fc7, ReLU, dropout               → (N, 4096)
  fc                                                   → (N, classes)
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.layers import check_image, grouped_conv, initialise
from leancnn.models._base import Card, register

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width, convolutions
SIDE = 7  # of the last map
HIDDEN = 4096
SMALLEST = 32


class VGG(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, dropout: float, init: str) -> None:
        super().__init__()
        self.channels = channels
        parts: list[nn.Module] = []
        c_in = channels
        for width, convs in STAGES:
            for _ in range(convs):
                parts += [grouped_conv(c_in, width, 3, padding=1, bias=True), nn.ReLU(inplace=True)]
                c_in = width
            parts.append(nn.MaxPool2d(2))
        self.convs = nn.Sequential(*parts)
        self.pool = nn.AdaptiveAvgPool2d(SIDE)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(c_in * SIDE * SIDE, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.fc = nn.Linear(HIDDEN, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "VGG", channels=self.channels, smallest=SMALLEST)
        out: Tensor = self.hidden(self.pool(self.convs(x)))  # (N, 4096)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def vgg16(
    *,
    classes: int = 1000,
    channels: int = 3,
    dropout: float = 0.5,
    init: Literal["fan_in", "gaussian001"] = "fan_in",
) -> nn.Module:
    """VGG-16, configuration D, without batch norm."""
    return VGG(classes=classes, channels=channels, dropout=dropout, init=init)


register(
    Card(
        name="vgg16",
        source="Simonyan and Zisserman, ICLR 2015, Table 1, column D",
        image=(3, 224, 224),
        classes=1000,
        trainable=138_357_544,
        macs=15_470_264_320,
        smallest=SMALLEST,
        published="NVM paper, Table 6: 138 M, 72",
        differs="no reading gives 72; it is 15.5 GMAC",
    ),
    vgg16,
)
