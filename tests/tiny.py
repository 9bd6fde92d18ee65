"""A network and a data set that train in a second, for tests of training, children included."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from leancnn.models._base import Card, networks, register
from leancnn.recipes import Recipe


class Tiny(nn.Module):
    """(N, C, 8, 8) → (N, classes), with what can break a resume: batch norm and dropout."""

    def __init__(self, classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8 * 16, width)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        return self.dropout(torch.relu(self.hidden(x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def tiny(*, classes: int = 3, channels: int = 3, width: int = 16) -> nn.Module:
    return Tiny(classes, channels, width)


if "tiny" not in networks:
    register(
        Card(
            name="tiny", source="none: for tests", image=(3, 8, 8), classes=3, trainable=0, macs=0
        ),
        tiny,
    )

RECIPE = Recipe(
    name="tiny",
    source="none: for tests",
    network="tiny",
    epochs=4,
    batch=16,
    lr=0.05,
    schedule="one-cycle",
    warmup=0.25,
    ema=0.9,
    clip=5.0,
    label_smoothing=0.1,
    scale=(10, 10),
    pad=1,
    flip=True,
    cutout=2,
    precision="fp32",
    backend="torch",
)


def make_pictures(folder: Path, *, each: int = 32, classes: int = 3) -> Path:
    """Class folders with small noisy stripes: horizontal, vertical, flat."""
    random = np.random.default_rng(7)
    for label in range(classes):
        place = folder / f"class {label}"
        place.mkdir(parents=True)
        for number in range(each):
            image = random.integers(0, 90, (10, 10, 3), dtype=np.uint8)
            if label == 0:
                image[::2] += 120
            if label == 1:
                image[:, ::2] += 120
            Image.fromarray(image).save(place / f"{number}.png")
    return folder
