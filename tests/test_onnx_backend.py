"""ONNX's own backend tests: whatever is compiled is right, whatever is not is refused by name."""

import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
BACKEND = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "onnx_backend.py"))
outcome, difference = BACKEND["outcome"], BACKEND["difference"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(8))
def test_no_case_of_float_or_bytes_is_wrong(part, tmp_path):
    found = {}
    for number, (name, case) in enumerate(BACKEND["cases"]()):
        if number % 8 == part and case is not None:
            found[name] = outcome(case, tmp_path)
    assert {name: why for name, (what, why) in found.items() if what == "wrong"} == {}
    equal = [name for name, (what, _) in found.items() if what == "equal"]
    assert len(equal) > 0.3 * len(found)
    assert all("\n" not in why for _, why in found.values())


def test_a_difference_sees_what_is_not_finite():
    expected = np.array([1.0, np.inf, np.nan])
    assert difference(np.array([1.0, np.inf, np.nan]), expected) == 0
    assert difference(np.array([1.1, np.inf, np.nan]), expected) == pytest.approx(0.1)
    for odd in ([1.0, 1.0, np.nan], [1.0, np.inf, 0.0], [1.0, -np.inf, np.nan], [1.0, np.inf]):
        assert difference(np.array(odd), expected) == np.inf
