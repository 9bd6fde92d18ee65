"""Whole projects for boards: built by Arm's gcc with the flags of Arduino's cores, run in QEMU.

PlatformIO's own toolchains come from its registry alone, so the few words of Arduino's core that
the program uses stand here, over newlib's semihosting.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.export import export
from tests.few import few
from tests.test_fit import ARM, network

TESTS = Path(__file__).parent
ARDUINO = """
#include <stdio.h>
#include <stdint.h>
#define F(text) text
extern "C" void initialise_monitor_handles(void);
static inline unsigned long micros() { return 0; }
static inline unsigned long millis() { return 0; }
static inline void delay(unsigned long) {}
struct Port {
  void begin(long) {}
  explicit operator bool() const { return true; }
  void print(const char *text) { printf("%s", text); }
  void print(char one) { putchar(one); }
  void print(unsigned long number) { printf("%lu", number); }
  void print(double number, int digits) { printf("%.*f", digits, number); }
  void println(const char *text) { printf("%s\\n", text); }
};
static Port Serial;
"""
MAIN = "void setup(); void loop();\nint main() { setup(); loop(); return 0; }\n"
COMMON = "-mthumb -Os -g -Wall -Wextra -Werror -ffunction-sections -fdata-sections -funsigned-char "
COMMON += (
    "-fmessage-length=0 -fomit-frame-pointer -fno-exceptions --param max-inline-insns-single=500"
)
CORES = {  # of mbed's core, Renesas's and ST's, and of the Pico's: where QEMU has the like
    "nano33ble": ("mps2-an386", "-mcpu=cortex-m4 -mfloat-abi=softfp -mfpu=fpv4-sp-d16"),
    "uno_r4_minima": ("mps2-an386", "-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16"),
    "nucleo_h743zi": ("mps2-an500", "-mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-d16"),
    "pico": ("mps2-an385", "-mcpu=cortex-m0plus -mfloat-abi=soft"),
}
FPU = "*(volatile uint32_t *)0xE000ED88"


def in_integers(net):
    graph = simplify(import_torch(net.body, (3, *net.preprocessing.size)))
    images = torch.randn(4, 3, *net.preprocessing.size, generator=torch.Generator().manual_seed(0))
    made = quantize(graph, measure(graph, [images]), net.mean, net.std)
    return net.with_body(IntegerNetwork(made), made={})


def built(place, folder, core):
    """A PlatformIO project as a program: its library as C, its main as C++."""
    (library,) = (place / "lib").iterdir()
    (folder / "Arduino.h").write_text(ARDUINO)
    (folder / "main.cpp").write_text(MAIN)
    includes = [f"-I{folder}", f"-I{place / 'include'}", f"-I{library}"]
    startup = folder / "startup.c"
    text = (TESTS / "board_startup.c").read_text()
    startup.write_text(text if "fpu" in core else text.replace(f"    {FPU}", f"    // {FPU}"))
    jobs = [("gcc", "-std=gnu11", library / f"{library.name}.c"), ("gcc", "-std=gnu11", startup)]
    jobs += [
        ("g++", "-std=gnu++17", path) for path in (place / "src/main.cpp", folder / "main.cpp")
    ]
    objects = []
    for number, (compiler, standard, source) in enumerate(jobs):
        objects.append(folder / f"{number}.o")
        words = [f"arm-none-eabi-{compiler}", standard, *COMMON.split(), *core.split(), *includes]
        words += ["-fno-rtti"] if compiler == "g++" else []
        subprocess.run([*map(str, words), "-c", str(source), "-o", str(objects[-1])], check=True)
    link = ["-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections", "-T", TESTS / "board.ld"]
    program = folder / "program.elf"
    words = ["arm-none-eabi-gcc", *COMMON.split(), *core.split(), *link, *objects, "-lm"]
    subprocess.run([*map(str, words), "-o", str(program)], check=True)
    return program


@pytest.mark.skipif(
    not (ARM and shutil.which("arm-none-eabi-g++")),
    reason="needs gcc-arm-none-eabi, qemu-system-arm",
)
@pytest.mark.parametrize(
    ("board", "integers"),
    few(
        [
            ("pico", False),
            ("nano33ble", True),
            *(
                pytest.param(board, integers, marks=pytest.mark.slow)
                for board in CORES
                for integers in (False, True)
                if (board, integers) not in (("pico", False), ("nano33ble", True))
            ),
        ],
        rows=True,
    ),
)
def test_a_platformio_project_builds_without_a_warning_and_prints_its_class(
    tmp_path, board, integers
):
    machine, core = CORES[board]
    net = in_integers(network()) if integers else network()
    (place,) = export(net, to="platformio", out=tmp_path)
    program = built(place, tmp_path, core)
    run = ["qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-kernel", str(program)]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)
    text = (place / "include" / "picture.h").read_text()
    pixels = np.array(re.search(r"\{(.*)\}", text, re.S)[1].replace(",", " ").split(), np.uint8)
    with torch.inference_mode():
        image = torch.from_numpy(pixels.reshape(1, *net.preprocessing.size, 3))
        answer = net(image).softmax(1)[0]
    best = int(answer.argmax())
    said = re.fullmatch(r"(.*) ([\d.]+) in 0 us\n", done.stdout)
    assert said, done.stdout
    assert said[1] == net.classes[best]
    assert abs(float(said[2]) - float(answer[best])) < 1e-4
