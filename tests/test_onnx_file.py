"""ONNX files as files: weights beside them, what contradicts itself, what is no ONNX at all."""

import onnx
import pytest

from leancnn import cli
from leancnn.compiler.import_onnx import import_onnx
from leancnn.errors import DamagedError, UnsupportedError
from tests.onnx_files import agrees, answers, classifier, noise, saved


def outside_weights(folder, location):
    """A file in `folder` whose weights are said to lie in the file `location`, and their bytes."""

    made = classifier("h = Relu(f)")
    onnx.save_model(
        made, str(folder / "n.onnx"), save_as_external_data=True, location="w", size_threshold=0
    )
    kept = onnx.load(str(folder / "n.onnx"), load_external_data=False)
    for tensor in kept.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    data = (folder / "w").read_bytes()
    (folder / "w").unlink()
    return saved(kept, folder), data


INSIDE = {"beside": "w", "with a dot": "./w", "below": "data/w", "below and back": "data/../w",
          "by a link": "link", "by a linked folder": "linked/w"}  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_weights_may_lie_in_the_tree_of_the_files_folder(name, tmp_path):
    folder = tmp_path / "inside"
    (folder / "data").mkdir(parents=True)
    path, data = outside_weights(folder, INSIDE[name])
    (folder / "link").symlink_to("w")
    (folder / "linked").symlink_to("data")
    (folder / ("data/w" if name == "below" or "folder" in name else "w")).write_bytes(data)
    images = noise(1, 3, 8, 8)
    expected = answers(saved(classifier("h = Relu(f)"), tmp_path), images)
    assert agrees(import_onnx(path).graph, images, expected)


def test_a_download_cache_of_links_is_a_folder_too(tmp_path):
    """snapshots/1/net.onnx and its weights are links to blobs/, as huggingface_hub has them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path, data = outside_weights(blobs, "w")
    (blobs / "abc").write_bytes(data)
    path.rename(blobs / "def")
    (snapshot / "net.onnx").symlink_to("../../blobs/def")
    (snapshot / "w").symlink_to("../../blobs/abc")
    images = noise(1, 3, 8, 8)
    expected = answers(saved(classifier("h = Relu(f)"), tmp_path), images)
    assert agrees(import_onnx(snapshot / "net.onnx").graph, images, expected)


LEFT_OUT = {
    "above": ("../secret", "lies outside the model's folder"),
    "by a link": ("link", "lies outside the model's folder"),
    "by a linked folder": ("linked/secret", "lies outside the model's folder"),
    "absolute": ("/etc/hostname", "is no path relative to the model"),
    "not there": ("missing", "is not there"),
    "a folder": ("data", "cannot be read"),
    "a pipe": ("pipe", "is no regular file"),
    "by a hard link": ("hard", "has other names"),
    "too short": ("short", "ends before byte"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_weights_elsewhere_are_refused_with_the_reason(name, tmp_path):
    import os

    location, reason = LEFT_OUT[name]
    folder = tmp_path / "inside"
    (folder / "data").mkdir(parents=True)
    path, data = outside_weights(folder, location)
    (tmp_path / "secret").write_bytes(data)
    (folder / "link").symlink_to("../secret")
    (folder / "linked").symlink_to("..")
    (folder / "short").write_bytes(data[:-1])
    os.mkfifo(folder / "pipe")
    os.link(tmp_path / "secret", folder / "hard")
    with pytest.raises(UnsupportedError, match=reason) as caught:
        import_onnx(path)
    assert "\n" not in str(caught.value)


def contradicted(name):
    """A file that onnx reads and that cannot be meant."""
    made = classifier("h = Conv<pads = [1, 1, 1, 1]>(f, k_4_4_3_3, k_3)")
    first = made.graph.initializer[0]
    match name:
        case "a size":
            first.dims[0] += 1
        case "a type":
            first.data_type = 0
        case "strides":
            made = classifier("h = MaxPool<kernel_shape = [2, 2], strides = [0, 0]>(f)")
        case "blocks":
            made = classifier("h = SpaceToDepth<blocksize = 0>(f)")
    return made


@pytest.mark.parametrize("name", ["a bias", "a size", "a type", "strides", "blocks"])
def test_a_file_that_contradicts_itself_is_refused_in_one_line(name, tmp_path, capsys):
    path = saved(contradicted(name), tmp_path)
    assert cli.main(["compile", str(path), "--out", str(tmp_path / "build")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "net.onnx" in said
    assert not (tmp_path / "build").exists()


def test_a_domain_has_two_names(tmp_path):
    made = classifier("h = Softmax<axis = 1>(f)")
    images = noise(2, 3, 8, 8)
    expected = answers(saved(made, tmp_path), images)
    made.opset_import[0].domain = "ai.onnx"
    assert agrees(import_onnx(saved(made, tmp_path, "named")).graph, images, expected)


WHOLE = b"\x08\x08"


BROKEN = {"empty": b"", "text": b"hello\nworld\n" * 9, "no operator": WHOLE}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_onnx_file_is_called_damaged(name, tmp_path):
    with pytest.raises(DamagedError, match="not an ONNX file") as caught:
        import_onnx(saved(BROKEN[name], tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "null", '{"classes": 3}', '{"classes": [1, 2, 3]}']
)
def test_metadata_that_is_not_ours_is_passed_over(metadata, tmp_path):
    from onnx import helper

    made = classifier("h = Relu(f)")
    helper.set_model_props(made, {"leancnn": metadata})
    assert import_onnx(saved(made, tmp_path)).metadata == {"classes": None, "preprocessing": None}
