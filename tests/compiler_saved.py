"""A saved network that compiles in a moment."""

import torch
from torch import nn

from leancnn import models
from leancnn.models._base import Card, register
from leancnn.models._base import networks as shelf
from leancnn.preprocess import Preprocessing
from leancnn.weights import Network
from tests.compiler_nets import settled

CARD = Card(name="speck", source="none: for tests", image=(3, 8, 8), classes=3, trainable=0, macs=0)


def speck(*, classes: int = 3, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    )


def on_shelf():
    """Put it on the shelf; the function that takes it off again."""
    register(CARD, speck)
    return lambda: shelf.pop("speck")


def network(classes=("cat", 'd"og', "ünd")):
    body = settled(models.create_model("speck", classes=len(classes)))
    with torch.no_grad():
        body[-1].weight.mul_(3)
    preprocessing = Preprocessing(size=(8, 8), channels=3)
    return Network(
        body,
        name="speck",
        arguments={},
        classes=classes,
        preprocessing=preprocessing,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.2),
    ).eval()
