#!/bin/sh
# One would guess that the shape which ONNX infers for a pooling in ceil mode is the shape that an
# engine makes, and ONNX's reference makes. True: for definitions before operator set 22 the
# inference counts a last window that would begin in the padding behind the image; ONNX Runtime and
# ONNX's own reference leave it out, as the definition of set 22 then says. The same node is inferred
# with 5 rows in a file of set 19 and with 4 in one of set 22; both run with 4.
# Seen with onnx 1.23.2 and onnxruntime 1.32.0: MaxPool and AveragePool, kernel 3, stride 2, on 8 x 8.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, shape_inference
from onnx.reference import ReferenceEvaluator

options = onnxruntime.SessionOptions()
options.log_severity_level = 4
for kind in ("MaxPool", "AveragePool"):
    for opset in (19, 22):
        node = helper.make_node(
            kind, ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 0], ceil_mode=1
        )
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "pool", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph.output[0]
        dims = [d.dim_value for d in inferred.type.tensor_type.shape.dim]
        feed = {"x": np.ones((1, 1, 8, 8), np.float32)}
        engine = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        made = list(engine.run(None, feed)[0].shape)
        reference = list(ReferenceEvaluator(model).run(None, feed)[0].shape)
        print(kind, opset, "inferred", dims, "made", made, "by the reference", reference)
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" "$work/look.py" | tee "$work/seen"
diff - "$work/seen" <<'SEEN'
MaxPool 19 inferred [1, 1, 5, 4] made [1, 1, 4, 4] by the reference [1, 1, 4, 4]
MaxPool 22 inferred [1, 1, 4, 4] made [1, 1, 4, 4] by the reference [1, 1, 4, 4]
AveragePool 19 inferred [1, 1, 5, 4] made [1, 1, 4, 4] by the reference [1, 1, 4, 4]
AveragePool 22 inferred [1, 1, 4, 4] made [1, 1, 4, 4] by the reference [1, 1, 4, 4]
SEEN
