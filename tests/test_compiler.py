"""The compiler's laws: what it writes computes what PyTorch computes, and touches nothing else."""

import ctypes
import random
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from leancnn import models
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.frame import commented, escaped
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.errors import DamagedError, MismatchError, UnsupportedError
from leancnn.layers import RMAC
from leancnn.toolchain import compile_library, find_compiler
from tests.compiler_nets import (
    FLAGS,
    compiled,
    laid_source,
    max_error,
    random_network,
    settled,
    written,
)
from tests.few import few

WITHIN = 1e-4


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def henet():
    body = settled(models.create_model("henet_r2", seed=1))
    return body, compiled(body, (3, 31, 31))


def test_henet_answers_as_torch_does(henet):
    assert max_error(*henet, noise(4, (3, 31, 31))) < 1e-5


def test_pixels_are_normalised_inside(henet):
    body, native = henet
    images = np.random.default_rng(0).integers(0, 256, (3, 31, 31, 3)).astype(np.uint8)
    planes = (images.astype(np.float32) / 255 - 0.5) / 0.25
    with torch.no_grad():
        logits = body(torch.from_numpy(planes.transpose(0, 3, 1, 2).copy()))
    assert np.allclose(native(images), logits.softmax(1).numpy(), atol=1e-4)
    assert np.array_equal(native(images), native(images, threads=2))


@pytest.mark.long
def test_shuffle_join_and_norm_cost_no_kernel():
    graph = simplify(import_torch(models.create_model("henet_r3"), (3, 31, 31)))
    kernels = lower(graph).kernels
    convolutions = sum(1 for _ in graph.convolutions())
    assert len(kernels) == convolutions == 28
    assert graph.macs() == models.card("henet_r3").macs


@pytest.mark.long
def test_kernels_that_differ_in_places_alone_share_a_function():
    body = settled(nn.Sequential(nn.Conv2d(3, 32, 3), RMAC("paper21"), nn.Linear(32, 3)))
    source = written(body, (3, 10, 10)).source
    functions = {
        name: what for what, name in re.findall(r": (\w+ of \w+, 32\w+), .*\nLAYER (\w+)\(", source)
    }
    sides = [f"max of pixels, 32x1x{side}" for side in (8, 5, 4)]
    assert list(functions.values()) == [*sides, "norm of channels, 32x1x1"]
    calls = [source.count(f"    {name}(s, ") for name in functions]
    assert calls == [1, 6, 12, 21]  # windows of R-MAC; two of the 21 are the whole
    assert max_error(body, compiled(body, (3, 10, 10)), noise(2, (3, 10, 10))) < 1e-5


@pytest.mark.parametrize("layout", few(["planes", "blocked"]))
def test_buffers_that_live_at_once_do_not_overlap(layout):
    program = lower(simplify(import_torch(models.create_model("shufflenet_r2"), (3, 31, 31))))
    schedule(program, layout=layout)
    for at, kernel in enumerate(program.kernels):
        alive = {b for b in program.buffers if b.born <= at < b.dies or b in kernel.writes()}
        alive |= {b for value in kernel.reads() for b in value.buffers}
        spans = sorted((b.origin - b.below, b.size, b.dies, b.name) for b in alive)
        for (low, size, dies, _), (after, *_) in pairwise(spans):
            in_place = low == after and dies == at and kernel.in_place
            assert low + size <= after or in_place


def test_scratch_may_hold_anything_before(henet):
    native = henet[1]
    image, answers = noise(1, (3, 31, 31)), []
    for fill in (0.0, np.nan, 1e30):
        scratch = np.full(native.scratch_bytes // 4 + 1, fill, np.float32)
        answer = np.empty(10, np.float32)
        native._run_float(image.ctypes.data, answer.ctypes.data, scratch.ctypes.data)
        answers.append(answer)
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_scratch_may_begin_at_any_byte(henet):
    native, image = henet[1], noise(1, (3, 31, 31))
    scratch, answer = np.zeros(native.scratch_bytes + 64, np.uint8), np.empty(10, np.float32)
    for first in (0, 1, 3, 63):
        native._run_float(image.ctypes.data, answer.ctypes.data, scratch.ctypes.data + first)
        assert np.array_equal(answer, native.logits(image)[0])
    assert not scratch[63 + native.scratch_bytes :].any(), "and ends where it says"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, 1e-45])
def test_extreme_inputs_end_with_an_answer(henet, value):
    answer = henet[1].logits(np.full((1, 3, 31, 31), value, np.float32))
    assert answer.shape == (1, 10)


def test_wrong_images_are_refused_with_the_shape_that_is_right(henet):
    with pytest.raises(MismatchError, match=r"uint8 \(N, 31, 31, 3\)"):
        henet[1](np.zeros((1, 3, 31, 31), np.uint8))


def test_an_operator_we_do_not_have_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.atan(x).flatten(1)

    with pytest.raises(UnsupportedError, match="operator atan"):
        import_torch(Odd(), (1, 4, 4))


def test_a_library_of_others_is_refused(tmp_path):
    library = compile_library("int f(void) { return 1; }", name="foreign")
    with pytest.raises(DamagedError, match="not a network"):
        CompiledNetwork(library)


@pytest.mark.parametrize("name", few(['a"b', "*/ int x; /*", "\\", "ü\n\t\x1b[31m", "%s??/"]))
def test_any_class_name_is_harmless_in_c(name):
    body = settled(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    text = written(body, (1, 2, 2), name="tiny").source
    text = text.replace('"class 0"', f'"{escaped(name)}"')
    text = f"/* {commented(name)} */\n" + text
    flags = ("-std=c11", "-Wall", "-Wextra", "-Werror")
    assert CompiledNetwork(compile_library(text, name="names", flags=flags)).classes == (
        name,
        "class 1",
    )


def pick_by(seed):
    return random.Random(seed).choice


@pytest.mark.parametrize("seed", few(range(12)))
def test_random_networks_answer_as_torch_does(seed):
    pick = pick_by(seed)
    shape = (pick((1, 2, 3, 6)), pick(range(5, 20)), pick(range(5, 20)))
    body = settled(random_network(lambda options: pick(list(options)), shape), seed)
    assert max_error(body, compiled(body, shape), noise(2, shape)) < WITHIN


@pytest.mark.parametrize(
    "lanes", few([1, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 8)), 16])
)
def test_every_vector_width_answers_alike(lanes):
    body = settled(models.create_model("shufflenet_r2", repeat=1, seed=0))
    flags = ("-std=c11", "-O1", f"-DLANES={lanes}", f"-DREGISTERS={32 if lanes == 16 else 16}")
    assert max_error(body, compiled(body, (3, 31, 31), flags), noise(1, (3, 31, 31))) < WITHIN


def test_the_program_in_the_file_labels_an_image(tmp_path):
    body = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 3)))
    (tmp_path / "net.c").write_text(written(body, (3, 5, 5)).source)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    (tmp_path / "image.ppm").write_bytes(b"P6\n# made\n5 5\n255\n" + pixels.tobytes())
    program = tmp_path / "net"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-DLEANCNN_MAIN"]
    command = [*find_compiler().command, *flags, tmp_path / "net.c", "-lm", "-o", program]
    subprocess.run(command, check=True)
    done = subprocess.run([program, tmp_path / "image.ppm", "3"], capture_output=True, text=True)
    label, share = done.stdout.rsplit(maxsplit=1)
    expected = compiled(body, (3, 5, 5))(pixels[None])[0]
    assert label == f"class {expected.argmax()}"
    assert float(share) == pytest.approx(expected.max(), abs=1e-4)
    for odd in (
        b"",
        b"\xff\xd8\xff\xe0 a JPEG" * 9,
        bytes(74),
        bytes(76),
        b"P3\n5 5\n255\n" + bytes(75),
    ):
        (tmp_path / "odd").write_bytes(odd)
        wrong = subprocess.run([program, tmp_path / "odd"], capture_output=True, text=True)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "of 5x5" in wrong.stderr
    gone = subprocess.run([program, tmp_path / "gone"], capture_output=True, text=True)
    assert (gone.returncode, "gone: cannot be opened" in gone.stderr) == (2, True)
    commented = b"P6 5 5 255# made\n" + pixels.tobytes()
    for words in (["/dev/stdin"], ["/dev/stdin", "0"]):
        for data in (commented, pixels.tobytes()):  # through a pipe, raw too
            done = subprocess.run([program, *words], input=data, capture_output=True)
            assert done.stdout.startswith(f"{label} {share}".encode())
    pixels[0, 0, 0] = ord("P")  # raw, all the same
    (tmp_path / "image.raw").write_bytes(pixels.tobytes())
    done = subprocess.run([program, tmp_path / "image.raw"], capture_output=True, text=True)
    assert done.stdout.startswith(f"class {compiled(body, (3, 5, 5))(pixels[None])[0].argmax()} ")


ZOO = [
    name
    for name in models.names()
    if models.card(name).trainable < 12_000_000 and "1001" not in name
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_every_network_of_the_zoo_answers_as_torch_does(name):
    card = models.card(name)
    body = settled(models.create_model(name, seed=0))
    source, images = written(body, card.image).source, noise(2, card.image)
    for widths in ((), ("-DLANES=8", "-DREGISTERS=16"), ("-DLANES=4", "-DREGISTERS=16")):
        native = CompiledNetwork(compile_library(source, name="net", flags=(*FLAGS, *widths)))
        assert max_error(body, native, images) < WITHIN, widths


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "size"), [(1, 31), (3, 32), (1, 40), (3, 46)])
def test_gray_colour_and_other_sizes_answer_as_torch_does(channels, size):
    for name in ("henet_r2", "shufflenet_r2"):
        body = settled(models.create_model(name, channels=channels, seed=0))
        shape = (channels, size, size)
        assert max_error(body, compiled(body, shape), noise(2, shape)) < WITHIN


SANITIZED = ("-std=c11", "-O0", "-march=native", "-fsanitize=address,undefined")
GUARD = """
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    const float extremes[] = {0.0f, 1.0f, -1.0f, NAN, INFINITY, -INFINITY, 3e38f, 1e-45f};
    float *image = malloc(sizeof(float) * CHANNELS * HEIGHT * WIDTH);
    float *logits = malloc(sizeof(float) * CLASSES), *scratch = malloc(net_scratch_bytes);
    uint8_t *pixels = malloc(CHANNELS * HEIGHT * WIDTH);
    for (unsigned k = 0; k < 20; k++) {
        for (int i = 0; i < CHANNELS * HEIGHT * WIDTH; i++) {
            image[i] = k < 8 ? extremes[k] : (float)((i * 37 + (int)k * 11) % 17 - 8) * 0.1f;
            pixels[i] = (uint8_t)(i * 29 + (int)k);
        }
        net_run_float(image, logits, scratch);
        net_run(pixels, logits, scratch);
    }
    while (fread(image, sizeof(float), CHANNELS * HEIGHT * WIDTH, stdin)) {
        net_run_float(image, logits, scratch);
        fwrite(logits, sizeof(float), CLASSES, stdout);
    }
    free(image), free(logits), free(scratch), free(pixels);
    return 0;
}
"""


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_networks_under_sanitizers(data, tmp_path_factory):
    def pick(options):
        return data.draw(st.sampled_from(list(options)))

    shape = (pick((1, 2, 3, 6)), pick(range(5, 40)), pick(range(5, 40)))
    body = settled(random_network(pick, shape))
    source = laid_source(body, shape, pick(("best", "planes", "blocked")))
    lanes, registers = pick((1, 4, 8, 16)), pick((16, 32))
    assert "malloc" not in source
    assert "w += 0" not in source  # of a kernel without weights w is NULL
    folder = tmp_path_factory.mktemp("sanitized")
    (folder / "net.c").write_text(source + GUARD)
    widths = (f"-DLANES={lanes}", f"-DREGISTERS={registers}", "-Wno-psabi")
    command = [*find_compiler().command, *SANITIZED, *widths, folder / "net.c", "-lm"]
    subprocess.run([*command, "-o", folder / "net"], check=True)
    images = noise(2, shape)
    done = subprocess.run([folder / "net"], input=images.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr[:2000]
    assert not done.stderr
    logits = np.frombuffer(done.stdout, np.float32).reshape(2, -1)
    with torch.no_grad():
        expected = body(torch.from_numpy(images)).numpy()
    assert np.abs(logits - expected).max() < WITHIN * max(np.abs(expected).max(), 1e-3)


def test_the_library_keeps_no_state_of_its_own(henet):
    data = ctypes.CDLL(str(henet[1].path))
    assert not hasattr(data, "layers")
    first = henet[1].logits(noise(1, (3, 31, 31)))
    henet[1].logits(noise(1, (3, 31, 31), seed=9))
    assert np.array_equal(first, henet[1].logits(noise(1, (3, 31, 31))))


TRIPLES = [
    "x86_64-linux-musl",
    "aarch64-linux-musl",
    "arm-linux-musleabihf",
    "riscv64-linux-musl",
    "wasm32-wasi",
]


@pytest.mark.slow
@pytest.mark.parametrize("triple", TRIPLES)
def test_the_file_compiles_elsewhere_without_a_warning(triple, tmp_path):
    pytest.importorskip("ziglang")
    body = settled(models.create_model("shufflenet_r2", seed=0))
    (tmp_path / "net.c").write_text(written(body, (3, 31, 31)).source)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-std=c11", "-O1"]
    command += ["-Wall", "-Wextra", "-Werror", "-c", "net.c", "-o", "net.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
