"""AlexNet in the one-column form: five convolutions, three linear layers.

Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, with
the widths 64, 192, 384, 256, 256 that reproduce the 61.1 million parameters everybody cites;
Krizhevsky, Sutskever and Hinton, 2012.

image (N, C, 224, 224)
  conv1   11×11, stride 4, padding 2, ReLU; pool 3×3, stride 2   → (N,  64, 27, 27)
  conv2   5×5, ReLU; pool                                        → (N, 192, 13, 13)
  conv3-5 3×3, ReLU, to 384, 256, 256; pool                      → (N, 256,  6,  6)
  mean to 6×6 for other image sizes, flatten                     → (N, 9216)
  dropout, fc6, ReLU, dropout, fc7, ReLU                         → (N, 4096)
  fc                                                             → (N, classes)
"""

from typing import Literal

from torch import Tensor, nn

from leancnn.layers import check_image, grouped_conv, initialise
from leancnn.models._base import Card, register

CONVS = (  # width, kernel, stride, padding, pool after it
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
SIDE = 6  # of the last map
HIDDEN = 4096
SMALLEST = 63


class AlexNet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(self, *, classes: int, channels: int, dropout: float, init: str) -> None:
        super().__init__()
        self.channels = channels
        parts: list[nn.Module] = []
        c_in = channels
        for width, kernel, stride, padding, pooled in CONVS:
            parts.append(
                grouped_conv(c_in, width, kernel, stride=stride, padding=padding, bias=True)
            )
            parts.append(nn.ReLU(inplace=True))
            if pooled:
                parts.append(nn.MaxPool2d(3, 2))
            c_in = width
        self.convs = nn.Sequential(*parts)
        self.pool = nn.AdaptiveAvgPool2d(SIDE)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(c_in * SIDE * SIDE, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
        )
        self.fc = nn.Linear(HIDDEN, classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "AlexNet", channels=self.channels, smallest=SMALLEST)
        out: Tensor = self.hidden(self.pool(self.convs(x)))  # (N, 4096)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def alexnet(
    *,
    classes: int = 1000,
    channels: int = 3,
    dropout: float = 0.5,
    init: Literal["fan_in", "gaussian001"] = "fan_in",
) -> nn.Module:
    """AlexNet without local response normalisation."""
    return AlexNet(classes=classes, channels=channels, dropout=dropout, init=init)


register(
    Card(
        name="alexnet",
        source="Krizhevsky, One weird trick for parallelizing CNNs, 2014",
        image=(3, 224, 224),
        classes=1000,
        trainable=61_100_840,
        macs=714_188_480,
        smallest=SMALLEST,
        published="NVM paper, Table 6: 61.18 M, 0.73",
        differs="0.13 % fewer; 0.73 is GMAC",
    ),
    alexnet,
)
