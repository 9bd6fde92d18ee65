"""Random graphs that read their operands again answer as ONNX Runtime does, at every width."""

import numpy as np
import pytest

from leancnn.compiler.import_onnx import import_onnx
from tests.onnx_files import answers
from tests.random_graphs import LAYOUTS, WIDTHS, Drawing, native

pytest.importorskip("onnxruntime")

FEW, MANY = 12, 2000
HUGE = 1e6  # answers beyond it are sums of large numbers that cancel


def in_own_process(seed, folder):
    """The difference of one graph's answers, relative to their scale; None where they are huge."""
    drawing = Drawing(seed)
    path = folder / "graph.onnx"
    path.write_bytes(drawing.model().SerializeToString())
    random = np.random.default_rng(seed)
    images = (random.integers(-16, 17, (2, *drawing.shape)) / 8).astype(np.float32)
    expected = answers(path, images)
    if not np.isfinite(expected).all() or np.abs(expected).max() > HUGE:
        return None
    made = native(import_onnx(path).graph, LAYOUTS[seed % 3], WIDTHS[seed // 3 % 4])
    return np.abs(made.logits(images) - expected).max() / max(np.abs(expected).max(), 1e-3)


def check(seeds, folder):
    found = {seed: in_own_process(seed, folder) for seed in seeds}
    wrong = {seed: value for seed, value in found.items() if value is not None and not value < 1e-4}
    assert not wrong
    assert sum(value is not None for value in found.values()) > 0.9 * len(found)


@pytest.mark.long
def test_random_graphs_answer_as_onnx_runtime(tmp_path):
    check(range(FEW), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, MANY, 100))
def test_many_random_graphs_answer_as_onnx_runtime(first, tmp_path):
    check(range(first, min(first + 100, MANY)), tmp_path)


def test_the_same_seed_draws_the_same_graph():
    assert Drawing(5).model() == Drawing(5).model()
    kinds = {node.op_type for seed in range(60) for node in Drawing(seed).nodes}
    assert {"Mish", "Mul", "Slice", "Sigmoid", "Concat", "Transpose", "Gather"} <= kinds


WRITTEN_OVER = """a = Conv(x, k_4_3_1_1)
    b = Conv<pads = [1, 1, 1, 1]>(a, k_4_4_3_3)
    c = Conv<pads = [1, 1, 1, 1]>(b, k_4_4_3_3)
    d = Add(c, a)
    e = Mul(d, a)
    h = Add(e, d)
    g = GlobalAveragePool(h)
    y = Flatten(g)"""


@pytest.mark.parametrize("text", ["a = Mish(x)\ny = Flatten(a)", WRITTEN_OVER])
@pytest.mark.parametrize("width", [1, 16])
def test_an_operand_that_is_read_again_is_not_written_over(text, width, tmp_path):
    from tests.onnx_files import model

    path = tmp_path / "net.onnx"
    path.write_bytes(model(text, shape=(1, 3, 2, 2), opset=18).SerializeToString())
    images = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    for layout in LAYOUTS:
        found = native(import_onnx(path).graph, layout, width).logits(images)
        assert np.allclose(found, answers(path, images), atol=1e-4)
