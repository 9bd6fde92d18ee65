"""SIMD batches compute what torch computes: outputs, gradients, statistics; or say why not."""

import copy
import resource
import sys
import time
from pathlib import Path
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from leancnn import models
from leancnn.cpu_training import accelerate, program
from leancnn.errors import LeanCNNError, MissingDependencyError
from leancnn.layers import ChannelShuffle, PadChannels
from leancnn.toolchain import find_compiler
from tests.few import few

try:
    find_compiler()
except MissingDependencyError as error:
    pytest.skip(str(error), allow_module_level=True)

BATCH = 16


def passes(body, images, labels, kinds):
    """Loss and gradients of one training pass of equal networks, by kind, and their buffers."""
    found = {}
    for kind in kinds:
        twin = copy.deepcopy(body).train()
        run = twin
        if kind == "double":
            twin.double()
        elif kind != "torch":
            run = accelerate(twin, half=kind == "half", threads=2)
        logits = run(images.double() if kind == "double" else images)
        F.cross_entropy(logits, labels).backward()
        assert not getattr(run, "why_not", "")
        gradients = torch.cat([p.grad.double().flatten() for p in twin.parameters()])
        buffers = torch.cat([torch.zeros(1), *(b.double().flatten() for b in twin.buffers())])
        found[kind] = (logits.detach().double(), gradients, buffers)
    return found


def settle(body, images):
    """One pass that leaves the batch's own statistics, as after the first steps of a training."""
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    for momentum in (1.0, 0.1):
        for norm in norms:
            norm.momentum = momentum
        if momentum == 1:
            with torch.no_grad():
                body.train()(images)


def far(one, other):
    """Distance of two vectors, relative to the second's length."""
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize(
    "name", few(["henet_r2", pytest.param("shufflenet_r2", marks=pytest.mark.slow)])
)
def test_simd_batches_are_as_near_to_exact_arithmetic_as_torch_is(name):
    errors = {"torch": [], "simd": []}
    for seed in range(3):  # a ReLU at the edge may flip in either; the median does not
        body = models.create_model(name, seed=seed)
        source = torch.Generator().manual_seed(seed)
        images, labels = torch.randn(BATCH, 3, 31, 31, generator=source), torch.arange(BATCH) % 10
        settle(body, images)
        found = passes(body, images, labels, ("double", "torch", "simd"))
        for kind, seen in errors.items():
            seen.append(far(found[kind][1], found["double"][1]))
        assert far(found["simd"][2], found["double"][2]) < 1e-5
    assert median(errors["simd"]) < max(2 * median(errors["torch"]), 3e-6)


KINDS = [(1, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (1, 2, 0)]  # kernel, stride, pad
SHAPES = (
    "1_6_3_1_1",
    "3_6_3_1_1",
    *("_".join(map(str, (6, 6, *kind))) for kind in KINDS),
    "6_2_1_1_0",
    "1_1_1_2_0",
    "1_1_3_1_1",
    "1_1_3_2_1",
)


LIBRARY = program._library  # before the fixture below takes its place


@pytest.fixture(scope="module")
def quick_kernels():
    """All kernels that `Odd` can need in one library, compiled for a short wait, not for speed."""
    library, flags = program._library, program.FLAGS

    def of_all(shapes, half):
        if not set(shapes) <= set(SHAPES):
            return library(shapes, half)  # another test's
        program.FLAGS = tuple("-O1" if flag == "-O3" else flag for flag in flags)
        try:
            return library(SHAPES, half)
        finally:
            program.FLAGS = flags

    program._library = of_all
    yield
    program._library = library


class Odd(nn.Module):
    """Whatever hypothesis draws: groups, strides, borders, shuffles, skips, concatenations."""

    def __init__(self, channels, groups, strides, bias, shuffled, joined):
        super().__init__()
        width = 6 * groups
        self.groups = groups
        self.stem = nn.Conv2d(channels, 6, 3, padding=1, bias=bias)
        self.steps = nn.ModuleList()
        for kernel, stride, pad in strides:
            conv = nn.Conv2d(width, width, kernel, stride, pad, groups=groups, bias=bias)
            self.steps.append(nn.Sequential(conv, nn.BatchNorm2d(width)))
        parts = groups * (1 + joined)
        self.last = nn.Conv2d(6 * parts, 2 * parts, 1, groups=parts, bias=bias)
        self.shuffle = ChannelShuffle(groups) if shuffled else nn.Identity()
        self.joined = joined

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = torch.cat([x] * self.groups, 1)  # read several times
        for step in self.steps:
            y = step(self.shuffle(x))
            x = F.relu(x + y) if x.shape == y.shape else F.relu(y)
        if self.joined:  # 8 readers are the most
            x = torch.cat([x, x if self.groups == 3 else x + x], 1)
        return self.last(x).mean((2, 3))


@pytest.mark.long
@pytest.mark.usefixtures("quick_kernels")
@settings(max_examples=12, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    groups=st.sampled_from([1, 2, 3]),
    strides=st.lists(st.sampled_from(KINDS), max_size=3),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    size=st.tuples(st.integers(17, 21), st.integers(17, 21)),
)
def test_any_network_of_known_layers_agrees_with_torch(channels, groups, strides, flags, size):
    torch.manual_seed(0)
    body = Odd(channels, groups, strides, *flags)
    images = torch.randn(BATCH, channels, *size)
    found = passes(body, images, torch.arange(BATCH) % 2, ("torch", "simd"))
    assert far(found["simd"][0], found["torch"][0]) < 1e-4
    # A flipped ReLU costs more than rounding.
    assert far(found["simd"][1], found["torch"][1]) < 1e-2


class Depthwise(nn.Module):
    """Units of MobileNetV2 and ShuffleNetV2: depthwise, activations, halves, shuffles, sums."""

    def __init__(self, stride, act):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), act())
        self.wide = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), act())
        deep = nn.Conv2d(6, 6, 3, stride, 1, groups=6, bias=False)
        self.deep = nn.Sequential(deep, nn.BatchNorm2d(6), act())
        self.narrow = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
        self.last = nn.Conv2d(6, 6, 1)
        self.shuffle, self.act = ChannelShuffle(2), act()

    def forward(self, x):
        x = self.stem(x)
        y = self.narrow(self.deep(self.wide(x)))
        x = self.act(x + y) if x.shape == y.shape else y
        left, right = self.shuffle(torch.cat([x, y], 1)).chunk(2, 1)
        return torch.cat([self.last(left), right], 1).mean((2, 3))


@pytest.mark.usefixtures("quick_kernels")
@settings(max_examples=6, deadline=None)
@given(stride=st.sampled_from([1, 2]), size=st.tuples(st.integers(4, 9), st.integers(4, 9)))
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
def test_depthwise_units_are_as_near_to_exact_arithmetic_as_torch_is(act, stride, size):
    torch.manual_seed(0)
    body, images = Depthwise(stride, act), 4 * torch.randn(BATCH, 3, *size)
    body.stem[1].weight.data *= 4  # many values reach 6
    found = passes(body, images, torch.arange(BATCH) % 12, ("double", "torch", "simd"))
    for part in range(3):
        error = far(found["torch"][part], found["double"][part])
        assert far(found["simd"][part], found["double"][part]) < max(3 * error, 2e-6)


@pytest.mark.usefixtures("quick_kernels")
@settings(max_examples=8, deadline=None)
@given(
    pool=st.sampled_from([(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1)]),
    ceil=st.booleans(),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)
def test_maximum_pools_send_gradients_where_torch_does(pool, ceil, size):
    torch.manual_seed(0)
    kernels = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
    pools = nn.MaxPool2d(*pool, ceil_mode=ceil), nn.MaxPool2d(2, 1)
    layers = kernels[0], nn.ReLU(), pools[0], kernels[1], pools[1]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(BATCH, 3, *size)  # a ReLU's zeros tie: the first one wins
    if min(pools[0](torch.empty(1, 1, *size)).shape[2:]) < 2:
        return
    found = passes(body, images, torch.arange(BATCH) % 6, ("double", "simd"))
    assert far(found["simd"][0], found["double"][0]) < 2e-6
    assert far(found["simd"][1], found["double"][1]) < 2e-6


class Padded(nn.Module):
    """A shortcut of every second pixel, with channels of zeros around it."""

    def __init__(self, stride):
        super().__init__()
        self.stem, self.shortcut = nn.Conv2d(3, 6, 3, padding=1), PadChannels(2, 4, stride=stride)
        self.ways = nn.ModuleList(nn.Conv2d(6, 6, 3, stride, 1) for _ in range(2))

    def forward(self, x):
        x = F.relu(self.stem(x))
        both = torch.cat([way(x) for way in self.ways], 1)
        return F.relu(both + self.shortcut(x)).mean((2, 3))


@pytest.mark.usefixtures("quick_kernels")
def test_a_shortcut_that_is_padded_with_zeros_agrees_with_torch():
    torch.manual_seed(0)
    images, labels = torch.randn(BATCH, 3, 13, 12), torch.arange(BATCH) % 12
    found = passes(Padded(2), images, labels, ("double", "simd"))
    assert far(found["simd"][0], found["double"][0]) < 1e-5
    assert far(found["simd"][1], found["double"][1]) < 1e-4


@pytest.mark.long
@pytest.mark.usefixtures("quick_kernels")
def test_half_storage_keeps_the_direction_of_the_gradient():
    torch.manual_seed(0)
    body = Odd(3, 2, [(3, 1, 1), (3, 2, 0)], False, True, True)
    images = torch.randn(64, 3, 19, 19)
    found = passes(body, images, torch.arange(64) % 2, ("torch", "half"))
    assert F.cosine_similarity(found["half"][1], found["torch"][1], dim=0) > 0.98


@pytest.mark.slow
def test_evaluation_fills_the_last_batch_and_changes_no_statistics():
    body = models.create_model("henet_r2", seed=0).eval()
    fast = accelerate(body).eval()
    images = torch.randn(21, 3, 31, 31)
    before = copy.deepcopy(body.state_dict())
    with torch.no_grad():
        for count in (21, 5):
            assert torch.allclose(fast(images[:count]), body(images[:count]), atol=1e-6)
            assert not fast.why_not
    assert all(torch.equal(before[key], value) for key, value in body.state_dict().items())


def test_threads_change_only_rounding_and_equal_threads_nothing():
    body = models.create_model("henet_r2", seed=1)
    images, labels = torch.randn(32, 3, 31, 31), torch.arange(32) % 10
    gradients = []
    for threads in (1, 2, 2):
        twin = copy.deepcopy(body)
        F.cross_entropy(accelerate(twin, threads=threads)(images), labels).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in twin.parameters()]))
    assert torch.equal(gradients[1], gradients[2])
    assert far(gradients[0], gradients[1]) < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="stacks count as address space on Linux")
def test_threads_that_cannot_be_had_are_refused_and_none_is_left():
    fast = accelerate(models.create_model("henet_r2", seed=0).eval(), threads=32).eval()
    images = torch.randn(BATCH, 3, 31, 31)
    with torch.no_grad():
        expected = fast(images)
        tasks = Path("/proc/self/task")
        before = len([*tasks.iterdir()])
        limits = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**24, limits[1]))  # not 31 stacks
        try:
            with pytest.raises(LeanCNNError, match="32 training threads could not be started"):
                fast(images)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        ended = time.monotonic() + 5  # the last may still be on its way out
        while len([*tasks.iterdir()]) > before and time.monotonic() < ended:
            time.sleep(0.01)
        assert len([*tasks.iterdir()]) == before
        assert torch.equal(fast(images), expected)


def test_numbers_that_are_not_finite_reach_the_loss():
    body = models.create_model("henet_r2", seed=0)
    images = torch.zeros(BATCH, 3, 31, 31)
    images[3, 1, 4, 4] = float("nan")
    assert accelerate(body)(images).isnan().any()


class Twice(nn.Module):
    """Reads a convolution before and after its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return (self.norm(x) + x).mean((2, 3))


def frozen():
    """A network in training with a norm that is not."""
    norm = nn.BatchNorm2d(4)
    body = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 4, 1), nn.Flatten())
    norm.train = lambda mode=True: norm
    norm.training = False
    return body


@pytest.mark.parametrize(
    ("body", "shape", "why"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 5, dilation=2), nn.Flatten()), (16, 3, 9, 9), "no SIMD"),
        (Twice(), (16, 3, 8, 8), "before and after its norm"),
        (nn.Sequential(PadChannels(1, 1), nn.Conv2d(5, 4, 1), nn.Flatten()), (16, 3, 8, 8), ""),
        (frozen(), (16, 3, 8, 8), "no SIMD form"),
    ],
)
def test_what_has_no_simd_form_runs_as_it_is_and_says_why(body, shape, why):
    images = torch.randn(shape)
    fast = accelerate(body)
    assert torch.equal(fast(images), body(images))
    assert why in fast.why_not


def test_backward_after_another_forward_is_refused():
    fast = accelerate(models.create_model("henet_r2", seed=0))
    images = torch.randn(BATCH, 3, 31, 31)
    first = fast(images).sum()
    fast(images)
    with pytest.raises(RuntimeError, match="one pass"):
        first.backward()


@pytest.mark.long
def test_structures_lie_in_c_as_they_are_filled(monkeypatch):
    program.check_layout(LIBRARY((), False))
    node = program.CNode
    LIBRARY.cache_clear()
    for fields in (node._fields_[1:], (*node._fields_[:9], *node._fields_[10:], node._fields_[9])):
        moved = type("CNode", (program.ctypes.Structure,), {"_fields_": tuple(fields)})
        monkeypatch.setitem(program.STRUCTURES, "Node", moved)
        with pytest.raises(LeanCNNError, match="structures otherwise"):
            LIBRARY((), True)


@pytest.mark.parametrize("pattern", few([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001]))
@pytest.mark.parametrize("kind", few(["simd", "half"]))
def test_nan_reaches_the_loss_whatever_its_bits(pattern, kind):
    body = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    images = torch.randn(16, 1, 3, 3)
    images.view(torch.int32)[3, 0, 1, 1] = pattern - (1 << 32 if pattern >> 31 else 0)
    assert images.isnan().sum() == 1
    run = accelerate(body, half=kind == "half", threads=1)
    values = run(images)
    assert not run.why_not
    assert values[3].isnan().all()
    assert values[:3].isfinite().all()
