"""NVMNet: SqueezeNet's modules with grouped 1×1 convolutions and a channel shuffle.

Source: the NVM paper, Table 2 (layers), Table 5 (group counts), sections 4.1 and 4.2 (batch norm,
shuffle, softmax + centre loss). "NVM k" is the paper's numbering.

image (N, C, 224, 224)
  conv1     3×3, stride 2, no padding, ReLU            → (N,  64, 111, 111)
  pool      3×3, stride 2                              → (N,  64,  55,  55)
  NVM 2-3   squeeze to 16, expand to 64 + 64           → (N, 128,  55,  55)
  pool                                                 → (N, 128,  27,  27)
  NVM 4-5   32, 128 + 128                              → (N, 256,  27,  27)
  pool                                                 → (N, 256,  13,  13)
  NVM 6-7   48, 192 + 192                              → (N, 384,  13,  13)
  NVM 8     64, 256 + 256                              → (N, 512,  13,  13)
  pool                                                 → (N, 512,   6,   6)
  NVM 11-13 64, 256 + 256 (`last_stage` of them)       → (N, 512,   6,   6)
  mean over H and W (what the centre loss sees), fc    → (N, classes)

The paper does not say whether the squeeze has a bias before its batch norm (`squeeze_bias`). With
`small`, for images of about 32×32, conv1 keeps the size and only the pools after NVM 3 and 5
remain.

The paper prints 3.31 / 3.12 / 3.01 / 2.88 "M" for g = 2 / 4 / 8 / 16. As millions of parameters no
arrangement of its layers comes near. As megabytes of float32, 40 classes and nine modules
(`last_stage=2`, bn="none"), they are 3.333 / 3.119 / 3.012 / 2.958. Table 2 prints ten modules, our
default: without batch norm 4.023 / 3.760 / 3.628 / 3.563.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.layers import AverageVector, SqueezeExpand, check_image, grouped_conv, initialise
from leancnn.models._base import Card, register

STEM = 64
SEARCH = {"groups": (1, 2, 4, 8, 16), "last_stage": (1, 2, 3), "small": (True, False)}
STAGES = (  # (squeeze, expand) of each module; a pool stands between the stages
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256)),
    ((64, 256),),  # as often as `last_stage` says
)
STEM_PADDING = {3: 0, 7: 2}  # both take 224 to 111
SMALLEST = 63  # conv1 and four pools without padding: 63 → 31 → 15 → 7 → 3 → 1
SMALLEST_SMALL = 7  # two pools: 7 → 3 → 1


def _modules_and_pools(
    module: Callable[..., SqueezeExpand], stages: Sequence[Sequence[tuple[int, int]]], small: bool
) -> Iterator[nn.Module]:
    """The modules of each stage behind a pool; small images are pooled twice only."""
    c_in = STEM
    for index, modules in enumerate(stages):
        if not small or index in (1, 2):
            yield nn.MaxPool2d(3, 2)
        for squeeze, expand in modules:
            yield module(c_in, squeeze, expand)
            c_in = 2 * expand


class NVMNet(nn.Module):
    """Images (N, channels, H, W), normalised, to logits (N, classes); see the file's table."""

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        groups: int,
        last_stage: int,
        stem: int,
        bn: str,
        squeeze_bias: bool,
        small: bool,
        init: str,
    ) -> None:
        super().__init__()
        if last_stage < 1:
            raise MismatchError(f"NVMNet needs last_stage of 1 or more, not {last_stage}")
        if stem not in STEM_PADDING:
            raise MismatchError(f"NVMNet's first kernel is 3 or 7 wide, not {stem}")
        self.channels = channels
        self.smallest = SMALLEST_SMALL if small else SMALLEST
        stride, padding = (1, stem // 2) if small else (2, STEM_PADDING[stem])
        self.conv1 = grouped_conv(channels, STEM, stem, stride=stride, padding=padding, bias=True)
        self.bn1 = nn.BatchNorm2d(STEM) if bn == "all" else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        module = partial(SqueezeExpand, groups=groups, bn=bn, squeeze_bias=squeeze_bias)
        stages = (*STAGES[:-1], STAGES[-1] * last_stage)
        self.modules_and_pools = nn.Sequential(*_modules_and_pools(module, stages, small))
        self.pool = AverageVector()
        self.fc = nn.Linear(2 * STAGES[-1][-1][1], classes)
        initialise(self, init)

    def features(self, x: Tensor) -> Tensor:
        check_image(x, "NVMNet", channels=self.channels, smallest=self.smallest)
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.pool(self.modules_and_pools(x))  # (N, 512)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def nvmnet(
    *,
    classes: int = 40,
    channels: int = 3,
    groups: int = 4,
    last_stage: int = 3,
    stem: Literal[3, 7] = 3,
    bn: Literal["squeeze", "all", "none"] = "squeeze",
    squeeze_bias: bool = True,
    small: bool = False,
    init: Literal["fan_in", "kaiming"] = "fan_in",
) -> nn.Module:
    """NVMNet with `groups` groups in its 1×1 convolutions: 1, 2, 4, 8 or 16."""
    return NVMNet(
        classes=classes,
        channels=channels,
        groups=groups,
        last_stage=last_stage,
        stem=stem,
        bn=bn,
        squeeze_bias=squeeze_bias,
        small=small,
        init=init,
    )


_fits = "M are megabytes, and fit nine modules without batch norm (last_stage=2)"
_no_fit = "M are megabytes; nine modules without batch norm (last_stage=2) have 2.96"
for _groups, _trainable, _macs, _published in (
    (1, 1_138_280, 250_651_328, ""),
    (2, 1_006_696, 225_173_696, "3.31 M, 71.42 ± 0.21 % on ORL"),
    (
        4,
        940_904,
        212_434_880,
        "3.12 M, 70.91 ± 0.06 % on ORL (Table 5); 3.27 M, 70.82 ± 0.02 %, without batch norm "
        "70.16 ± 0.13 % (Table 4); 3.21 M, computation 0.3 (Table 6)",
    ),
    (8, 908_008, 206_065_472, "3.01 M, 70.69 ± 0.09 % on ORL"),
    (16, 891_560, 202_880_768, '2.88 M, 70.64 ± 0.14 % on ORL (in the row of g = "6")'),
):
    register(
        Card(
            name=f"nvmnet_g{_groups}",
            source="NVM paper, Tables 2 and 5",
            image=(3, 224, 224),
            classes=40,
            trainable=_trainable,
            macs=_macs,
            buffers=896,
            smallest=SMALLEST,
            published=_published,
            differs=_no_fit if _groups == 16 else _fits if _published else "",
            search=SEARCH if _groups == 4 else {},
        ),
        nvmnet,
        groups=_groups,
    )
