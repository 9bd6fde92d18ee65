"""Engines in the precisions that their own tools make."""

import pytest

from leancnn.bench import OTHERS, bench, untrained
from leancnn.parity import calibration_images
from leancnn.precisions import precisions


def test_every_other_precision_of_an_engine_can_be_made():
    assert {name for names in OTHERS.values() for name in names} == set(precisions)


def test_a_network_without_images_is_calibrated_on_made_ones():
    images = calibration_images(untrained("resnet8"), 8)
    assert len(images) >= 8
    assert images[0].max() == 0
    assert images[-1].min() == 255


@pytest.mark.slow
def test_engines_run_in_the_precisions_that_their_own_tools_make():
    for package in ("onnxruntime", "openvino", "nncf"):
        pytest.importorskip(package)
    network = untrained("resnet8")
    engines = ["onnxruntime", "openvino"]
    rows, missing = bench([network], engines=engines, rounds=1, seconds=0.01, precision="any")
    assert not missing
    others = ["onnxruntime-int8", "openvino-default", "openvino-int8"]
    assert [row.engine for row in rows] == [*engines, *others]
    assert all(row.agreement is not None and row.agreement > 0.3 for row in rows)
