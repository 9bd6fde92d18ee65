"""Tiles by measurement: each choice computes the same, and winners are kept."""

import json

import numpy as np
import pytest
from torch import nn

from leancnn import cli
from leancnn.compiler import tune as tuning
from leancnn.compiler.emit import emit
from leancnn.compiler.frame import Metadata
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.loops import likely_tiles
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.errors import WriteError
from tests.compiler_nets import settled

SHAPE = (6, 9, 9)
FACTS = Metadata(name="net", classes=("a", "b"), mean=(0.5,) * 6, std=(0.25,) * 6)


@pytest.fixture(scope="module")
def graph():
    body = nn.Sequential(
        nn.Conv2d(6, 12, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    return simplify(import_torch(settled(body), SHAPE))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "CANDIDATES", 1)
    monkeypatch.setattr(tuning, "TURNS", 1)


def test_a_tile_that_is_given_is_the_one_that_is_written(graph):
    (key, kernel), *_ = tuning.shapes(graph).items()
    texts = {
        emit(schedule(lower(graph), {key: tile}), FACTS).source for tile in likely_tiles(kernel, 4)
    }
    assert len(texts) == 4
    plain = emit(schedule(lower(graph)), FACTS).source
    assert plain == emit(schedule(lower(graph), {key: likely_tiles(kernel, 1)[0]}), FACTS).source


def test_winners_are_kept_and_not_timed_again(graph, monkeypatch):
    assert tuning.tune(graph, 0) == {}
    found = tuning.tune(graph, 60)
    assert found.keys() == tuning.shapes(graph).keys()
    assert len(found) == 2

    def never(*words):
        raise AssertionError("timed again")

    monkeypatch.setattr(tuning, "fastest", never)
    assert tuning.tune(graph, 60) == found
    assert [path.name for path in tuning.place().parent.glob("*tiles*")] == [tuning.place().name]


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 3}', '{"a": ["x", 1]}', '{"a": [0, 9]}'])
def test_a_damaged_file_of_winners_is_none(text):
    tuning.place().parent.mkdir(parents=True)
    tuning.place().write_text(text)
    assert tuning.load_tiles() == {}


def test_an_unwritable_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match="LEANCNN_CACHE"):
        tuning.save_tiles({"a": (1, 2)})


@pytest.mark.slow
def test_every_candidate_computes_the_same(graph):
    image = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    for key, kernel in tuning.shapes(graph).items():
        x = image if len(kernel.x.planes) == 6 else np.repeat(image, 2, 1)
        answers = [tuning.alone(kernel, {key: tile}).logits(x) for tile in likely_tiles(kernel, 6)]
        assert all(np.allclose(answer, answers[0], atol=1e-5) for answer in answers)


def test_tiles_of_channels_in_blocks_are_tuned_too():
    body = nn.Sequential(nn.Conv2d(32, 192, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = simplify(import_torch(settled(body), (32, 3, 3)))
    (key, kernel), *rest = tuning.shapes(graph).items()
    assert key.startswith("blocked-")
    assert not rest
    image = np.random.default_rng(0).standard_normal((1, 32, 3, 3)).astype(np.float32)
    tiles = kernel.tiles(2)
    answers = [tuning.alone(kernel, {key: tile}).logits(image) for tile in tiles]
    assert len(set(tiles)) == 2
    assert np.allclose(*answers, atol=1e-5)


def test_only_c_is_tuned(capsys, tmp_path):
    from tests.compiler_saved import network, on_shelf

    off = on_shelf()
    try:
        from leancnn.weights import save

        save(network(), tmp_path / "saved")
        words = ["export", str(tmp_path / "saved"), "--to", "torch", "--tune", "1", "--json"]
        assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert "--tune is for c" in printed.err + json.dumps(printed.out)
    finally:
        off()
