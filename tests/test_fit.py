"""Networks beside boards: what they need and leave, and projects that answer alike there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from leancnn import cli, models
from leancnn.boards import boards
from leancnn.compiled import CompiledNetwork
from leancnn.errors import UnknownNameError
from leancnn.export import export
from leancnn.fit import CODE, RESERVED, fit
from leancnn.preprocess import Preprocessing
from leancnn.targets._c_text import to_c
from leancnn.toolchain import compile_library
from leancnn.weights import Network, save
from tests.few import few
from tests.tiny import tiny

TESTS = Path(__file__).parent
ARM = shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")


def network(name="tiny", body=None, size=(8, 8)):
    torch.manual_seed(0)
    return Network(
        (body or tiny()).eval(),
        name=name,
        arguments={},
        classes=tuple(f"class {number}" for number in range(3)),
        preprocessing=Preprocessing(size=size),
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.3, 0.25],
    )


def test_a_board_has_room_for_a_small_network_and_none_for_a_large_one():
    found = fit(network(), "nano33ble")
    assert found.fits
    assert found.flash_left == boards["nano33ble"].flash - found.flash > 0
    assert found.keep == 1
    assert "fits Arduino Nano 33 BLE" in str(found)
    large = network("resnet8", models.create_model("resnet8", classes=3), (32, 32))
    found = fit(large, "uno_r4_minima", suggest=False)
    assert not found.fits
    assert found.flash > CODE + 4 * models.card("resnet8").trainable * 0.9
    assert found.ram > RESERVED
    assert 0 <= found.keep < 1
    assert re.search(r"RAM: [\d,]+ bytes, [\d,]+ missing", str(found))
    assert "leancnn prune" in str(found)


@pytest.mark.long
def test_what_would_fit_instead_takes_the_same_pixels_and_fits(monkeypatch):
    monkeypatch.setattr(models, "names", lambda: ["resnet8", "resnet20", "henet_r2", "alexnet"])
    large = network("resnet20", models.create_model("resnet20", classes=3), (32, 32))
    found = fit(large, "nano33ble")
    assert not found.fits
    assert found.smaller == ("resnet8",)


def test_an_unknown_board_is_named_with_its_nearest():
    with pytest.raises(UnknownNameError, match="nano33ble"):
        fit(network(), "nano33bl")


@pytest.mark.long
def test_the_command_says_what_is_missing_and_ends_with_one(tmp_path, capsys):
    save(network("tiny"), tmp_path / "net")
    assert cli.main(["fit", str(tmp_path / "net"), "--board", "nano33ble", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["fits"]
    assert cli.main(["fit", str(tmp_path / "net")]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in boards)
    large = network("resnet8", models.create_model("resnet8", classes=3), (32, 32))
    save(large, tmp_path / "large")
    assert cli.main(["fit", str(tmp_path / "large"), "--board", "uno_r4_minima"]) == 1
    assert "missing" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8"])
def test_little_memory_takes_no_more_and_answers_the_same(name):
    card = models.card(name)
    net = network(name, models.create_model(name, classes=3), card.image[1:])
    small, fast = to_c(net, small=True), to_c(net)
    assert small.scratch_bytes <= fast.scratch_bytes
    image = np.random.default_rng(0).standard_normal((1, *card.image)).astype(np.float32)
    answers = [
        CompiledNetwork(compile_library(written.source, name=name)).logits(image)
        for written in (small, fast)
    ]
    np.testing.assert_allclose(*answers, atol=1e-4 * np.abs(answers[1]).max())


@pytest.mark.parametrize("to", few(["arduino", "platformio"]))
def test_a_project_holds_the_network_a_picture_and_a_program(tmp_path, to):
    (place,) = export(network(), to=to, out=tmp_path)
    names = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    if to == "arduino":
        assert names == {"tiny.ino", "src/tiny.c", "src/tiny.h", "src/picture.h"}
    else:
        assert names >= {"platformio.ini", "src/main.cpp", "lib/tiny/tiny.c", "include/picture.h"}
        text = (place / "platformio.ini").read_text()
        assert all(f"[env:{name}]" in text for name in boards)


def test_the_program_of_a_project_is_c_plus_plus_that_a_core_of_arduino_takes(tmp_path):
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    (place,) = export(network(), to="arduino", out=tmp_path)
    (tmp_path / "Arduino.h").write_text(
        "#include <cstdio>\n#define F(text) text\nunsigned long micros(void);\n"
        "unsigned long millis(void);\nvoid delay(unsigned long);\n"
        "struct Port { void begin(long) {} explicit operator bool() const { return true; }\n"
        "template <class T> void print(T, int = 0) {} template <class T> void println(T) {} };\n"
        "extern Port Serial;\n"
    )
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++"]
    subprocess.run(["g++", *flags, f"-I{tmp_path}", str(place / "tiny.ino")], check=True)


def on_board(place, net, folder, machine="mps2-an386", core="cortex-m4", fpu="fpv4-sp-d16"):
    """Build a sketch's C with gcc for a Cortex-M, run it in QEMU: class, probabilities, count.

    Without `fpu`, for a core that has no unit of floating point.
    """
    written = to_c(net, small=True)
    name, built = written.prefix, folder / "board.elf"
    flags = (
        *(f"-mcpu={core}", "-mthumb", "-std=c11", "-O2"),
        *(("-mfloat-abi=hard", f"-mfpu={fpu}") if fpu else ("-mfloat-abi=soft",)),
        *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-fno-math-errno"),
        *(f"-DSCRATCH={written.scratch_bytes}", f'-DNETWORK="{name}.h"', f"-DNAME(x)={name}_##x"),
        *(f"-I{place / 'src'}", "-nostartfiles", "--specs=rdimon.specs", "-T"),
    )
    sources = [place / "src" / f"{name}.c", TESTS / "board_main.c", TESTS / "board_startup.c"]
    words = ["arm-none-eabi-gcc", *flags, TESTS / "board.ld", *sources, "-lm", "-o", built]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
    run = ["qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-icount", "shift=0"]
    done = subprocess.run(
        [*run, "-kernel", str(built)], check=True, capture_output=True, text=True, timeout=120
    )
    first, bits, count = done.stdout.splitlines()
    values = np.array([int(word, 16) for word in bits.split()], np.uint32).view(np.float32)
    return int(first.split()[0]), values, int(count)


@pytest.mark.slow
@pytest.mark.skipif(not ARM, reason="needs gcc-arm-none-eabi and qemu-system-arm")
@pytest.mark.parametrize(
    ("machine", "core", "fpu"),
    [("mps2-an386", "cortex-m4", "fpv4-sp-d16"), ("mps2-an500", "cortex-m7", "fpv5-sp-d16")],
)
@pytest.mark.parametrize("name", ["tiny", "resnet8", "henet_r3"])
def test_a_board_answers_as_the_desktop(tmp_path, name, machine, core, fpu):
    body = tiny() if name == "tiny" else models.create_model(name, classes=3)
    size = (8, 8) if name == "tiny" else models.card(name).image[1:]
    net = network(name, body, size)
    (place,) = export(net, to="arduino", out=tmp_path)
    best, probabilities, count = on_board(place, net, tmp_path, machine, core, fpu)
    text = (place / "src" / "picture.h").read_text()
    pixels = np.array(re.search(r"\{(.*)\}", text, re.S)[1].replace(",", " ").split(), np.uint8)
    image = pixels.reshape(1, *net.preprocessing.size, 3)
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).softmax(1)[0].numpy()
    assert best == expected.argmax()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert count > 1000
