"""Every activation of the C file over the whole range of floats, at each width of vectors."""

import ctypes
import math
import random
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.epilogue import activation as c_of
from leancnn.compiler.frame import template
from leancnn.compiler.graph import Activation, Reduce, empty
from leancnn.compiler.lower import LONGEST, lower
from leancnn.compiler.translate import translate
from leancnn.toolchain import PORTABLE_FLAGS, compile_library
from tests.compiler_nets import FLAGS, compiled, laid, random_network, settled, written
from tests.few import few

WIDTHS = {
    1: ("-DLANES=1",),
    4: ("-DLANES=4", "-march=native"),
    8: ("-DLANES=8", "-march=native"),
    16: ("-DLANES=16", "-march=native", "-Wno-psabi"),  # also where vectors are narrower
    "16 on narrow vectors": ("-DLANES=16", "-Wno-psabi"),
    "4 without fused multiply-adds": ("-DLANES=4", "-ffp-contract=off"),
    "clang, sums in any order": ("-march=native", "-funsafe-math-optimizations"),
}
POWERS = tuple(map(float, np.float32([1.7, 0.4545, 9.3])))
erf = np.vectorize(math.erf, otypes=[np.float64])
KINDS = {
    "exp": (np.exp, 1.2),
    "expm1": (np.expm1, 2.1),
    "tanh": (np.tanh, 3.0),
    "erf": (erf, 1.4),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 2.7),
    "silu": (lambda x: x / (1 + np.exp(-x)), 3.4),
    "sqrt": (np.sqrt, 0.5),
    "reciprocal": (np.reciprocal, 0.5),
    "log": (np.log, 1.5),
    "softplus": (lambda x: np.logaddexp(0, x), 2.5),
    "hardsigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), 0.5),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 1.0),
    **{
        f"power{number}": (lambda x, n=power: np.power(x, n), 1.0)
        for number, power in enumerate(POWERS)
    },
}
"""The function in double precision, and how many units in the last place of a float we may miss it
by; where the result is no normal number, of the smallest of these."""
FULL = {"hardsigmoid", "hardswish"}  # cancel at -3, as their definition in floats does


def activation(name):
    power = name.startswith("power")
    return Activation("power", POWERS[int(name[5:])]) if power else Activation(name)


@pytest.fixture(scope="module", params=WIDTHS)
def library(request, tmp_path_factory):
    source = template("prelude.h")
    for name in KINDS:
        source += f"""
void {name}_of(const float *x, float *z, int n)
{{
    for (int i = 0; i < n; i += LANES) {{
        vf y = load(x + i);
        store(z + i, {c_of(activation(name), "y")});
    }}
}}
"""
    for name in ("larger", "smaller"):
        source += f"""
void {name}_of(const float *x, const float *y, float *z, int n)
{{
    for (int i = 0; i < n; i += LANES) store(z + i, {name}(load(x + i), load(y + i)));
}}
"""
    source += """
void relu_of(const float *x, float *z, int n)
{
    for (int i = 0; i < n; i += LANES) store(z + i, floored(load(x + i), splat(0.0f)));
}
void magnitude_of(const float *x, float *z, int n)
{
    for (int i = 0; i < n; i += LANES) store(z + i, magnitude(load(x + i)));
}
void relu6_of(const float *x, float *z, int n)
{
    for (int i = 0; i < n; i += LANES) store(z + i, clip(load(x + i), 0.0f, 6.0f));
}
void cap_of(const float *x, float *z, int n)
{
    for (int i = 0; i < n; i += LANES) store(z + i, capped(load(x + i), splat(3.0f)));
}
void most_of(const float *x, float *z, int n)
{
    for (int i = 0; i < n; i += LANES) z[i / LANES] = largest(load(x + i));
}
int lanes(void) { return LANES; }
"""
    flags = (*PORTABLE_FLAGS, "-Wall", "-Wextra", "-Werror", *WIDTHS[request.param])
    if "clang" in str(request.param):
        if shutil.which("clang") is None:
            pytest.skip("no clang")
        folder = tmp_path_factory.mktemp("clang")
        (folder / "curves.c").write_text(source)
        steps = [[*flags, "-fPIC", "-c", "curves.c"], ["-shared", "curves.o", "-o", "curves.so"]]
        for words in steps:  # linked with that flag, a library switches small numbers off for all
            subprocess.run(["clang", *words], cwd=folder, check=True)
        return ctypes.CDLL(str(folder / "curves.so"))
    return ctypes.CDLL(str(compile_library(source, name="curves", flags=flags)))


def of(library, name, *values):
    """A function of the library on arrays of floats."""
    length = len(values[0])
    filled = [np.resize(np.asarray(value, np.float32), -(-length // 16) * 16) for value in values]
    answer = np.empty_like(filled[0])
    places = [ctypes.c_void_p(array.ctypes.data) for array in (*filled, answer)]
    getattr(library, f"{name}_of")(*places, len(answer))
    return answer[:length]


def everywhere(seed=0):
    """Floats of every exponent and both signs, dense where curves bend, and the odd ones."""
    random = np.random.default_rng(seed)
    bits = np.arange(0, 0x7F800000, 9973, dtype=np.uint32)
    spread = bits.view(np.float32)
    near = random.uniform(-110, 110, 40_000).astype(np.float32)
    bend = random.uniform(-6, 6, 40_000).astype(np.float32)
    edges = np.array([0.0, 88.7, 88.8, 87.3, 87.4, 103.9, 104.1, 0.93, 4.05, 20, 3, 0.3466], "f")
    values = np.concatenate([spread, near, bend, edges, np.nextafter(edges, np.float32(0))])
    return np.concatenate([values, -values])


def misses(found, expected, least=2.0**-126):
    """Units in the last place of `expected` between the two."""
    scale = np.abs(expected).clip(least, 2.0**127)
    unit = np.exp2(np.floor(np.log2(scale)) - 23)
    return np.abs(found.astype(np.float64) - expected) / unit


@pytest.mark.parametrize("name", few(KINDS))
def test_a_curve_is_as_exact_as_floats_over_their_whole_range(library, name):
    function, bound = KINDS[name]
    x = everywhere()
    with np.errstate(all="ignore"):
        expected = function(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    found = of(library, name, x)
    assert np.array_equal(np.isnan(found), np.isnan(rounded))
    infinite = np.isinf(rounded)
    near = np.abs(expected) > 3.4e38
    assert np.array_equal(found[infinite & ~near], rounded[infinite & ~near])
    assert np.isfinite(found[~infinite & ~near & ~np.isnan(rounded)]).all()
    with np.errstate(invalid="ignore"):
        if name in FULL:
            missed = np.abs(found - expected) / np.maximum(np.abs(x), 1) * 2**23
        else:
            missed = misses(found, expected, 2.0**-119 if name == "silu" else 2.0**-126)
    missed = np.where(infinite | near | np.isnan(rounded), 0, missed)
    worst = int(np.argmax(missed))
    assert missed[worst] <= bound, (x[worst], found[worst], expected[worst], missed[worst])


def test_exponentials_reach_zero_and_infinity_where_floats_do(library):
    x = np.array([-np.inf, -1e30, -104, -103, -95, -90, -88, 88, 88.7, 88.73, 100, 1e30, np.inf])
    x = x.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    found = of(library, "exp", x)
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite)
    assert np.allclose(found[finite], expected[finite], rtol=3e-7, atol=1.5e-45)
    assert found[0] == found[1] == 0 < found[3]
    assert np.isinf(found[-1])


@pytest.mark.parametrize("name", [*KINDS, "relu", "relu6", "cap"])
def test_nan_stays_nan_in_every_lane(library, name):
    for pattern in (0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF):
        nan = np.array([pattern], np.uint32).view(np.float32)
        for place in range(16):
            x = np.ones(16, np.float32)
            x[place : place + 1] = nan
            found = of(library, name, x)
            assert np.array_equal(np.isnan(found), np.isnan(x)), (name, place, hex(pattern))


def test_a_magnitude_has_no_sign_also_of_zero(library):
    x = np.array([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, -1e-45], np.float32)
    assert c_of(Activation("leaky", -1.0), "y") == "magnitude(y)"
    found = of(library, "magnitude", x)
    assert not np.signbit(found[:6]).any()
    assert np.array_equal(found, np.abs(x), equal_nan=True)


def test_of_two_values_either_may_be_nan(library):
    odd = np.array([np.nan, -np.nan, 0.0, -0.0, 1, -1, np.inf, -np.inf, 3e38, 1e-45], np.float32)
    x, y = (part.ravel() for part in np.meshgrid(odd, odd))
    for name, function in (("larger", np.maximum), ("smaller", np.minimum)):
        assert np.array_equal(of(library, name, x, y), function(x, y), equal_nan=True)


def test_the_largest_lane_is_nan_when_one_is(library):
    lanes = library.lanes()
    for place in range(lanes):
        x = np.linspace(-1, 1, 16, dtype=np.float32)
        x[place] = np.nan
        assert np.isnan(of(library, "most", x)[0])
    x = np.linspace(-1, 1, 16, dtype=np.float32)
    assert of(library, "most", x)[0] == x[:lanes].max()


def network_source():
    body = settled(nn.Sequential(nn.Conv2d(1, 4, 1), nn.SiLU(), nn.Flatten(), nn.Linear(16, 2)))
    return written(body, (1, 2, 2)).source


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", ["-ffast-math", "-Ofast", "-O3 -ffinite-math-only"])
def test_flags_that_change_what_sums_and_nan_mean_are_refused_with_the_reason(
    compiler, flags, tmp_path
):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (tmp_path / "net.c").write_text(network_source())
    command = [compiler, "-std=c11", *flags.split(), "-c", "net.c", "-o", "net.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode
    assert "leave out -ffast-math and -Ofast" in done.stderr


def with_nan(shape, seed):
    """Images: all NaN, one pixel, one channel."""
    images = np.random.default_rng(seed).standard_normal((3, *shape)).astype(np.float32)
    images[0] = np.nan
    images[1, -1, shape[1] // 2, shape[2] // 2] = np.nan
    images[2, 0] = np.nan
    return images


@pytest.mark.parametrize("seed", few(range(5)))
def test_an_answer_that_is_nan_in_torch_is_nan_in_the_c_file(seed):
    pick = random.Random(seed).choice
    shape = (pick((1, 2, 3, 6)), pick(range(6, 12)), pick(range(6, 12)))
    body = settled(random_network(lambda options: pick(list(options)), shape), seed)
    images = with_nan(shape, seed)
    with torch.no_grad():
        expected = body(torch.from_numpy(images)).numpy()
    assert np.isnan(expected).any()
    widths = pick(([], ["-DLANES=8"], ["-DLANES=4"], ["-DLANES=1"]))
    found = laid(body, shape, pick(("planes", "blocked", "best")), (*FLAGS, *widths)).logits(images)
    assert np.isnan(found[np.isnan(expected)]).all()


class Everything(nn.Module):
    """One way to swallow NaN after the other, as answers side by side."""

    WAYS = (
        torch.relu,
        lambda x: torch.clamp(x, -1, 1),
        lambda x: torch.clamp(x, max=1),
        functional.relu6,
        functional.hardswish,
        functional.hardsigmoid,
        functional.silu,
        torch.tanh,
        functional.elu,
        functional.mish,
        functional.gelu,
        functional.leaky_relu,
        lambda x: torch.maximum(x, 0.5 - x),
        lambda x: torch.minimum(0.5 + x, 1 - x),
        lambda x: functional.max_pool2d(x, 3, 1, 1),
        lambda x: functional.max_pool2d(torch.relu(x), 3, 2, 1),
        lambda x: functional.avg_pool2d(x, 3, 1, 1),
        lambda x: x / x.norm(dim=1, keepdim=True),
        lambda x: x - x.amax((2, 3), keepdim=True),
        lambda x: x * x.amax(1, keepdim=True),
        lambda x: functional.softmax(x.flatten(1), 1),
    )

    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x):
        made = [way(self.mix(x)) for way in self.WAYS]
        return torch.cat([y.amax((2, 3)) if y.dim() == 4 else y for y in made], 1)


@pytest.mark.parametrize(
    ("layout", "lanes"),
    few(
        [
            ("planes", 16),
            ("blocked", 16),
            pytest.param("planes", 4, marks=pytest.mark.slow),
            pytest.param("blocked", 8, marks=pytest.mark.slow),
        ],
        rows=True,
    ),
)
def test_no_operator_swallows_nan(layout, lanes):
    body, shape = settled(Everything(17)), (17, 7, 9)
    images = with_nan(shape, 0)
    with torch.no_grad():
        assert body(torch.from_numpy(images)).isnan().all()
    found = laid(body, shape, layout, (*FLAGS, f"-DLANES={lanes}")).logits(images)
    assert np.isnan(found).all()


def test_a_pixel_that_is_nan_makes_nan_of_every_probability():
    body = settled(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)))
    native = compiled(body, (1, 4, 4))
    with torch.no_grad():
        body[0].weight[0] = torch.nan
    assert np.isnan(compiled(body, (1, 4, 4))(np.zeros((1, 4, 4, 1), np.uint8))).all()
    assert np.isfinite(native(np.zeros((1, 4, 4, 1), np.uint8))).all()


def test_a_long_chain_goes_on_in_the_next_kernel():
    graph = empty((2, 3, 3))
    value = graph.input
    for number in range(3000):
        value = graph.add(Activation("sigmoid"), value, name=f"s{number}")
    graph.output = graph.add(Reduce("mean", "pixels"), value, name="mean")
    program = lower(graph)
    assert max(len(k.epilogue) for k in program.kernels) <= LONGEST + 1
    assert len(program.kernels) == -(-3000 // LONGEST) + 1
    classes = ["a", "b"]
    text = translate(graph, name="chain", classes=classes, mean=[0.0, 0.0], std=[1.0, 1.0])
    native = CompiledNetwork(compile_library(text.source, name="chain", flags=FLAGS))
    fixed = 0.5
    for _ in range(100):
        fixed = 1 / (1 + math.exp(-fixed))
    assert np.allclose(native.logits(np.ones((1, 2, 3, 3), np.float32)), fixed, rtol=1e-6)


@pytest.mark.parametrize("layout", few(["planes", "blocked"]))
def test_a_softmax_written_by_hand_holds_far_below_zero(layout):
    """Logits near -90 and near 85, whose exponentials are the smallest and largest floats."""

    class ByHand(nn.Module):
        def __init__(self, offset):
            super().__init__()
            self.conv, self.offset = nn.Conv2d(1, 4, 3), offset

        def forward(self, x):
            shares = torch.exp(self.conv(x) + self.offset)
            return (shares / shares.sum(1, keepdim=True)).mean((2, 3))

    images = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype(np.float32)
    for offset in (-90.0, -86.0, 80.0):
        body = settled(ByHand(offset))
        with torch.no_grad():
            expected = (body.conv(torch.from_numpy(images)).double()).softmax(1).mean((2, 3))
        found = laid(body, (1, 4, 4), layout).logits(images)
        assert np.abs(found - expected.numpy()).max() < 2e-5


@pytest.mark.parametrize("layout", ["planes", "blocked"])
def test_a_constant_made_beside_an_image_is_no_product_of_it(layout):
    """Infinity times zero is NaN; a constant, a number beyond the edge, is what it is."""

    class Padded(nn.Module):
        def forward(self, x):
            wide = functional.pad(x, (1, 1, 1, 1), value=2.5)
            beside = torch.cat([wide, torch.full((len(x), 1, 7, 7), 7.0)], 1)
            return torch.maximum(beside, torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)).amax(
                (2, 3)
            )

    images = np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype(np.float32)
    images[1, 0, 2, 2], images[1, 1, 0, 0] = np.inf, -np.inf
    with torch.no_grad():
        expected = Padded()(torch.from_numpy(images)).numpy()
    assert np.array_equal(laid(Padded(), (2, 5, 5), layout).logits(images), expected)
