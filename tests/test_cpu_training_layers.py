"""Each layer that SIMD batches know against float64, in random networks and in those of the zoo."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from leancnn import models
from leancnn.cpu_training import accelerate, program
from leancnn.errors import MissingDependencyError
from leancnn.layers import RMAC, LocalBinaryConv2d, SqueezeExcite
from leancnn.toolchain import find_compiler
from tests.few import few

try:
    find_compiler()
except MissingDependencyError as error:
    pytest.skip(str(error), allow_module_level=True)

ACTS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid)


@pytest.fixture(autouse=True, scope="module")
def quick_kernels():
    """Compiled for a short wait, not for speed."""
    flags = program.FLAGS
    program.FLAGS = tuple("-O1" if flag == "-O3" else flag for flag in flags)
    program._library.cache_clear()
    yield
    program.FLAGS = flags
    program._library.cache_clear()


def passes(body, images, *, half=False):
    """Logits, gradients and buffers after a step: of float64, of torch, of SIMD batches."""
    found = []
    for kind in ("double", "torch", "simd"):
        twin = copy.deepcopy(body).train()
        run = accelerate(twin, half=half, threads=2) if kind == "simd" else twin
        x = images.double() if kind == "double" else images
        if kind == "double":
            twin.double()
        logits = run(x)
        F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1]).backward()
        assert not getattr(run, "why_not", "")
        gradients = torch.cat([p.grad.double().flatten() for p in twin.parameters()])
        buffers = torch.cat([torch.ones(1), *(b.double().flatten() for b in twin.buffers())])
        found.append((logits.detach().double(), gradients, buffers))
    return found


def far(one, other):
    """Distance of two vectors, relative to the second's length."""
    return ((one - other).norm() / other.norm()).item()


def check(body, images, times=3):
    """SIMD batches are within 2e-6 of exact arithmetic, or about as near as torch is."""
    exact, torchs, ours = passes(body, images)
    for part in range(3):
        error = far(torchs[part], exact[part])
        assert far(ours[part], exact[part]) < max(times * error, 2e-6)


class Gated(nn.Module):
    """What LB-MBNet, R-SeNet and MobileNetV3 are made of, with whatever widths are drawn."""

    def __init__(self, width, wide, kernel, stride, act, squeeze):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 0), nn.BatchNorm2d(width), act())
        self.wide = nn.Sequential(nn.Conv2d(width, wide, 1), nn.BatchNorm2d(wide), act())
        self.deep = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.fixed = LocalBinaryConv2d(wide)
        self.norm = nn.BatchNorm2d(2 * wide)  # over two convolutions side by side
        self.act = act()
        self.gate = SqueezeExcite(2 * wide, 5, act=act, gate=nn.Hardsigmoid, squeeze=squeeze)
        self.narrow = nn.Sequential(nn.Conv2d(2 * wide, wide, 1), nn.BatchNorm2d(wide))
        self.before = nn.Sequential(nn.BatchNorm2d(wide), nn.ReLU())  # as in ResNetV2
        self.last, self.beside = nn.Conv2d(wide, 18, 1), nn.Conv2d(wide, 18, 1)
        self.fc = nn.Linear(18, 4)

    def forward(self, x):
        x = self.wide(self.stem(x))
        y = self.deep(x)
        y = torch.cat([y, self.fixed(F.avg_pool2d(x, 2, 2) if y.shape != x.shape else x)], 1)
        y = self.narrow(self.gate(self.act(self.norm(y))))
        y = y + x if y.shape == x.shape else y
        y = self.last(self.before(y)) + F.silu(self.beside(y))
        return self.fc(y.mean((2, 3)))


@pytest.mark.parametrize(
    ("widths", "kernel", "act", "regional"),
    few(
        [
            ((17, 16), (3, 1), nn.SiLU, True),
            ((5, 19), (5, 2), nn.Hardswish, False),
            pytest.param((5, 16), (3, 2), nn.ReLU6, True, marks=pytest.mark.slow),
            pytest.param((17, 19), (5, 1), nn.Sigmoid, False, marks=pytest.mark.slow),
            pytest.param((5, 16), (3, 1), nn.Hardsigmoid, True, marks=pytest.mark.slow),
        ],
        rows=True,
    ),
)
def test_gated_units_are_as_near_to_exact_arithmetic_as_torch_is(widths, kernel, act, regional):
    torch.manual_seed(0)
    body = Gated(*widths, *kernel, act, RMAC() if regional else None)
    for batch in (16, 13, 21):
        check(body, torch.randn(batch, 3, 17, 13 if kernel[1] == 1 else 17))


KERNELS = [(1, 2, 0), (3, 3, 1), (5, 1, 2), (5, 2, 1), (7, 2, 3), (7, 1, 0), (11, 4, 2)]


class Windows(nn.Module):
    """Convolutions of all those kinds side by side."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, 1, 1)
        self.ways = nn.ModuleList(nn.Conv2d(4, 6, *kind, groups=2) for kind in KERNELS)

    def forward(self, x):
        x = F.silu(self.stem(x))
        x = x + F.avg_pool2d(x, 3, 1, 1)  # eight readers at most
        y = [way(x).mean((2, 3), keepdim=True) for way in self.ways]
        return torch.cat(y, 1).flatten(1)


@pytest.mark.long
def test_any_window_stride_and_border_agrees_with_exact_arithmetic():
    torch.manual_seed(0)
    body = Windows()
    for side in (14, 15, 19):
        check(body, torch.randn(11, 2, side, side + 1))


@settings(max_examples=12, deadline=None)
@given(
    widths=st.tuples(*[st.integers(16, 80)] * 3),
    groups=st.sampled_from([1, 2, 3]),
    side=st.integers(1, 5),
    batch=st.integers(1, 40),
)
def test_products_of_any_size_agree_with_exact_arithmetic(widths, groups, side, batch):
    torch.manual_seed(0)
    first, middle, last = (width * groups for width in widths)
    body = nn.Sequential(
        nn.Conv2d(first, middle, 1, bias=False, groups=groups),
        nn.SiLU(),
        nn.Conv2d(middle, last, 1, groups=groups),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    check(body, torch.randn(batch, first, side + 2, side))


def test_a_norm_of_a_batch_that_leaves_lanes_empty_counts_its_images_alone():
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 17, 1),
        nn.BatchNorm2d(17), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    for batch in (1, 3, 17):
        check(body, torch.randn(batch, 16, 4, 5) + 2)


def test_fixed_kernels_are_read_anew_in_each_pass():
    torch.manual_seed(0)
    binary = LocalBinaryConv2d(8)
    body = nn.Sequential(nn.Conv2d(3, 8, 1), binary, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    fast, images = accelerate(body), torch.randn(16, 3, 6, 6)
    for _ in range(2):
        binary.weight.copy_(binary.drawn(8))
        assert torch.allclose(fast(images), body(images), atol=1e-6)
        assert not fast.why_not


ZOO = ["lbmbnet32_r6", "mobilenetv2", "mobilenetv3_small", "nvmnet_g4", "resnet20", "resnetv2_56",
       "rsenet", "shufflenetv1", "shufflenetv2_x0_5", "squeezenet1_0", "squeezenet1_1",
       "resnet18", "resnet50", "mobilenetv1"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo_have_a_simd_form_as_near_as_torch_is(name):
    side = 64 if models.card(name).image[1] > 32 else 32
    body = models.create_model(name, seed=0)
    for module in body.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    check(body, torch.randn(12, 3, side, side), times=4)
