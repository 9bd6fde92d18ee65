"""Weights of somebody else's: every kind of file, other names and heads, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leancnn import cli, pretrained, weights
from leancnn.bench import untrained
from leancnn.errors import DamagedError, LeanCNNError, MismatchError, UsageError
from leancnn.models import create_model
from leancnn.train import train
from tests.few import few
from tests.tiny import RECIPE

pytestmark = pytest.mark.usefixtures("one_thread")

STILL = RECIPE.changed(epochs=0.2, lr=1e-12, ema=0.9, warmup=0.0, schedule="constant")


def other(classes: int = 10) -> torch.nn.Module:
    """A network with weights that no seed of ours gives."""
    body = create_model("resnet8", classes=classes, seed=11)
    with torch.no_grad():
        for name, tensor in body.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5))
                tensor.add_(0.1 * noise.abs() if name.endswith("var") else 0.1 * noise)
    return body


@pytest.mark.parametrize(
    ("name", "wrap"),
    few(
        [
            ("plain.pt", lambda state: state),
            ("wrapped.pth", lambda state: {"epoch": 3, "state_dict": state}),
            (
                "parallel.ckpt",
                lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
            ),
            ("compiled.bin", lambda state: {f"_orig_mod.{k}": v for k, v in state.items()}),
            ("safe.safetensors", lambda state: {f"net.{k}": v for k, v in state.items()}),
        ],
        rows=True,
    ),
)
def test_training_begins_with_the_weights_of_a_file(
    name: str, wrap: Any, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = other(classes=3)
    held = wrap(body.state_dict())
    place = tmp_path / name
    save_file(held, place) if place.suffix == ".safetensors" else torch.save(held, place)
    trained = train(
        pictures, model="resnet8", start=place, recipe=STILL, out=tmp_path / "run", progress=False
    )
    for key, tensor in trained.network.body.named_parameters():
        torch.testing.assert_close(tensor, dict(body.named_parameters())[key], atol=1e-6, rtol=0)
    assert f"tensors from {place}; images are normalised by this data's" in capfd.readouterr().err


def test_another_head_starts_anew_and_is_said(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = other()
    torch.save(body.state_dict(), tmp_path / "ten.pt")
    words = ["train", str(pictures), "--model", "resnet8", "--init-from", str(tmp_path / "ten.pt")]
    words += ["--epochs", "0.2", "--lr", "1e-9", "--out", str(tmp_path / "run"), "--quiet"]
    words += ["--batch", "16", "--override", "backend=torch", "--override", "precision=fp32"]
    assert cli.main(words) == 0
    assert "other classes, so fc.weight and fc.bias start anew" in capfd.readouterr().err
    found = weights.load(tmp_path / "run").body
    assert found.fc.out_features == 3
    torch.testing.assert_close(found.conv1.weight, body.conv1.weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", few(["resnet8", pytest.param("henet_r2", marks=pytest.mark.slow)]))
def test_onnx_with_folded_norms_answers_as_the_file_and_can_be_trained(
    name: str, tmp_path: Path
) -> None:
    """In evaluation the same function, and in training nearly: the norms see what they remember."""
    pytest.importorskip("onnxscript")
    from leancnn.targets.onnx import to_onnx

    network = untrained(name)
    place = tmp_path / f"{name}.onnx"
    place.write_bytes(to_onnx(network))
    random = np.random.default_rng(0)
    shape = (64, *network.preprocessing.size, 3)
    images = network.normalise(torch.from_numpy(random.integers(0, 256, shape, dtype=np.uint8)))
    body = create_model(name, seed=3)
    said = pretrained.fill(body, pretrained.read(place), images, place)
    assert "batch norms that were folded are made anew" in said
    with torch.no_grad():
        expected = network.body.eval()(images)
        scale = float(expected.abs().max())
        assert float((body.eval()(images) - expected).abs().max()) < 1e-4 * scale
        dropless = body.train()
        for part in dropless.modules():
            if isinstance(part, torch.nn.Dropout):
                part.eval()
        assert float((dropless(images) - expected).abs().max()) < 0.02 * scale


def test_what_does_not_fit_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    state = other().state_dict()
    torch.save({k: v for k, v in state.items() if k != "conv1.weight"}, tmp_path / "less.pt")
    torch.save({**state, "conv1.weight": torch.zeros(16, 3, 5, 5)}, tmp_path / "wide.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "foreign.pt")
    torch.save({**state, "conv1.weight": state["conv1.weight"] / 0}, tmp_path / "nan.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "wide.pt").read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "text.onnx").write_text("no graph")
    for name, error, text in (
        ("less.pt", MismatchError, "is not of this network: conv1.weight is missing"),
        ("wide.pt", MismatchError, r"conv1.weight is \(16, 3, 5, 5\), not"),
        ("foreign.pt", MismatchError, "is missing"),
        ("nan.pt", DamagedError, "conv1.weight has values that are no numbers"),
        ("list.pt", DamagedError, "holds a list, no state dict"),
        ("none.pt", DamagedError, "holds no tensors"),
        ("cut.pt", DamagedError, "no weights that can be read safely"),
        ("text.safetensors", DamagedError, "no weights that can be read safely"),
        ("text.onnx", LeanCNNError, "no weights that can be read safely|needs onnx"),
        ("absent.pt", UsageError, "no such file of weights"),
    ):
        with pytest.raises(error, match=text):
            train("digits", model="resnet8", start=tmp_path / name, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Evil:
    """Runs code where a pickle is trusted."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.place),))

    place = ""


def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path) -> None:
    Evil.place = str(tmp_path / "ran")
    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump({"conv1.weight": Evil()}, file)
    torch.save({"conv1.weight": Evil()}, tmp_path / "zip.pt")
    for name in ("evil.pt", "zip.pt"):
        with pytest.raises(DamagedError, match="no weights that can be read safely"):
            pretrained.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()
