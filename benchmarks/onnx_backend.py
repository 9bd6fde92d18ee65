"""ONNX's own backend tests through the compiler: how many are equal, how many are refused, and why.

    python benchmarks/onnx_backend.py                   all cases; results/onnx-backend.json
    python benchmarks/onnx_backend.py --only softmax    those whose name has the word

A case counts when its first input is float32 or uint8 and its first output float32. That input is
read from one row of numbers and that output written as one, so that values of any shape are no
images and no classes; the other inputs become constants. Equal is what differs by less than 1e-4
of the scale of the expected output, in the compiled C, or by what the test itself admits (some are
written with four digits).
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.import_onnx import import_onnx
from leancnn.compiler.translate import translate
from leancnn.errors import LeanCNNError
from leancnn.runs import machine, now, write_json
from leancnn.toolchain import compile_library

RESULT = Path(__file__).parent.parent / "results" / "onnx-backend.json"
WITHIN = 1e-4  # of the scale of what is expected
FLAGS = ("-std=c11", "-O1", "-ffp-contract=fast", "-DLANES=8", "-march=native")


@dataclass(frozen=True)
class Case:
    """One test: a model from one row of numbers to one, what goes in and what is to come out."""

    name: str
    operator: str
    model: Any
    given: NDArray[Any]
    expected: NDArray[Any]
    within: float  # of each number, as the test itself has it: some are written with four digits


def cases() -> Iterator[tuple[str, Case | None]]:
    """All of ONNX's tests of operators and small models by name; None for other numbers."""
    from onnx.backend.test.case.model import collect_testcases as of_models
    from onnx.backend.test.case.node import collect_testcases as of_nodes

    for test in (*of_nodes(None), *of_models()):
        if test.model is None or not test.data_sets:
            continue
        yield test.name, _case(test)


def _case(test: Any) -> Case | None:
    from onnx import numpy_helper

    inputs, outputs = test.data_sets[0]
    weights = {tensor.name for tensor in test.model.graph.initializer}
    named = [value.name for value in test.model.graph.input if value.name not in weights]
    given, expected = (_array(part[0]) if part else None for part in (inputs, outputs))
    if given is None or expected is None or len(named) != len(inputs):
        return None
    if given.dtype not in (np.float32, np.uint8) or expected.dtype != np.float32:
        return None
    if not given.size or not expected.size:
        return None
    others = [_array(value) for value in inputs[1:]]
    if any(other is None or other.dtype == object for other in others):
        return None
    model = type(test.model)()
    model.CopyFrom(test.model)
    for name, other in zip(named[1:], others, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(other, name))
    kinds = Counter(node.op_type for node in model.graph.node)
    operator = "+".join(sorted(kinds)) if len(kinds) < 4 else "several"
    _between_rows(model, named[0], given)
    return Case(test.name, operator, model, given.reshape(1, -1), expected, float(test.rtol))


def _array(value: Any) -> NDArray[Any] | None:
    if hasattr(value, "dims"):
        from onnx import numpy_helper

        value = numpy_helper.to_array(value)
    return value if isinstance(value, np.ndarray | np.generic) and not _other(value) else None


def _other(value: Any) -> bool:
    return np.asarray(value).dtype.kind not in "fiub"


def _between_rows(model: Any, name: str, given: NDArray[Any]) -> None:
    """Let a model read one row of numbers under its input's shape, and write its output as one."""
    from onnx import helper, numpy_helper

    graph = model.graph
    kind = helper.np_dtype_to_tensor_dtype(given.dtype)
    shape = numpy_helper.from_array(np.array(given.shape, np.int64), "its_shape")
    graph.initializer.append(shape)
    first = helper.make_node("Reshape", ["row", "its_shape"], [name], "shaped")
    last = helper.make_node("Flatten", [graph.output[0].name], ["answers"], "row_", axis=0)
    nodes = [first, *graph.node, last]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(copies)
    graph.input.append(helper.make_tensor_value_info("row", kind, [1, given.size]))
    graph.output.append(helper.make_tensor_value_info("answers", 1, None))


def outcome(case: Case, folder: Path) -> tuple[str, str]:
    """ "equal", "wrong" or "refused", and by how much or why."""
    path = folder / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        imported = import_onnx(path)
        graph = imported.graph
        count = graph.shapes[graph.output][0]
        channels = graph.shapes[graph.input][0]
        names = [f"class {number}" for number in range(count)]
        written = translate(
            graph, name="case", classes=names, mean=[0.0] * channels, std=[1.0] * channels
        )
        native = CompiledNetwork(compile_library(written.source, name="case", flags=FLAGS))
    except LeanCNNError as error:
        return "refused", str(error).removeprefix(f"{path}: ")
    found = native.logits(case.given.reshape(1, *native.shape).astype(np.float32))
    if imported.final in ("softmax", "log softmax"):
        found = found - found.max()
        shares = np.exp(found) / np.exp(found).sum()
        found = shares if imported.final == "softmax" else found - np.log(np.exp(found).sum())
    error = difference(found.ravel(), case.expected.ravel())
    close = np.allclose(found.ravel(), case.expected.ravel(), case.within, 1e-7, equal_nan=True)
    return ("equal" if error <= WITHIN or close else "wrong"), f"{error:.2g}"


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference on the scale of `expected`; infinity and NaN are to stand alike."""
    finite = np.isfinite(expected)
    if len(found) != len(expected) or not np.array_equal(
        found[~finite], expected[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(expected[finite]).max()), 1e-6)
    return float(np.abs(found[finite].astype(np.float64) - expected[finite]).max()) / scale


def main() -> int:
    """Every case, the counts, and a result; status 1 when a case is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="WORD", help="cases whose name has it; writes no result")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    equal: Counter[str] = Counter()
    each: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases():
            if args.only and args.only not in name:
                continue
            if case is None:
                counts["other numbers"] += 1
                continue
            what, why = each[name] = outcome(case, Path(folder))
            counts[what] += 1
            refused[case.operator] += what == "refused"
            equal[case.operator] += what == "equal"
            if what == "wrong" or args.only:
                print(f"{name}: {what} ({why})", file=sys.stderr)
    rows = [{"outcome": key, "cases": counts[key]} for key in OUTCOMES]
    print("\n".join(f"{row['cases']:5} {row['outcome']}" for row in rows))
    if not args.only:
        about = {**machine(), "onnx": version("onnx")}
        most = ", ".join(f"{name} {count}" for name, count in refused.most_common(16))
        result = {
            "title": "ONNX's own backend tests, compiled",
            "command": "python benchmarks/onnx_backend.py",
            "machine": about,
            "made": now(),
            "rows": rows,
            "note": f"by operator in the result's file; most often refused: {most}",
            "operators": {
                name: {"equal": equal[name], "refused": refused[name]} for name in sorted(refused)
            },
            "refused": {n: why for n, (what, why) in each.items() if what == "refused"},
        }
        write_json(RESULT, result)
    return int(counts["wrong"] > 0)


OUTCOMES = ("equal", "wrong", "refused", "other numbers")
"""In the order of the table; other numbers are no float32 or uint8 in, or no float32 out."""

if __name__ == "__main__":
    raise SystemExit(main())
