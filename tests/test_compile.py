"""Networks as machine code, from a saved network and from ONNX files."""

import json
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

import leancnn
from leancnn import cli
from leancnn.errors import (
    ArgumentError,
    DamagedError,
    MismatchError,
    UnsupportedError,
    UsageError,
    WriteError,
)
from leancnn.toolchain import compile_library, run_compiler
from leancnn.weights import save
from tests.compiler_nets import compiled, settled, written
from tests.compiler_saved import network, on_shelf
from tests.few import few


@pytest.fixture(scope="module", autouse=True)
def speck():
    off = on_shelf()
    yield
    off()


def test_a_compiled_network_gives_the_networks_probabilities():
    net = network()
    classify = leancnn.compile(net)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    with torch.no_grad():
        expected = net(torch.from_numpy(images)).softmax(1).numpy()
    assert classify.classes == net.classes
    assert np.allclose(classify(images), expected, atol=1e-5)


def test_the_command_writes_source_header_and_library(tmp_path, capsys):
    save(network(), tmp_path / "saved")
    assert cli.main(["compile", str(tmp_path / "saved"), "--out", str(tmp_path), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["network"] == "speck"
    assert {"speck.c", "speck.h", "speck.so"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.long
def test_a_folder_keeps_its_network_and_takes_another_by_another_name(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    for scale, name in ((1, None), (30, "other")):
        net = network()
        with torch.no_grad():
            net.body[-1].bias.mul_(scale)
            expected = net(torch.from_numpy(images)).softmax(1).numpy()
        if name is not None:
            with pytest.raises(WriteError, match="file of another network"):
                leancnn.compile(net, out=tmp_path)
        made = leancnn.compile(net, out=tmp_path, name=name)
        for native in (made, leancnn.CompiledNetwork(tmp_path / f"{name or 'speck'}.so")):
            assert np.allclose(native(images), expected, atol=1e-5)


def test_two_networks_stand_in_one_program(tmp_path):
    names = ("one", "two")
    for name in names:
        text = written(settled(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))), (3, 2, 2), name)
        (tmp_path / f"{text.prefix}.c").write_text(text.source)
        (tmp_path / f"{text.prefix}.h").write_text(text.header)
    files = sorted(tmp_path.glob("*.c"))
    headers = "".join(f'#include "{path.stem}.h"\n' for path in files)
    calls = "".join(f"{path.stem}_run(image, p, NULL);" for path in files)
    (tmp_path / "main.c").write_text(
        f"{headers}int main(void) {{ uint8_t image[12] = {{0}}; float p[2]; {calls} return 0; }}\n"
    )
    program = tmp_path / "both"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    sources = [str(path) for path in (*files, tmp_path / "main.c")]
    run_compiler([*flags, *sources, "-lm", "-o", str(program)])
    subprocess.run([program], check=True)


@pytest.mark.parametrize(("classes", "words"), few([
    (("a\0b", "c"), "the class 'a.x00b' has a character"),
    (("a", "\ud800"), "has a character that no text in C can hold"),
], rows=True))  # fmt: skip
def test_a_class_that_c_cannot_spell_is_refused(classes, words):
    with pytest.raises(UnsupportedError, match=words):
        leancnn.compile(network(classes))


def test_long_names_and_odd_arguments():
    net = network()
    assert leancnn.compile(net, name="n" * 60).name == "n" * 60
    with pytest.raises(ArgumentError, match="up to 59 more"):
        leancnn.compile(net, name="n" * 61)
    for odd in (None, nn.Linear(1, 1)):
        with pytest.raises(UsageError, match=r"compile takes a leancnn\.Network"):
            leancnn.compile(odd)
    for seconds in (-3.0, float("nan")):
        with pytest.raises(MismatchError, match="0 seconds or more"):
            leancnn.compile(network(), tune=seconds)


def foreign(body, shape, path, monkeypatch):
    """Write a module as the old exporter of torch does: shapes and constants spelt out."""
    pytest.importorskip("onnx")
    torch.onnx.export(body, (torch.zeros(1, *shape),), path, dynamo=False, opset_version=17)


@pytest.mark.filterwarnings("ignore")
def test_a_foreign_onnx_file_becomes_machine_code(tmp_path, monkeypatch):
    body = settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.Conv2d(8, 8, 3, padding=1, groups=4),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )
    )
    foreign(body, (3, 17, 19), tmp_path / "third.onnx", monkeypatch)
    native = leancnn.compile(tmp_path / "third.onnx", out=tmp_path)
    images = np.random.default_rng(0).standard_normal((3, 3, 17, 19)).astype(np.float32)
    with torch.no_grad():
        expected = body(torch.from_numpy(images)).numpy()
    assert np.allclose(native.logits(images), expected, atol=1e-4)
    assert (tmp_path / "third.so").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_operator_we_do_not_have_is_named(tmp_path, monkeypatch, capsys):
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(x).flatten(1)

    foreign(Sine(), (1, 4, 4), tmp_path / "x.onnx", monkeypatch)
    words = ["compile", str(tmp_path / "x.onnx"), "--out", str(tmp_path)]
    for more in ([], ["--json"]):
        status, printed = answer(capsys, *words, *more)
        assert status == 1
        assert "x.onnx: operator Sin (at " in printed.err
        assert printed.err.count("\n") == 1
        assert len(printed.err) < 200
        if more:
            assert "Relu" in json.loads(printed.out)["operators"]


def test_what_is_no_onnx_file_is_refused(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(DamagedError, match="not an ONNX file"):
        leancnn.compile(tmp_path / "x.onnx")


def answer(capsys, *words):
    status = cli.main(list(words))
    printed = capsys.readouterr()
    return status, printed


def test_a_compiled_network_predicts_as_its_run(tmp_path, capsys):
    from PIL import Image

    save(network(), tmp_path / "saved")
    native = leancnn.compile(tmp_path / "saved", out=tmp_path)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 15, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"junk")
    words, found = [str(tmp_path), "--json"], []
    for source in (tmp_path / "saved", native.path):
        status, printed = answer(capsys, "predict", str(source), *words)
        assert status == 1
        found.append(json.loads(printed.out))
    plain, compiled = found
    assert compiled["refused"] == plain["refused"]
    assert len(compiled["predictions"]) == 3
    for one, other in zip(plain["predictions"], compiled["predictions"], strict=True):
        assert (one["path"], one["label"]) == (other["path"], other["label"])
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
        assert [item["label"] for item in one["top"]] == [item["label"] for item in other["top"]]
    sheet = tmp_path / "sheet.png"
    picture = str(tmp_path / "0.png")
    status, _ = answer(capsys, "predict", str(native.path), picture, "--sheet", str(sheet))
    assert status == 0
    assert sheet.stat().st_size > 0
    assert leancnn.predict(leancnn.CompiledNetwork(native.path), picture)[0].path == picture


def test_a_library_that_cannot_predict_is_refused_in_one_line(tmp_path, capsys):
    foreign_one = compile_library("int f(void) { return 1; }", name="foreign")
    (tmp_path / "text.so").write_text("not a library")
    body = settled(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    unsaid = compiled(body, (1, 2, 2)).path
    cases = [
        (foreign_one, [], "not a network compiled by leancnn"),
        (tmp_path / "text.so", [], "is altered or cut short"),
        (tmp_path / "none.so", [], "no such file"),
        (unsaid, [], "does not say how a picture becomes its input"),
        (unsaid, ["--checkpoint", "last"], "has no 'last'"),
    ]
    for path, more, reason in cases:
        status, printed = answer(capsys, "predict", str(path), "x.png", *more)
        assert status == 1
        assert reason in printed.err
        assert printed.err.count("\n") == 1
