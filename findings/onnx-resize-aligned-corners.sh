#!/bin/sh
# One would guess that a Resize which aligns corners gives the last pixel as the last pixel, in every
# engine: that is what aligning means. True: where scale times size is no whole number ONNX's
# reference spreads the places by the size before it is rounded down, so that the last pixel of the
# result is not the last of the image; ONNX Runtime spreads them by the whole size and reaches it.
# At scales that make a whole size the two agree.
# Seen with onnx 1.23.2 and onnxruntime 1.32.0 on the row 1 2 3 4, linear, set 19.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

for scale in (0.75, 0.6, 1.6):
    weights = [numpy_helper.from_array(np.float32([1, 1, 1, scale]), "s")]
    node = helper.make_node(
        "Resize",
        ["x", "", "s"],
        ["y"],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "resize", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    feed = {"x": np.float32([1, 2, 3, 4]).reshape(1, 1, 1, 4)}
    engine = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    reference = ReferenceEvaluator(model).run(None, feed)[0].ravel()
    made = engine.run(None, feed)[0].ravel()
    words = ["%.2f" % number for number in reference], ["%.2f" % number for number in made]
    print(scale, "reference", *words[0], "engine", *words[1])
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" "$work/look.py" | tee "$work/seen"
diff - "$work/seen" <<'SEEN'
0.75 reference 1.00 2.50 4.00 engine 1.00 2.50 4.00
0.6 reference 1.00 3.14 engine 1.00 4.00
1.6 reference 1.00 1.56 2.11 2.67 3.22 3.78 engine 1.00 1.60 2.20 2.80 3.40 4.00
SEEN
