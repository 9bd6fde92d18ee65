"""Scratch of networks as floats and as 8-bit integers, fast and small: results/int8-scratch.json.

    python benchmarks/int8_scratch.py
    python benchmarks/int8_scratch.py henet_r3 resnet8

Weights are random: bytes do not depend on them. `small` is what `leancnn export --to c --small` and
`leancnn fit` take.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from int8_engines import integers

from leancnn.bench import untrained
from leancnn.parity import trial_images
from leancnn.runs import machine, now, write_json
from leancnn.targets._c_text import to_c

RESULTS = Path(__file__).parent.parent / "results"
NETWORKS = (
    *("henet_r3", "shufflenet_r3", "shufflenetv2_x0_5", "resnet8", "resnet20", "mobilenetv2"),
    *("lbmbnet32_r6", "ssvepnet", "squeezenet1_1", "nvmnet_g4"),
)
CALIBRATION = 4  # images: places depend on no range


def row(name: str) -> dict[str, object]:
    """Bytes of one network."""
    network = untrained(name)
    made = integers(network, trial_images(network, CALIBRATION))
    floats, fast, small = to_c(network), to_c(made), to_c(made, small=True)
    return {
        "network": name,
        "floats": floats.scratch_bytes,
        "integers": fast.scratch_bytes,
        "integers / floats": round(fast.scratch_bytes / floats.scratch_bytes, 3),
        "integers, small": small.scratch_bytes,
        "small / fast": round(small.scratch_bytes / fast.scratch_bytes, 3),
    }


def main() -> None:
    """Plan, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    rows = []
    for name in parser.parse_args().networks:
        rows.append(row(name))
        print(rows[-1], file=sys.stderr)
    result = {
        "title": "Scratch in bytes: floats, and integers planned for speed and for memory",
        "command": " ".join(["python benchmarks/int8_scratch.py", *sys.argv[1:]]),
        "machine": machine(),
        "made": now(),
        "rows": rows,
    }
    write_json(RESULTS / "int8-scratch.json", result)


if __name__ == "__main__":
    main()
