"""SSVEPNet: the papers' block, groups, shuffle and depthwise, on an image of correlations.

Source: none prints this network. The NVM paper's conclusion sketches a brain-computer interface of
five parts (visual trigger, acquisition, preprocessing, convolutional classifier, display) and
prints no figure of it. All five are built (docs/eeg.md): a page that flickers, LSL and BrainFlow,
causal sub-bands, this network, terminal and page. Recordings of people were decoded, nobody's live.
The block is the one of the HENet and NVM papers, and the image is `leancnn.eeg.features`: canonical
correlations of a window of EEG, ten planes (two numbers of harmonics in five sub-bands), a row for
each candidate frequency, nine columns from 1 Hz below it to 1 Hz above. Kernels are one row high,
so candidates share all weights but a bias.

features (N, 10, K, 9)
  mix     1×1 in 5 groups, one a sub-band → shuffle → depthwise 1×3   → (N, 40, K, 9)
  mix     1×1 in 5 groups                 → shuffle → depthwise 1×3   → (N, 40, K, 9)
  mix     1×1 in 5 groups                                             → (N, 40, K, 9)
  head    1×9, what is left of a row                                  → (N,  1, K, 1)
  skip    1×9 from the input, added: starts as FBCCA's weighted sum   → (N,  1, K, 1)
  bias    one for each candidate                                      → (N, classes), K = classes
"""

import torch
from torch import Tensor, fx, nn

from leancnn.errors import MismatchError
from leancnn.layers import ChannelShuffle, conv_bn, grouped_conv, initialise
from leancnn.models._base import Card, register

PLANES = 10
OFFSETS = 9
BANDS = 5
WIDTH = 40


class CandidateBias(nn.Module):
    """A number per row (N, 1, K, 1) and a bias per candidate, to logits (N, K)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.in_features, self.out_features = 1, classes
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + self.bias


class SSVEPNet(nn.Module):
    """Features (N, channels, classes, 9), normalised, to logits (N, classes)."""

    def __init__(
        self, *, classes: int, channels: int, width: int, groups: int, fbcca_start: bool
    ) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.body = nn.Sequential(
            conv_bn(channels, width, 1, groups=groups),
            ChannelShuffle(groups),
            conv_bn(width, width, (1, 3), groups=width),
            conv_bn(width, width, 1, groups=groups),
            ChannelShuffle(groups),
            conv_bn(width, width, (1, 3), groups=width),
            conv_bn(width, width, 1, groups=groups),
        )
        self.head = grouped_conv(width, 1, (1, OFFSETS), bias=True)
        self.skip = grouped_conv(channels, 1, (1, OFFSETS), bias=True)
        self.fc = CandidateBias(classes)
        initialise(self, "kaiming")
        for row in (self.head, self.skip):  # as the linear layers of other networks
            nn.init.normal_(row.weight, std=0.01)
        if fbcca_start:
            start_as_fbcca(self.skip)

    def features(self, x: Tensor) -> Tensor:
        self._check(x)
        out: Tensor = self.head(self.body(x)) + self.skip(x)  # (N, 1, K, 1)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits

    def _check(self, x: Tensor | fx.Proxy) -> None:
        if isinstance(x, fx.Proxy):
            return
        if len(x.shape) != 4:
            raise MismatchError(f"SSVEPNet needs (N, C, K, 9), not a shape of {tuple(x.shape)}")
        if x.shape[1] != self.channels:
            raise MismatchError(
                f"SSVEPNet was built for {self.channels} channels, not {x.shape[1]}"
            )
        if tuple(x.shape[2:]) != (self.classes, OFFSETS):
            raise MismatchError(
                f"SSVEPNet needs {self.classes} candidates by {OFFSETS} offsets, not "
                f"{x.shape[2]} by {x.shape[3]}"
            )


def start_as_fbcca(skip: nn.Conv2d) -> None:
    """Add the planes at the candidate itself, the sub-band n with weight n^-0.5, halved."""
    planes = skip.in_channels
    bands = torch.arange(planes) // max(planes // BANDS, 1) + 1
    with torch.no_grad():
        skip.weight[0, :, 0, OFFSETS // 2] += bands.to(skip.weight) ** -0.5 / 2


def ssvepnet(
    *,
    classes: int = 3,
    channels: int = PLANES,
    width: int = WIDTH,
    groups: int = BANDS,
    fbcca_start: bool = True,
) -> nn.Module:
    """SSVEPNet for `classes` candidate frequencies; `fbcca_start` is how its skip begins."""
    return SSVEPNet(
        classes=classes, channels=channels, width=width, groups=groups, fbcca_start=fbcca_start
    )


register(
    Card(
        name="ssvepnet",
        source="none: the block of the HENet and NVM papers on correlations of EEG",
        image=(PLANES, 3, OFFSETS),
        classes=3,
        trainable=1_815,
        macs=27_270,
        buffers=400,
        differs="the NVM paper's conclusion names such a classifier and prints no figure of it",
    ),
    ssvepnet,
)
