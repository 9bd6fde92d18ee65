"""The formats, one file each: what was written is loaded, and answers as the network."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from leancnn.errors import (
    DamagedError,
    MissingDependencyError,
    UnknownNameError,
)
from leancnn.export import export
from leancnn.layers import RMAC
from leancnn.parity import check_parity, trial_images
from leancnn.targets import targets
from leancnn.targets._metadata import read_metadata, write_metadata
from leancnn.targets.ncnn import RewrittenForNcnn
from tests.compiler_nets import settled
from tests.compiler_saved import network, on_shelf


@pytest.fixture(scope="module", autouse=True)
def speck():
    off = on_shelf()
    yield
    off()


@pytest.mark.parametrize("to", ["c", "torch"])
def test_what_is_exported_answers_as_the_network(to, tmp_path):
    net = network()
    paths = export(net, to=to, out=tmp_path)
    assert all(path.exists() for path in paths)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    loaded = targets[to].load(paths[0])
    assert loaded.classes == net.classes
    assert check_parity(net, loaded, trial_images(net)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "module"),
    [
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
        ("ncnn", "ncnn"),
        ("litert", "ai_edge_litert"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_foreign_formats_answer_as_the_network(to, module, tmp_path):
    pytest.importorskip(module)
    if to == "litert" and not os.environ.get("LEANCNN_LITERT_PYTHON"):
        pytest.skip("LEANCNN_LITERT_PYTHON names no environment with LiteRT's converter")
    net = network()
    paths = export(net, to=to, out=tmp_path)
    assert check_parity(net, targets[to].load(paths[0]), trial_images(net)) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ncnn_sums_unit_vectors_of_windows_as_the_network_does(tmp_path):
    pytest.importorskip("ncnn")
    net = network()
    net.body = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), RMAC(), nn.Linear(4, 3)))
    paths = export(net, to="ncnn", out=tmp_path)
    assert check_parity(net, targets["ncnn"].load(paths[0]), trial_images(net)) < 1e-4


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated; pnnx reads nothing else
def test_unit_vectors_are_spelled_out_for_pnnx_and_nobody_else():
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 0
    expected = functional.normalize(x, dim=2, eps=1e-6)
    with RewrittenForNcnn():
        assert torch.allclose(functional.normalize(x, dim=2, eps=1e-6), expected)
        traced = str(torch.jit.trace(lambda x: functional.normalize(x, dim=2), x).graph)
    assert "norm" not in traced
    assert "norm" in str(torch.jit.trace(lambda x: functional.normalize(x, dim=2), x).graph)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [(2, 2), (3, 1)])
def test_strided_pixels_are_picked_without_a_slice_for_ncnn(steps):
    x = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(0))

    def picked(x):
        return x[:, :, :: steps[0], :: steps[1]]

    with RewrittenForNcnn():
        spelled, other = picked(x), x[:, 1:, ::2, ::2]
        traced = str(torch.jit.trace(picked, x).graph)
    assert "slice" not in traced
    assert torch.equal(spelled, picked(x))
    assert torch.equal(other, x[:, 1:, ::2, ::2])


@pytest.mark.parametrize(
    ("to", "module", "named"),
    [("ncnn", "pnnx", r"leancnn\[ncnn\]"), ("litert", "none", "litert-torch")],
)
def test_a_converter_that_is_not_there_is_named_with_the_way_to_install_it(
    to, module, named, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delenv("LEANCNN_LITERT_PYTHON", raising=False)
    with pytest.raises(MissingDependencyError, match=named) as caught:
        export(network(), to=to, out=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "module"), [("ncnn", "ncnn"), ("litert", "ai_edge_litert")])
def test_a_file_without_its_notes_is_refused(to, module, tmp_path):
    pytest.importorskip(module)
    with pytest.raises(DamagedError, match="metadata of a network"):
        targets[to].load(tmp_path / f"x{targets[to].suffix}")


def test_notes_make_the_planes_the_network_makes(tmp_path):
    net = network()
    write_metadata(net, tmp_path / "x.param")
    metadata, images = read_metadata(tmp_path / "x.param"), trial_images(net)
    assert metadata.classes == net.classes
    expected = net.normalise(torch.from_numpy(images)).numpy()
    assert np.allclose(metadata.planes(images), expected, atol=1e-6)


def test_an_unknown_target_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        export(network(), to="onxn", out=tmp_path)


def test_a_foreign_file_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"not this")
    with pytest.raises(DamagedError, match="not an ONNX file of ours"):
        targets["onnx"].load(tmp_path / "x.onnx")
