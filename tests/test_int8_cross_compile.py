"""Built for other processors, emulated, and for WebAssembly, integers answer with the same bits."""

import shutil
import subprocess

import numpy as np
import pytest

from leancnn.toolchain import cross_compile
from tests.few import few
from tests.int8_nets import QUICK, DepthwiseDrawn, Drawn, drawn, written
from tests.test_cross_compile import ARM, cross_compiler, emulator

HARNESS = """
#include <stdio.h>
int main(void)
{
    static uint8_t image[CHANNELS * HEIGHT * WIDTH];
    static float logits[CLASSES];
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        drawn_run(image, logits, NULL);
        fwrite(logits, 1, sizeof logits, stdout);
    }
    return 0;
}
"""
DOT = ("-march=armv8.2-a+dotprod",)
PLACES = [  # QEMU's name and processor, gcc's name, flags
    pytest.param("aarch64", "max", "aarch64-linux-gnu", (), id="aarch64"),
    pytest.param("aarch64", "max", "aarch64-linux-gnu", DOT, id="aarch64 with dot products"),
    pytest.param("arm", "max", ARM, ("-march=armv7-a+simd", "-mfpu=neon"), id="32-bit Arm"),
    pytest.param("riscv64", "rv64", "riscv64-linux-gnu", (), id="riscv64"),
    pytest.param("riscv64", "rv64", "riscv64-linux-gnu", ("-DINTEGERS",), id="riscv64, integers"),
    pytest.param("x86_64", "Haswell", "x86_64-linux-gnu", ("-march=haswell",), id="Haswell"),
]


@pytest.mark.parametrize(("processor", "cpu", "system", "flags"), few(PLACES, rows=True))
def test_another_processor_answers_with_the_same_bits(processor, cpu, system, flags, tmp_path):
    qemu, gcc = emulator(processor), cross_compiler(system)
    for seed, kind in ((2, Drawn), (6, DepthwiseDrawn)):
        _, network, reference, pixels = drawn(seed, kind=kind)
        source, program = tmp_path / f"{seed}.c", tmp_path / f"{seed}"
        source.write_text(written(network).source + HARNESS)
        subprocess.run([gcc, *QUICK, *flags, "-static", "-o", program, source, "-lm"], check=True)
        bytes_ = pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8).tobytes()
        done = subprocess.run([qemu, "-cpu", cpu, program], input=bytes_, capture_output=True)
        assert done.returncode == 0, done.stderr
        found = np.frombuffer(done.stdout, np.float32).reshape(len(pixels), -1)
        assert np.array_equal(found, reference.answer(pixels).numpy())


IN_NODE = """
const { WASI } = require("node:wasi");
const code = require("node:fs").readFileSync(process.argv[1]);
const wasi = new WASI({ version: "preview1" });
const module = new WebAssembly.Module(code);
process.exit(wasi.start(new WebAssembly.Instance(module, wasi.getImportObject())));
"""


@pytest.mark.slow
@pytest.mark.parametrize(  # without SIMD clang unrolls for minutes at -O2
    "flags", [("-O2", "-msimd128"), ("-O1",)], ids=["SIMD", "no SIMD"]
)
def test_webassembly_in_node_answers_with_the_same_bits(flags, tmp_path):
    pytest.importorskip("ziglang")
    if not shutil.which("node"):
        pytest.skip("needs node")
    _, network, reference, pixels = drawn(6, kind=DepthwiseDrawn)
    code = tmp_path / "drawn.wasm"
    target = ("-target", "wasm32-wasi", "-std=c11", *flags)
    source = written(network).source + HARNESS
    code.write_bytes(cross_compile(source, name="drawn", suffix=".wasm", flags=target))
    bytes_ = pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8).tobytes()
    done = subprocess.run(["node", "-e", IN_NODE, str(code)], input=bytes_, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(done.stdout, np.float32).reshape(len(pixels), -1)
    assert np.array_equal(found, reference.answer(pixels).numpy())
