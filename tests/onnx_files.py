"""Small ONNX files from their text: constants are drawn by the names that stand in it."""

import re

import numpy as np
import torch
from onnx import numpy_helper

from leancnn.compiler.simplify import simplify
from tests.compiler_torch import answers as graph_answers

HEADER = '<ir_version: {ir}, opset_import: ["" : {opset}, "acme" : 1]>\n'


def model(text, *, shape=(1, 3, 8, 8), kind="float", opset=13, ir=8, seed=0):
    """A model from `x` to `y` whose operators are `text`, one a line.

    `k_4_1` is an array of random floats of shape (4, 1), `k_` a scalar, `p_4` one of positive
    floats, `b_4` one of random bytes, and `i_2_m1` the whole numbers (2, -1).
    """
    from onnx import parser

    sizes = ",".join(map(str, shape))
    body = f"g ({kind}[{sizes}] x) => (float[A, B] y) {{\n{text}\n}}"
    made = parser.parse_model(HEADER.format(ir=ir, opset=opset) + body)
    random = np.random.default_rng(seed)
    for name in sorted(set(re.findall(r"\b[kpib]_[\w]*", text))):
        numbers = [int(n.replace("m", "-")) for n in name[2:].split("_") if n]
        if name[0] == "b":
            array = random.integers(-128, 128, numbers).astype(np.int8)
        elif name[0] == "i":
            array = np.array(numbers, np.int64)
        else:
            array = random.standard_normal(numbers).astype(np.float32) * np.float32(0.4)
            array = np.abs(array) + np.float32(0.3) if name[0] == "p" else array
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return made


def classifier(text, *, channels=4, **settings):
    """The same with a convolution of 4 channels, `f`, before, and a pooled head after `h`."""
    head = f"""
    g_ = GlobalAveragePool(h)
    v_ = Flatten(g_)
    y = Gemm<transB = 1>(v_, k_3_{channels}, k_3)"""
    return model(f"f = Conv<pads = [1, 1, 1, 1]>(x, k_4_3_3_3, k_4)\n{text}{head}", **settings)


def answers(path, images):
    """What ONNX Runtime makes of float images (N, …), one by one: (N, answers)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: image[None]})[0].ravel() for image in images])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def saved(made, folder, name="net"):
    path = folder / f"{name}.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def agrees(graph, images, expected):
    """Whether a graph, simplified or not, gives these answers, by float64."""
    for form in (graph, simplify(graph)):
        found = graph_answers(form, torch.from_numpy(images).double()).numpy()
        assert np.abs(found - expected).max() < 1e-5 * max(np.abs(expected).max(), 1e-3)
    return True
