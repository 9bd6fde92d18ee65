"""Files for other engines: kept only when they answer as PyTorch does."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import leancnn
from leancnn import cli
from leancnn.errors import (
    DamagedError,
    ParityError,
    WriteError,
)
from leancnn.export import export
from leancnn.parity import check_parity, trial_images
from leancnn.targets import targets
from leancnn.weights import save
from tests.compiler_saved import network, on_shelf


@pytest.fixture(scope="module", autouse=True)
def speck():
    off = on_shelf()
    yield
    off()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_of_ours_becomes_a_program_that_knows_its_classes(tmp_path):
    pytest.importorskip("onnxruntime")
    net = network()
    (path,) = export(net, to="onnx", out=tmp_path)
    native, images = leancnn.compile(path), trial_images(net)
    with torch.no_grad():
        expected = net(torch.from_numpy(images)).softmax(1).numpy()
    assert (native.classes, native.about["preprocessing"]) == (
        net.classes,
        net.preprocessing.to_json(),
    )
    assert np.allclose(native(images), expected, atol=1e-5)


def test_what_differs_is_refused_with_the_difference_and_leaves_the_folder(tmp_path, monkeypatch):
    net = network()
    honest = targets["c"]

    def wrong(path):
        loaded = honest.load(path)
        return replace(loaded, run=lambda images: loaded.run(images) * np.float32(1.01))

    monkeypatch.setitem(targets, "c", replace(honest, load=wrong))
    with pytest.raises(ParityError, match=r"differ by 0\.01"):
        export(net, to="c", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_export_removes_what_it_did_not_write(tmp_path):
    net = network()
    run = tmp_path / net.name
    run.mkdir()
    (run / "metrics.csv").write_text("precious")
    with pytest.raises(WriteError, match=r"holds metrics\.csv, too"):
        export(net, to="torch", out=tmp_path)
    (tmp_path / f"{net.name}.c").mkdir()
    with pytest.raises(WriteError, match="is a folder"):
        export(net, to="c", out=tmp_path)
    assert (run / "metrics.csv").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {net.name, f"{net.name}.c"}


def test_a_network_is_exported_over_itself(tmp_path):
    net = network()
    for _ in range(2):
        (place,) = export(net, to="torch", out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {net.name}
    assert check_parity(net, targets["torch"].load(place), trial_images(net)) == 0


def test_other_class_names_are_a_difference():
    net = network()
    loaded = targets["torch"]
    assert loaded.name == "torch"
    other = network(classes=("a", "b", "c"))
    from leancnn.targets._torch import in_process

    with pytest.raises(ParityError, match="classes"):
        check_parity(net, in_process(other), trial_images(net))


def test_the_command_lists_the_files(tmp_path, capsys):
    save(network(), tmp_path / "saved")
    words = ["export", str(tmp_path / "saved"), "--to", "c", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [file["file"].rsplit("/", 1)[1] for file in value["files"]] == ["speck.c", "speck.h"]


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named_before_anything_is_written(odd, tmp_path):
    net = network()
    with torch.no_grad():
        net.body[-1].bias[1] = odd
    for call in (
        lambda: export(net, to="c", out=tmp_path),
        lambda: export(net, to="onnx", out=tmp_path),
        lambda: leancnn.compile(net, out=tmp_path),
    ):
        with pytest.raises(DamagedError, match=r"1 of 3 numbers of body\.4\.bias are NaN or inf"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_replaced_stands_as_it_was(tmp_path, monkeypatch):
    place, work, made = tmp_path / "site", tmp_path / "work", tmp_path / "work" / "site"
    for folder in (place, made):
        folder.mkdir(parents=True)
        (folder / "of").write_text(folder.parent.name)
    before = (place / "of").read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        import_module("leancnn.export")._keep(made, place, work)
    assert (place / "of").read_text() == before
