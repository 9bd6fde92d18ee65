"""What networks take on a Cortex-M4, built by gcc and run in QEMU: results/boards-cortex-m4.json.

    python benchmarks/boards.py                 needs gcc-arm-none-eabi and qemu-system-arm
    python benchmarks/boards.py resnet8
    python benchmarks/boards.py --integers henet_r3 resnet8         results/boards-integers.json

Instructions are those of one image, softmax included; code is what the linker put into
flash without constants, C library and semihosting included.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from int8_engines import CALIBRATION, integers

from leancnn import models
from leancnn.export import export
from leancnn.parity import trial_images
from leancnn.preprocess import Preprocessing
from leancnn.runs import machine, now, write_json
from leancnn.targets._c_text import to_c
from leancnn.weights import Network
from tests.test_fit import on_board

CORTEX_M3 = ("mps2-an385", "cortex-m3", "")  # neither products of pairs nor a unit of floats
RESULTS = Path(__file__).parent.parent / "results"
NETWORKS = ("henet_r2", "henet_r3", "shufflenet_r3", "resnet8", "resnet20", "shufflenetv2_x0_5")


def row(name: str, in_integers: bool) -> dict[str, object]:
    """One network's sizes and instructions."""
    torch.manual_seed(0)
    card = models.card(name)
    net = Network(
        models.create_model(name).eval(),
        name=name,
        arguments={},
        classes=[f"class {number}" for number in range(card.classes)],
        preprocessing=Preprocessing(size=card.image[1:], channels=card.image[0]),
        mean=[0.5] * card.image[0],
        std=[0.25] * card.image[0],
    )
    fast = to_c(net)
    if in_integers:
        net = integers(net, trial_images(net, CALIBRATION))
    small = to_c(net, small=True)
    with tempfile.TemporaryDirectory() as folder:
        (place,) = export(net, to="arduino", out=folder)
        plain = on_board(place, net, Path(folder), *CORTEX_M3)[2] if in_integers else None
        _, _, count = on_board(place, net, Path(folder))
        sizes = subprocess.run(
            ["arm-none-eabi-size", f"{folder}/board.elf"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[1]
    found: dict[str, object] = {
        "network": name,
        "MACs": small.macs,
        "instructions": count,
        "per MAC": round(count / small.macs, 2),
        "constants": small.constant_bytes,
        "code": int(sizes.split()[0]) - small.constant_bytes,
        "scratch": small.scratch_bytes,
    }
    if in_integers:
        return found | {"instructions, Cortex-M3": plain}
    more = f"{small.macs / fast.macs - 1:.1%}"
    return found | {"for more MACs": more, "scratch, fast": fast.scratch_bytes}


def version(command: str) -> str:
    """The first line of what a tool says of itself."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--integers", action="store_true", help="quantized, instead of floats")
    args = parser.parse_args()
    rows = []
    for name in args.networks:
        rows.append(row(name, args.integers))
        print(rows[-1], file=sys.stderr)
    tools = {"gcc": version("arm-none-eabi-gcc"), "qemu": version("qemu-system-arm")}
    kind = " in 8-bit integers" if args.integers else ""
    result = {
        "title": f"One image on a Cortex-M4{kind}: instructions in QEMU, and bytes",
        "command": " ".join(["python benchmarks/boards.py", *sys.argv[1:]]),
        "machine": {**machine(), **tools},
        "made": now(),
        "rows": rows,
    }
    write_json(RESULTS / f"boards-{'integers' if args.integers else 'cortex-m4'}.json", result)


if __name__ == "__main__":
    main()
