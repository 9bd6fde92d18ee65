"""Products and rounding of one number at a time, as processors without vectors take them."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from leancnn.compiler.frame import template
from tests.few import few

TESTS = Path(__file__).parent
ARM = shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")
MAIN = """
#include <stdio.h>
static const int32_t sums[] = {%s};
static const uint32_t scales[] = {%s};
static const uint32_t quads_[] = {%s};
static const int32_t weights_[] = {%s};
int main(void)
{
    for (int i = 0; i < %d; i++) {
        float m;
        memcpy(&m, scales + i, sizeof m);
        printf("%%ld %%ld\\n", (long)requantize(sums[i], m),
               (long)dot(splat(i), operand(quads_[i]), weights(weights_ + i)));
    }
    return 0;
}
"""
INTEL = platform.machine() in ("x86_64", "AMD64")
NATIVE = {"floats": ["-mno-sse2"] if INTEL else [], "whole numbers": ["-DINTEGERS"]}
BOARDS = {
    "cortex-m0plus": ("mps2-an385", "-mfloat-abi=soft"),
    "cortex-m3": ("mps2-an385", "-mfloat-abi=soft"),
    "cortex-m4": ("mps2-an386", "-mfloat-abi=hard -mfpu=fpv4-sp-d16"),
    "cortex-m7": ("mps2-an500", "-mfloat-abi=hard -mfpu=fpv5-sp-d16"),
}


def cases():
    """Sums and multipliers at whose edges rounding is decided, and many others."""
    random = np.random.default_rng(0)
    powers = 2 ** np.arange(31, dtype=np.int64)
    edges = np.concatenate([[0], powers, powers - 1, powers + 1, 3 * powers // 2])
    edges = edges[edges < 2**31 - 2**24]
    sums = np.concatenate([edges, -edges, random.integers(-(2**30), 2**30, 1000)])
    halves = np.exp2(random.integers(-30, 2, len(sums))).astype(np.float32)
    others = np.exp(random.uniform(np.log(2e-9), np.log(4), len(sums))).astype(np.float32)
    tiny = np.full(4, np.float32(1e-40))
    huge = np.full(4, np.float32(2**20))
    sums = np.concatenate([sums, sums, [0, 1, -1, 2**30], [1, -1, 2**30, -(2**30)]])
    scales = np.concatenate([halves, others, tiny, huge]).astype(np.float32)
    bytes_ = random.integers(0, 256, (len(sums), 4), np.uint8)
    weights = random.integers(-127, 128, (len(sums), 4)).astype(np.int8)
    bytes_[:2], weights[0], weights[1] = 255, 127, -127
    return sums.astype(np.int32), scales, bytes_, weights


def wanted(sums, scales, bytes_, weights):
    """The rule as docs/quantize.md states it, and the sums of products."""
    rounded = np.rint(sums.astype(np.float32) * scales).astype(np.float64)
    dots = (bytes_.astype(np.int64) * weights).sum(1) + np.arange(len(sums))
    return np.clip(rounded, -(2**31) + 1, 2**31 - 1).astype(np.int64), dots


def printed(command):
    """What a program prints: rounded numbers (the least is as good as the next), and sums."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    rounded, dots = np.array([line.split() for line in done.stdout.splitlines()], np.int64).T
    return np.maximum(rounded, -(2**31) + 1), dots


def written(folder):
    sums, scales, bytes_, weights = given = cases()
    lists = (
        sums,
        scales.view(np.uint32),
        bytes_.view(np.uint32)[:, 0],
        weights.view(np.int32)[:, 0],
    )
    texts = [", ".join(f"{number}u" if words.dtype == np.uint32 else str(number)
                       for number in words.tolist()) for words in lists]  # fmt: skip
    source = folder / "scalars.c"
    source.write_text(template("int8_prelude.h") + MAIN % (*texts, len(sums)))
    return source, wanted(*given)


@pytest.mark.parametrize("build", few(NATIVE))
@pytest.mark.parametrize("level", few(["-O0", "-O3"]))
def test_numbers_are_multiplied_and_rounded_by_the_rule(tmp_path, build, level):
    source, (rounded, dots) = written(tmp_path)
    flags = ["-std=c11", level, "-DLANES=1", *NATIVE[build]]
    program = tmp_path / "scalars"
    subprocess.run(["gcc", *flags, source, "-lm", "-o", program], check=True)
    found = printed([program])
    assert np.array_equal(found[0], rounded)
    assert np.array_equal(found[1], dots)


@pytest.mark.skipif(not ARM, reason="needs gcc-arm-none-eabi and qemu-system-arm")
@pytest.mark.parametrize("core", BOARDS)
def test_a_board_multiplies_and_rounds_by_the_rule(tmp_path, core):
    source, (rounded, dots) = written(tmp_path)
    machine, floats = BOARDS[core]
    flags = [f"-mcpu={core}", "-mthumb", *floats.split(), "-std=c11", "-O2", "-nostartfiles"]
    built = [source, TESTS / "board_startup.c", "-T", TESTS / "board.ld", "--specs=rdimon.specs"]
    program = tmp_path / "board.elf"
    subprocess.run(["arm-none-eabi-gcc", *flags, *built, "-lm", "-o", program], check=True)
    found = printed(
        ["qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-kernel", program]
    )
    assert np.array_equal(found[0], rounded)
    assert np.array_equal(found[1], dots)


@pytest.mark.skipif(not ARM, reason="needs gcc-arm-none-eabi and qemu-system-arm")
@pytest.mark.parametrize("core", ["armv5te", "armv6", "armv7-a", "armv8-m.base"])
def test_other_cores_are_asked_for_no_instruction_that_they_lack(tmp_path, core):
    source, _ = written(tmp_path)
    flags = [f"-march={core}", "-mfloat-abi=soft", "-std=c11", "-O2", "-c"]
    subprocess.run(["arm-none-eabi-gcc", *flags, source, "-o", tmp_path / "o"], check=True)
