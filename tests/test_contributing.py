"""What CONTRIBUTING.md says is enough to add is enough: each of its files, put where it says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from leancnn.compiled import CompiledNetwork

pytestmark = pytest.mark.slow  # CI runs it by name
ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(leancnn/\w+/\w+\.py)`.*?```python\n(.*?)```", TEXT, re.S))
"""By path, each file that the page shows."""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package with every one of those files in it."""
    place = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "leancnn", place / "leancnn", ignore=shutil.ignore_patterns("*.pyc"))
    for path, code in FILES.items():
        assert not (place / path).exists(), path
        (place / path).write_text(code, encoding="utf-8")
    return place


def said(house, *words, check=True):
    """What `leancnn` with these words prints in that copy, as JSON."""
    command = [sys.executable, "-m", "leancnn", *map(str, words), "--json"]
    done = subprocess.run(
        command, cwd=house, env=environment(house), capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def environment(house):
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(house),
        "HOME": str(house),
        "LEANCNN_CACHE": str(house / "cache"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def run(house):
    """A short training with the page's network, recipe and data format."""
    folder = house / "arrays"
    folder.mkdir()
    made = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        np.save(folder / f"{part}_images.npy", made.integers(0, 256, (count, 31, 31, 3), np.uint8))
        np.save(folder / f"{part}_labels.npy", np.arange(count) % 3)
    words = ("--model", "tinynet", "--recipe", "brief", "--epochs", "1", "--out", house / "run")
    said(house, "train", folder, *words)
    return house / "run"


def test_the_page_shows_a_file_for_each_family():
    assert {Path(path).parent.name for path in FILES} >= {
        *("models", "criteria", "recipes", "data", "targets", "commands", "compiler")
    }


def test_the_network_costs_what_its_card_says(house):
    cost = said(house, "count", "tinynet")
    card = {key: int(value.replace("_", "")) for key, value in CARD}
    assert {key: cost[key] for key in card} == card


CARD = re.findall(r"(trainable|macs|buffers)=([\d_]+)", FILES["leancnn/models/tinynet.py"])


def test_the_data_format_is_recognised_and_its_images_train_the_network(run, house):
    assert said(house, "check", house / "arrays")["ok"]
    assert said(house, "evaluate", run)["images"] == 20


def test_the_command_lists_the_classes(run, house):
    assert said(house, "classes", run) == ["0", "1", "2"]


def test_the_target_answers_as_pytorch_does(run, house):
    found = said(house, "export", run, "--to", "pt2", "--out", house / "build")
    assert (house / "build" / "tinynet.pt2").exists(), found
    Image.new("RGB", (40, 40), "red").save(house / "red.png")
    exported, trained = (
        said(house, "predict", place, house / "red.png")["predictions"][0]["label"]
        for place in (house / "build" / "tinynet.pt2", run)
    )
    assert exported == trained


def test_the_criterion_cuts_the_network(run, house):
    words = ("--criterion", "l2", "--keep-ratio", "0.5", "--out", house / "small")
    said(house, "prune", run, *words)
    before, after = (said(house, "count", place)["macs"] for place in (run, house / "small"))
    assert after < before


def test_the_operator_and_the_kernel_answer_as_onnx_has_them(house):
    """A norm of each channel, a matrix, and one at the largest of its numbers; then a matrix."""
    path = house / "norms.onnx"
    draw = np.random.default_rng(0).standard_normal
    weights = {"a": draw((4, 6)), "b": draw((6, 3))}
    nodes = [
        helper.make_node("GlobalLpPool", ["x"], ["n"], p=3),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("MatMul", ["f", "a"], ["m"]),
        helper.make_node("Hardmax", ["m"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "norms",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    said(house, "compile", path, "--out", house / "norms")  # compares answers itself
    (library,) = (house / "norms").glob("*.so")
    images = (draw((9, 4, 5, 7)) * 4 ** draw((9, 4, 1, 1))).astype(np.float32)
    norms = (np.abs(images) ** 3).sum((2, 3)) ** (1 / 3)
    expected = weights["b"][(norms @ weights["a"]).argmax(1)]
    assert np.allclose(CompiledNetwork(library).logits(images), expected, atol=1e-5)
    assert len(np.unique(expected)) > 3


def test_the_operators_pass_the_tests_that_all_have_to_pass(house):
    shutil.copytree(ROOT / "tests", house / "tests", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", house)
    words = ["tests/test_onnx_operators.py", "-k", "GlobalLpPool or Hardmax"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", *words]
    done = subprocess.run(
        command, cwd=house, env=environment(house), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_the_files_keep_the_rules_of_the_house(house):
    paths = [str(house / path) for path in FILES]
    settings = ["--config", str(ROOT / "pyproject.toml")]
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run([ruff, *words, *settings, *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
