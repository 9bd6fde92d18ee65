"""What a decision on EEG takes on a Cortex-M, built by gcc and run in QEMU: results/eeg-board.json.

    python benchmarks/eeg_board.py              needs gcc-arm-none-eabi and qemu-system-arm

The decoder is a logit of four candidates on made EEG; code is what the linker put into flash
without constants of ours, C library and semihosting included.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from leancnn.eeg.to_c import pipeline_c
from leancnn.runs import machine, now, write_json
from tests.test_eeg_c import on_board, trained

RESULT = Path(__file__).parent.parent / "results" / "eeg-board.json"
CORES = (("cortex-m4", "mps2-an386", "fpv4-sp-d16"), ("cortex-m7", "mps2-an500", "fpv5-d16"))


def row(seconds: float, core: str, machine: str, fpu: str) -> dict[str, object]:
    """One core and window: instructions of a decision and of a sample, and bytes."""
    epochs, logit, _ = trained(seconds)
    samples = epochs.x[0, :, : epochs.sample(1.0) + round(seconds * 250)].T
    source = pipeline_c(logit, 250.0, 8, seconds)
    with tempfile.TemporaryDirectory() as folder:
        _, decision, push = on_board(Path(folder), source, samples, core, machine, fpu)
        words = ["arm-none-eabi-size", f"{folder}/board.elf"]
        sizes = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        flash, data, bss = map(int, sizes.splitlines()[1].split()[:3])
    return {
        "core": f"{core}, {fpu}",
        "window s": seconds,
        "instructions of a decision": decision,
        "of a sample": push,
        "flash": flash + data - samples.nbytes,
        "RAM": data + bss,
    }


if __name__ == "__main__":
    rows = [row(seconds, *core) for core in CORES for seconds in (1.0, 2.0)]
    write_json(
        RESULT,
        {
            "command": "python benchmarks/eeg_board.py",
            "machine": machine(),
            "made": now(),
            "title": "A decision on a microcontroller, in QEMU: 8 channels at 250 Hz, 4 candidates",
            "rows": rows,
            "note": "instructions, not cycles; bytes with the C library; fpv4 has no doubles",
        },
    )
    print(RESULT)
