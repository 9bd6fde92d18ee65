import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import leancnn
from leancnn import cli, models
from leancnn.errors import DamagedError, ImageError
from leancnn.predict import Prediction, files, predict_readable, probabilities
from leancnn.preprocess import Preprocessing
from leancnn.weights import Network, save

CLASSES = ("cat", "dog", "<b>\x1b[31m")


def picture(path, seed, size=(40, 33)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return Network(
        models.create_model("henet_r2", classes=3, init="kaiming", seed=0),
        name="henet_r2",
        arguments={"repeat": 2},
        classes=CLASSES,
        preprocessing=Preprocessing(size=(31, 31), scale=(32, 32)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    ).eval()


@pytest.fixture
def saved(network, tmp_path):
    save(network, tmp_path / "net")
    return tmp_path / "net"


def test_files_and_folders_are_predicted_in_a_stable_order(network, tmp_path):
    paths = [picture(tmp_path / "in" / name, i) for i, name in enumerate(["b/2.png", "a.png"])]
    picture(tmp_path / "in" / ".hidden.png", 9)
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    alone = picture(tmp_path / "alone.jpg", 5)
    found = leancnn.predict(network, [tmp_path / "in", alone])
    assert [item.path for item in found] == [str(p) for p in (paths[1], paths[0], alone)]
    assert all(item.label in CLASSES for item in found)


def test_a_single_path_needs_no_list(network, tmp_path):
    assert len(leancnn.predict(network, picture(tmp_path / "x.png", 0))) == 1


def test_probabilities_add_up_to_one_and_come_best_first(network, tmp_path):
    (found,) = leancnn.predict(network, picture(tmp_path / "x.png", 0), top=3)
    shares = [share for _, share in found.top]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert (found.label, found.probability) == found.top[0]


def test_a_picture_does_not_see_its_batch(network, tmp_path):
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(5)]
    together = leancnn.predict(network, paths)
    alone = [leancnn.predict(network, path)[0] for path in paths]
    for one, other in zip(together, alone, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_more_pictures_than_a_batch_are_all_predicted(network, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["leancnn.predict"], "BATCH", 2)
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(5)]
    assert [item.path for item in leancnn.predict(network, paths)] == [str(p) for p in paths]


def test_bad_files_are_listed_and_the_rest_is_predicted(network, tmp_path):
    good = picture(tmp_path / "good.png", 0)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    found, refused = predict_readable(network, [bad, good, tmp_path / "no", tmp_path / "empty"])
    assert [item.path for item in found] == [str(good)]
    assert [item.path for item in refused] == [
        str(tmp_path / n) for n in ("bad.png", "no", "empty")
    ]
    with pytest.raises(ImageError, match=r"1 of 2 files: .*bad\.png"):
        leancnn.predict(network, [bad, good])


def test_what_had_to_be_done_to_a_file_is_noted(network, tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(path)
    (found,) = leancnn.predict(network, path)
    assert found.warnings == ("16-bit scaled to 8",)


def test_a_network_whose_answer_is_no_number_is_refused(network):
    broken = Network(
        models.create_model("henet_r2", classes=3, seed=0),
        name="henet_r2",
        arguments={},
        classes=CLASSES,
        preprocessing=network.preprocessing,
        mean=network.mean,
        std=network.std,
    )
    with torch.no_grad():
        next(broken.body.parameters()).fill_(torch.nan)
    with pytest.raises(DamagedError, match=r"numbers of body\..*weight are NaN or infinite"):
        probabilities(broken, np.zeros((1, 32, 32, 3), np.uint8))


def test_a_picture_whose_answer_is_no_number_is_named(network, tmp_path):
    """One that divides by nothing: its deviation."""

    class Standardised(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(
                ((x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True))[..., 0, 0]
            )

    blind = Network(
        Standardised(),
        name="blind",
        arguments={},
        classes=CLASSES,
        preprocessing=network.preprocessing,
        mean=network.mean,
        std=network.std,
    )
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "flat.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    found, refused = predict_readable(blind, tmp_path)
    assert [Path(item.path).name for item in found] == ["noise.png"]
    assert "flat.png: blind answers with what is no number (NaN)" in refused[0].reason


def test_predicting_leaves_a_training_network_in_training(network):
    network.train()
    probabilities(network, np.zeros((1, 32, 32, 3), np.uint8))
    assert network.training
    network.eval()


def test_a_prediction_cannot_be_changed(network, tmp_path):
    (found,) = leancnn.predict(network, picture(tmp_path / "x.png", 0))
    assert isinstance(found, Prediction)
    with pytest.raises(AttributeError):
        found.label = "other"


def test_links_that_lead_in_circles_end(tmp_path):
    picture(tmp_path / "a" / "x.png", 0)
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert [str(path) for path in files([tmp_path])] == [str(tmp_path / "a" / "x.png")]


def test_links_to_folders_are_followed_as_in_training(tmp_path):
    picture(tmp_path / "far" / "x.png", 0)
    (tmp_path / "in").mkdir()
    for name in ("one", "two"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "far", target_is_directory=True)
    assert [str(path) for path in files([tmp_path / "in"])] == [str(tmp_path / "in/one/x.png")]


def test_a_folder_that_cannot_be_opened_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    good = picture(tmp_path / "in" / "a" / "x.png", 0)
    picture(tmp_path / "in" / "shut" / "y.png", 0)
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, refused = files([tmp_path / "in"])
    assert found == good
    assert refused.path == str(tmp_path / "in" / "shut")
    assert "Permission denied; check the folder" in refused.reason


def test_the_command_prints_json_and_draws_a_sheet(saved, tmp_path, capsys):
    good, bad = picture(tmp_path / "p" / "1.png", 0), tmp_path / "p" / "2.png"
    bad.write_bytes(b"junk")
    sheet = tmp_path / "sheet.png"
    words = ["predict", str(saved), str(tmp_path / "p"), "--json", "--sheet", str(sheet)]
    assert cli.main(words) == 1
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert [item["path"] for item in answer["predictions"]] == [str(good)]
    assert [item["path"] for item in answer["refused"]] == [str(bad)]
    assert printed.err.startswith(f"leancnn: {bad}: ")
    assert printed.err.count("\n") == 1
    with Image.open(sheet) as image:
        assert image.format == "PNG"


def test_hostile_class_names_reach_neither_terminal_nor_json_raw(saved, tmp_path, capsys):
    path = str(picture(tmp_path / "1.png", 0))
    for words in (["--top", "3"], ["--top", "3", "--json"]):
        assert cli.main(["predict", str(saved), path, *words]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_an_empty_path_is_refused_and_not_read_as_this_folder(network, tmp_path, monkeypatch):
    picture(tmp_path / "here.png", 0)
    monkeypatch.chdir(tmp_path)
    found, refused = predict_readable(network, [""])
    assert not found
    assert "an empty path" in refused[0].reason
    assert len(leancnn.predict(network, ".")) == 1


def test_no_class_to_list_is_a_wrong_word(saved, tmp_path, capsys):
    assert cli.main(["predict", str(saved), str(tmp_path), "--top", "0"]) == 2
    assert "--top is 1 or more, not 0" in capsys.readouterr().err


def test_files_that_are_no_files_are_refused_and_end(network, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found, refused = predict_readable(network, [tmp_path, "/dev/zero", "a\0b"])
    assert not found
    assert len(refused) == 5


def test_of_equals_the_first_class_is_the_answer_as_in_a_test(network, tmp_path):
    network = copy.deepcopy(network)
    with torch.no_grad():
        for value in network.body.parameters():
            value.zero_()
    (found,) = leancnn.predict(network, picture(tmp_path / "x.png", 0), top=3)
    assert [name for name, _ in found.top] == list(CLASSES)
