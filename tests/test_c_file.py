"""The C file in the hands of a user: strict compilers, C++, no library, static scratch."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.translate import translate
from leancnn.preprocess import Preprocessing
from leancnn.toolchain import compile_library, find_compiler
from tests.compiler_nets import Gate, Inverted, settled
from tests.few import few

SIZE = (12, 12)
PREPROCESSING = Preprocessing(size=SIZE, scale=(14, 14), fit="contain", background=(10, 20, 30))
CLASSES = ('cat "one"', "dög", "c")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror")
LANGUAGES = {
    "C99": ("gcc", "-std=c99"),
    "C11": ("gcc", "-std=c11"),
    "C99 by clang": ("clang", "-std=c99"),
    "C++11": ("g++", "-std=c++11", "-x", "c++"),
    "C++17 by clang": ("clang++", "-std=c++17", "-x", "c++"),
}


def network():
    """One of everything that is written differently: lines, channels in blocks, Winograd, strided,
    pooled, gates, curves, softmax inside, and weights large enough to be strings."""
    return settled(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.SiLU(),
            Inverted(16, 16, 32),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(16, 32, 3, 2, 1),
            Gate(32, nn.Tanh()),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.GELU(),
            nn.AvgPool2d(3, 1, 1),
            nn.Flatten(),
            nn.Linear(64 * 9, 40),
            nn.Softmax(1),
            nn.Linear(40, 3),
        )
    )


@pytest.fixture(scope="module")
def written():
    return translate(
        import_torch(network(), (3, *SIZE)),
        name="net",
        classes=CLASSES,
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.3, 0.25],
        about=json.dumps({"preprocessing": PREPROCESSING.to_json()}),
    )


@pytest.fixture(scope="module")
def folder(written, tmp_path_factory):
    place = tmp_path_factory.mktemp("written")
    (place / "net.c").write_text(written.source)
    (place / "net.h").write_text(written.header)
    return place


@pytest.fixture(scope="module")
def native(written):
    return CompiledNetwork(compile_library(written.source, name="net"))


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return done


@pytest.mark.parametrize(
    ("language", "widths"),
    few(
        [
            ("C99", ()),
            ("C99", ("-march=native",)),
            ("C11", ("-DLANES=1",)),
            ("C99 by clang", ()),
            ("C++11", ("-march=native",)),
            ("C++17 by clang", ("-DLANES=1",)),
        ],
        rows=True,
    ),
)
def test_the_file_compiles_without_a_warning(language, widths, folder):
    compiler, *words = LANGUAGES[language]
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    main = ("-DLEANCNN_MAIN",) if widths else ()
    run([compiler, *words, *WARNINGS, *widths, *main, "-c", "net.c", "-o", "net.o"], folder)


USER = """
#include "net.h"
static unsigned char scratch[net_scratch_bytes];
static unsigned char image[net_height * net_width * net_channels];
static float answer[net_classes];
int main(void)
{
    for (int i = 0; i < (int)sizeof image; i++) image[i] = (unsigned char)(i * 7);
    net_run(image, answer, scratch);
    return answer[0] > 0.0f && net_class_names[0][0] == 'c' ? 0 : 1;
}
"""


@pytest.mark.parametrize("language", few(["C99", "C++11"]))
def test_scratch_is_a_static_array_and_the_files_own_can_be_left_out(language, folder):
    compiler, *words = LANGUAGES[language]
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (folder / "user.c").write_text(USER)
    sizes = {}
    for macros in ((), ("-DLEANCNN_NO_ARENA", "-DLEANCNN_NO_PREPROCESS")):
        run([compiler, *words, *WARNINGS, *macros, "-c", "net.c", "-o", "net.o"], folder)
        run([compiler, *words, *WARNINGS, "-c", "user.c", "-o", "user.o"], folder)
        run([compiler, "net.o", "user.o", "-o", "user", "-lm"], folder)
        run([folder / "user"], folder)
        text = run(["nm", "-S", "net.o"], folder).stdout
        sizes[macros] = [int(line.split()[1], 16) for line in text.splitlines() if " b " in line]
        assert ("preprocess" in text) == (not macros)
    assert sum(sizes[()]) > 1000
    assert not sum(sizes[macros])


BARE = """
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}
void *memset(void *to, int value, size_t count)
{
    for (size_t i = 0; i < count; i++) ((char *)to)[i] = (char)value;
    return to;
}
float sqrtf(float x)
{
    float y = x > 1 ? x : 1;
    for (int i = 0; i < 40; i++) y = 0.5f * (y + x / y);
    return y;
}
float expf(float x)
{
    double y = 1 + x / 1048576.0;
    for (int i = 0; i < 20; i++) y *= y;
    return (float)y;
}
"""


def test_without_a_library_four_functions_suffice(folder, native):
    (folder / "bare.c").write_text(BARE)
    compiler = find_compiler().command
    flags = ("-std=c99", "-ffreestanding", "-fno-builtin", "-O1", "-fPIC", *WARNINGS)
    run([*compiler, *flags, "-c", "net.c", "-o", "bare_net.o"], folder)
    wanted = run(["nm", "-u", "bare_net.o"], folder).stdout.split()
    wanted = {name for name in wanted if name != "U" and not name.startswith("_GLOBAL_")}
    assert wanted <= {"memcpy", "memset", "sqrtf", "expf"}
    command = [*compiler, "-nostdlib", "-shared", "-fPIC", "-O1", "bare.c", "bare_net.o"]
    run([*command, "-o", "bare.so"], folder)
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
    assert np.allclose(CompiledNetwork(folder / "bare.so")(images), native(images), atol=1e-4)


def test_floats_are_taken_as_the_header_says(written, native):
    assert "(value / 255 - mean) / std" in written.header
    assert "mean {0.4" in written.header
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.float64)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
    planes = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        expected = network()(torch.from_numpy(planes)).numpy()
    assert np.allclose(native.logits(planes), expected, atol=1e-5)


def test_about_tells_how_to_write_the_preprocessing_again(native):
    about = native.metadata
    assert about["class_names"] == list(CLASSES)
    assert about["preprocess"] == {
        "fit": "contain",
        "filter": "triangle, antialiased: BILINEAR of Pillow, along rows, then down columns",
        "scale": [14, 14],
        "window": [1, 1, 12, 12],
        "background": [10, 20, 30],
    }
    assert about["scratch_bytes"] == native.scratch_bytes > 0


def test_a_library_that_tells_its_scratch_by_a_symbol_is_still_loaded(written):
    size = f"const size_t net_scratch_bytes = {written.scratch_bytes};"
    old = written.source.replace(f"enum {{ net_scratch_bytes = {written.scratch_bytes} }};", size)
    old = old.replace("\\042scratch_bytes\\042", "\\042unknown\\042")
    assert size in old
    assert "scratch_bytes\\042" not in old
    assert CompiledNetwork(compile_library(old, name="old")).scratch_bytes == written.scratch_bytes
