"""Networks as machine code, from a saved network and from ONNX files."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import leancnn
from leancnn import cli
from leancnn.errors import DamagedError, UnsupportedError
from leancnn.weights import save
from tests.native_nets import settled
from tests.native_saved import network, on_shelf


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
def test_an_onnx_operator_we_do_not_have_is_named(tmp_path, monkeypatch):
    foreign(nn.Sequential(nn.Softplus(), nn.Flatten()), (1, 4, 4), tmp_path / "x.onnx", monkeypatch)
    with pytest.raises(UnsupportedError, match="operator Softplus"):
        leancnn.compile(tmp_path / "x.onnx")


def test_what_is_no_onnx_file_is_refused(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(DamagedError, match="not an ONNX file"):
        leancnn.compile(tmp_path / "x.onnx")
