"""Filters, features and a logit as one C file, beside the same in Python, and on a board."""

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from leancnn.eeg.decoders import fit_logit
from leancnn.eeg.filters import bank_for
from leancnn.eeg.recording import Epochs
from leancnn.eeg.to_c import LANES, pipeline_c, unmixing
from leancnn.eeg.windows import images, windows
from leancnn.toolchain import FAST_FLAGS, compile_library
from tests.eeg_data import people

ARM = shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")
HERE = Path(__file__).parent


@cache
def trained(seconds, channels=8):
    """Trials of some channels, a logit of a window, and its scores of the first twelve."""
    made = people(count=2, trials=16)
    epochs = Epochs(
        made.x[:, :channels], made.hz, made.subject, made.session, 250.0, -1.0,
        made.channels[:channels],
    )  # fmt: skip
    bank, targets = bank_for(epochs.targets), epochs.targets
    features = images(epochs, bank, seconds)
    logit = fit_logit(features, epochs.labels, epochs.session, targets, bank, strength=0.03)
    expected = [logit.scores(w, 250.0) for w in windows(epochs[np.arange(12)], bank, seconds)]
    return epochs, logit, np.array(expected)


@pytest.mark.parametrize(("seconds", "channels"), [(2.0, 8), (0.996, 3)])
def test_one_c_file_decides_as_the_stream_in_python_does(seconds, channels):
    epochs, logit, expected = trained(seconds, channels)
    source = pipeline_c(logit, 250.0, channels, seconds)
    library = ctypes.CDLL(str(compile_library(source, name="eeg", flags=FAST_FLAGS)))
    state = np.zeros(4 << 20, np.uint8)  # more than struct eeg
    place, scores = ctypes.c_void_p(state.ctypes.data), np.empty(4, np.float32)
    stop, found = epochs.sample(1.0) + round(seconds * 250), []
    for trial in epochs.x[:12] + np.float32(2000):  # an amplifier's offset
        library.eeg_reset(place)
        for sample in np.ascontiguousarray(trial[:, :stop].T):
            library.eeg_push(place, ctypes.c_void_p(sample.ctypes.data))
        assert library.eeg_scores(place, ctypes.c_void_p(scores.ctypes.data)) == 1
        found.append(scores.copy())
    assert np.abs(np.array(found) - expected).max() < 1e-3
    assert (np.argmax(found, 1) == np.argmax(expected, 1)).all()


@pytest.mark.parametrize("samples", [2 * LANES, 125, 500])
def test_waves_unmixed_are_orthonormal_to_each_other_and_to_a_constant(samples):
    at = 0.31 * (np.arange(samples) - (samples - 1) / 2)
    s1, c1, s2, c2 = (f(n * at) - f(n * at).mean() for n in (1, 2) for f in (np.sin, np.cos))
    u = unmixing(0.31, samples)
    made = np.stack([u[0] * s1, u[1] * c1, u[2] * s1 + u[3] * s2, u[4] * c1 + u[5] * c2])
    assert np.allclose(made @ made.T, np.eye(4), atol=1e-12)
    assert np.allclose(made.sum(1), 0, atol=1e-9)


def on_board(folder, source, samples, core="cortex-m4", machine="mps2-an386", fpu="fpv4-sp-d16"):
    """A pipeline built for a Cortex-M and run in QEMU: scores, and instructions of two calls."""
    (folder / "decoder.c").write_text(source)
    rows = ",\n".join("{" + ",".join(f"{float(x)!r}f" for x in row) + "}" for row in samples)
    text = f"static const float samples[][{samples.shape[1]}] = {{{rows}}};\n"
    (folder / "samples.h").write_text(text)
    flags = (
        *(f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={fpu}", "-std=c11", "-O2"),
        *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-fno-math-errno"),
        *(f"-I{folder}", "-nostartfiles", "--specs=rdimon.specs", "-T", HERE / "board.ld"),
        *(HERE / "eeg_board_main.c", HERE / "board_startup.c", "-lm", "-o", folder / "board.elf"),
    )
    words = [str(word) for word in ("arm-none-eabi-gcc", *flags)]
    subprocess.run(words, check=True, capture_output=True)
    run = ["qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-icount", "shift=0"]
    done = subprocess.run(
        [*run, "-kernel", str(folder / "board.elf")],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    bits, counts = done.stdout.splitlines()
    scores = np.array([int(word, 16) for word in bits.split()], np.uint32).view(np.float32)
    return scores, *map(int, counts.split())


@pytest.mark.slow
@pytest.mark.skipif(not ARM, reason="needs gcc-arm-none-eabi and qemu-system-arm")
@pytest.mark.parametrize(
    ("core", "machine", "fpu"),
    [("cortex-m4", "mps2-an386", "fpv4-sp-d16"), ("cortex-m7", "mps2-an500", "fpv5-sp-d16")],
)
def test_a_board_decides_as_the_desktop(tmp_path, core, machine, fpu):
    epochs, logit, expected = trained(2.0)
    samples = epochs.x[0, :, : epochs.sample(3.0)].T
    scores, decision, push = on_board(
        tmp_path, pipeline_c(logit, 250.0, 8, 2.0), samples, core, machine, fpu
    )
    assert np.allclose(scores, expected[0], atol=1e-3)
    assert 0 < push < decision
