"""What PyTorch's own quantization-aware training exports, in integers."""

import numpy as np
import pytest
import torch
from torch import nn

import leancnn
from tests.few import few
from tests.test_from_qdq import literal

pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated, and what it warns of


class Small(nn.Module):
    """Convolutions with batch norm, a shortcut, groups, a matrix."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.other = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8)
        self.matrix = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.other(self.second(x)) + x)
        return self.matrix(self.last(x).mean((2, 3)))


def trained(backend):
    """A network after four steps of quantization-aware training."""
    from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    torch.manual_seed(0)
    way = QConfigMapping().set_global(get_default_qat_qconfig(backend, version=0))
    network = prepare_qat_fx(Small().train(), way, (torch.zeros(1, 3, 9, 10),))
    steps = torch.optim.SGD(network.parameters(), 0.01)
    for _ in range(4):
        network(torch.rand(8, 3, 9, 10) * 2 - 1).square().mean().backward()
        steps.step()
        steps.zero_grad()
    network.apply(torch.ao.quantization.disable_observer)
    return network.eval()


@pytest.mark.parametrize("backend", few(["x86", "qnnpack"]))  # bytes up to 127, and all of them
def test_what_pytorch_exports_is_compiled_to_integers(backend, tmp_path):
    pytest.importorskip("onnxruntime")
    network, path = trained(backend), tmp_path / "torch.onnx"
    image = torch.zeros(1, 3, 9, 10)
    torch.onnx.export(
        network, (image,), str(path), dynamo=False, opset_version=17, input_names=["image"]
    )
    native = leancnn.compile(path)
    assert native.metadata["precision"] == "int8"
    images = np.random.default_rng(4).uniform(-1, 1, (8, 3, 9, 10)).astype(np.float32)
    expected = literal(path, images)
    error = np.abs(native.logits(images) - expected)
    assert error.max() <= 0.03 * np.abs(expected).max()
    assert error.mean() <= 0.005 * np.abs(expected).max()
