"""A law over all that answers: a torch network, a quantized one, a compiled library, a session.

Same images, same classes, same errors; evaluate, predict, serve, bench and comparisons take each.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import leancnn
from leancnn import weights
from leancnn.bench import bench
from leancnn.classifier import Classifier
from leancnn.errors import DamagedError, MismatchError, RunError
from leancnn.predict import open_classifier
from leancnn.prune.measure import TestAccuracy
from leancnn.quantize import quantize
from tests.few import few

KINDS = ("torch", "quantized", "compiled", "onnx", "quantized onnx", "torch session")


@pytest.fixture(scope="module")
def made(quiet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trained network, and what comes of it."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("classifiers")
    quantize(quiet, folder / "quantized", images=24)
    leancnn.compile(quiet, out=folder / "c")
    return {
        "torch": quiet,
        "quantized": folder / "quantized",
        "compiled": next((folder / "c").glob("*.so")),
        "onnx": leancnn.export(quiet, to="onnx", out=folder)[0],
        "quantized onnx": leancnn.export(
            folder / "quantized", to="onnx", out=folder / "q", name="q"
        )[0],
    }


@pytest.fixture(scope="module")
def opened(made: dict[str, Path]) -> Callable[[str], Classifier]:
    from leancnn.targets._torch import in_process

    session = in_process(weights.load(made["torch"]))
    return lambda kind: session if kind == "torch session" else open_classifier(made[kind])


@pytest.fixture(scope="module")
def images(pictures: Path) -> np.ndarray:
    """Some pictures as a network takes them."""
    paths = sorted(pictures.rglob("*.png"))[::7]
    return np.stack([np.array(Image.open(path))[1:9, 1:9] for path in paths])


@pytest.mark.parametrize("kind", few(KINDS))
def test_all_say_their_name_their_classes_and_what_they_take(kind, opened):
    one, whole = opened(kind), opened("torch")
    assert one.name == whole.name
    assert one.classes == whole.classes
    assert one.pictures() == whole.pictures()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_get_the_same_classes(kind, opened, images):
    expected = opened("quantized" if "quantized" in kind else "torch").probabilities(images)
    found = opened(kind).probabilities(images)
    assert found.dtype == np.float64
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() < (0.05 if kind == "quantized onnx" else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [
    np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8),
    np.zeros((2, 9, 8, 3), np.uint8), np.zeros((2, 3, 8, 8), np.uint8),
])  # fmt: skip
def test_other_images_are_refused_in_the_same_words(kind, odd, opened):
    with pytest.raises(MismatchError) as mine:
        opened(kind).probabilities(odd)
    with pytest.raises(MismatchError) as theirs:
        opened("torch").probabilities(odd)
    assert str(mine.value) == str(theirs.value)
    assert "takes uint8 (N, 8, 8, 3), not" in str(mine.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_images_are_no_answers(kind, opened):
    assert opened(kind).probabilities(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_predict_takes_it_and_evaluate_too(kind, opened, pictures):
    one = opened(kind)
    expected = opened("quantized" if "quantized" in kind else "torch")
    path = next(pictures.rglob("*.png"))
    assert leancnn.predict(one, path)[0].label == leancnn.predict(expected, path)[0].label
    assert leancnn.evaluate(one, pictures).accuracy == leancnn.evaluate(expected, pictures).accuracy
    if kind not in ("torch", "quantized"):
        with pytest.raises(RunError, match="name it with --data"):
            leancnn.evaluate(one)


@pytest.mark.parametrize("kind", ["compiled", "onnx"])
def test_a_file_is_opened_by_its_suffix(kind, made, pictures):
    found = leancnn.evaluate(made[kind], pictures)
    assert found.network == str(made[kind])
    assert found.accuracy == leancnn.evaluate(weights.load(made["torch"]), pictures).accuracy
    with pytest.raises(MismatchError, match="is one network; it has no 'best'"):
        open_classifier(made[kind], "best")


def test_a_file_that_is_not_there_or_none_of_ours_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        open_classifier(tmp_path / "none.onnx")
    (tmp_path / "odd.onnx").write_bytes(b"no network")
    with pytest.raises(DamagedError):
        open_classifier(tmp_path / "odd.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_a_comparison_measures_it(kind, opened, pictures, tmp_path):
    whole = opened("torch")
    test = TestAccuracy(whole, str(pictures))
    found = test.accuracy(opened(kind), tmp_path)
    assert found == leancnn.evaluate(opened(kind), pictures).accuracy


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_with_it(kind, opened, pictures):
    pytest.importorskip("starlette")
    httpx = pytest.importorskip("httpx")
    from leancnn.serve import Service

    one = opened(kind)
    mode = one.training if isinstance(one, torch.nn.Module) else None
    path = next(pictures.rglob("*.png"))

    async def asked() -> tuple[Any, Any]:
        transport = httpx.ASGITransport(app=Service(one).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            kind_of = {"content-type": "image/png"}
            answer = await client.post("/predict", content=path.read_bytes(), headers=kind_of)
            return answer.json(), (await client.get("/about")).json()["size"]

    answer, size = asyncio.run(asked())
    assert answer["predictions"][0]["label"] == leancnn.predict(one, path)[0].label
    assert size == {"channels": 3, "height": 8, "width": 8}
    assert mode is None or one.training == mode


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "engine"), [("compiled", "c"), ("onnx", "onnxruntime")])
def test_what_was_written_for_one_engine_is_timed_on_that(kind, engine, opened):
    (row,), missing = bench([opened(kind)], rounds=1, seconds=0.01)
    assert not missing
    assert (row.model, row.engine, row.macs, row.share_of_peak) == ("tiny", engine, 0, None)
    assert row.artifact_bytes > 0
    assert row.difference == 0


@pytest.mark.slow
def test_a_session_without_a_file_is_not_timed(opened):
    rows, (gap,) = bench([opened("torch session")], rounds=1, seconds=0.01)
    assert not rows
    assert "was not loaded from a file" in gap.reason
