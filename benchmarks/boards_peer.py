"""The same networks on a Cortex-M4 as emx-onnx-cgen's C: results/boards-peer.json.

    pip install emx-onnx-cgen==1.4.0      and what boards.py needs
    python benchmarks/boards_peer.py henet_r3 resnet8

Its C is built by the same gcc, at -O2 and at -O3 -ffast-math, and run by the same QEMU as ours. Its
intermediate values are put on the stack, in 16 MB that no such board has: with its defaults they
come from malloc, and it answers zeros where there is not enough.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import version as installed
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from leancnn.bench import untrained  # noqa: E402
from leancnn.export import export  # noqa: E402
from leancnn.runs import machine, now, write_json  # noqa: E402

RESULT = ROOT / "results" / "boards-peer.json"
BOARD = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-std=gnu11")
LINK = ("-nostartfiles", "--specs=rdimon.specs", "-fno-math-errno", "-fstack-usage")
MAIN = """
#include <stdio.h>
#include "net.c"
static uint8_t image[1][HEIGHT][WIDTH][3];
static float logits[1][CLASSES];
int main(void)
{
    volatile uint32_t *const systick = (uint32_t *)0xE000E010;
    for (unsigned i = 0; i < sizeof image; i++) ((uint8_t *)image)[i] = i * 7;
    systick[1] = 0xFFFFFF; systick[2] = 0; systick[0] = 5;
    const uint32_t before = systick[2];
    model(image, logits);
    const uint32_t took = (before - systick[2]) & 0xFFFFFF;
    printf("%d %lu\\n", logits[0][0] != 0, (unsigned long)took * 40);
    return 0;
}
"""


def run(*words: object, folder: Path) -> str:
    """What a command prints."""
    arguments = [str(word) for word in words]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=True, cwd=folder, timeout=300
    )
    return done.stdout


def row(name: str, folder: Path) -> dict[str, object]:
    """One network's instructions, at two levels, and bytes."""
    network = untrained(name)
    (onnx,) = export(network, to="onnx", out=folder)
    sizes = ["--large-weight-threshold", 10**8, "--large-temp-threshold", 10**8]
    run(sys.executable, "-m", "emx_onnx_cgen", "compile", *sizes, onnx, "net.c", folder=folder)
    (folder / "main.c").write_text(MAIN)
    script = (ROOT / "tests" / "board.ld").read_text()
    large = script.replace("0x20000000, LENGTH = 4M", "0x21000000, LENGTH = 16M")
    (folder / "board.ld").write_text(large)
    h, w = network.preprocessing.size
    facts = [f"-DHEIGHT={h}", f"-DWIDTH={w}", f"-DCLASSES={len(network.classes)}"]
    found: dict[str, object] = {"network": name}
    for title, flags in (("-O2", ["-O2"]), ("-O3 -ffast-math", ["-O3", "-ffast-math"])):
        sources = ["main.c", ROOT / "tests" / "board_startup.c", "-lm", "-o", "board.elf"]
        words = ["arm-none-eabi-gcc", *BOARD, *LINK, *flags, *facts, "-T", "board.ld", *sources]
        run(*words, folder=folder)
        qemu = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting"]
        output = run(*qemu, "-icount", "shift=0", "-kernel", "board.elf", folder=folder)
        answered, count = output.split()
        if answered != "1":
            raise SystemExit(f"{name}: no answer")
        found[f"instructions, {title}"] = int(count)
    usage = [line.split("\t") for path in folder.glob("*.su") for line in path.open()]
    found["stack"] = next(int(use[1]) for use in usage if use[0].endswith(":model"))
    return found


if __name__ == "__main__":
    rows = []
    for name in sys.argv[1:] or ("henet_r3", "resnet8"):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(name, Path(folder)))
        print(rows[-1], file=sys.stderr)
    result = {
        "title": "The same by another generator's C: emx-onnx-cgen",
        "command": " ".join(["python benchmarks/boards_peer.py", *sys.argv[1:]]),
        "machine": {**machine(), "emx-onnx-cgen": installed("emx-onnx-cgen")},
        "made": now(),
        "rows": rows,
    }
    write_json(RESULT, result)
