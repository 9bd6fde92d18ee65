"""Built for other processors and run there, emulated by QEMU, a network answers as it does here."""

import shutil
import subprocess

import numpy as np
import pytest
from torch import nn

from leancnn import models
from tests.compiler_nets import Inverted, compiled, settled, written

SHAPE = (3, 31, 31)
HARNESS = """
#include <stdio.h>
int main(void)
{
    static float image[CHANNELS * HEIGHT * WIDTH], logits[CLASSES];
    if (fread(image, 1, sizeof image, stdin) != sizeof image) return 1;
    net_run_float(image, logits, NULL);
    printf("%d", LANES);
    for (int i = 0; i < CLASSES; i++) printf(" %.9g", (double)logits[i]);
    return 0;
}
"""
ARM = "arm-linux-gnueabihf"
PLACES = [  # QEMU's name, gcc's, flags, lanes
    pytest.param("aarch64", "aarch64-linux-gnu", (), 4, id="aarch64 with NEON"),
    pytest.param("arm", ARM, ("-march=armv7-a+simd", "-mfpu=neon"), 4, id="arm with NEON"),
    pytest.param("arm", ARM, ("-DLANES=1",), 1, id="arm in plain loops"),
    pytest.param("riscv64", "riscv64-linux-gnu", (), 1, id="riscv64 in plain loops"),
    pytest.param("riscv64", "riscv64-linux-gnu", ("-DLANES=4",), 4, id="riscv64, 4 lanes"),
]


def emulator(processor):
    """QEMU for programs of another processor, or a skipped test."""
    for name in (f"qemu-{processor}-static", f"qemu-{processor}"):
        if found := shutil.which(name):
            return found
    return pytest.skip(f"no qemu-{processor} here; Debian: apt install qemu-user-static")


def cross_compiler(system):
    """A gcc for another system, or a skipped test."""
    return shutil.which(f"{system}-gcc") or pytest.skip(
        f"no {system}-gcc here; Debian: apt install gcc-{system}"
    )


def small_maps():
    """A network whose channels lie side by side."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4),
        nn.Conv2d(16, 16, 3, padding=1),
        Inverted(16, 16, 50, act=nn.SiLU()),
        Inverted(16, 40, 60, stride=2, kernel=5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 10),
    )


@pytest.fixture(scope="module", params=["planes", "blocked"])
def here(request):
    """C text, an image, and this machine's answer."""
    blocked = request.param == "blocked"
    body = settled(small_maps() if blocked else models.create_model("henet_r2", seed=0))
    assert ("channels in blocks" in written(body, SHAPE).source) == blocked
    image = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    return written(body, SHAPE).source, image, compiled(body, SHAPE).logits(image)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("processor", "system", "flags", "lanes"), PLACES)
def test_other_processors_agree_with_this_one(processor, system, flags, lanes, here, tmp_path):
    run, compiler, (source, image, expected) = emulator(processor), cross_compiler(system), here
    (tmp_path / "net.c").write_text(source + HARNESS)
    command = [compiler, *flags, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    command += ["net.c", "-lm", "-o", "net"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[:2000]
    done = subprocess.run([run, tmp_path / "net"], input=image.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr[:2000]
    width, *logits = done.stdout.split()
    assert int(width) == lanes
    error = np.abs(np.array(logits, np.float32) - expected).max()
    assert error <= 1e-4 * np.abs(expected).max()
