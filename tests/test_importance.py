"""Scores that read images: kept by what they depend on, and found without a cache too."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leancnn import runs
from leancnn.bench import untrained
from leancnn.cache import folder as cache_folder
from leancnn.channels.dependencies import find_dependencies
from leancnn.criteria import Scores, se_gate
from leancnn.preprocess import Preprocessing
from leancnn.prune import cut, importance, plan
from leancnn.prune.plan import PruningPlan
from leancnn.training_data import TrainingImages, training_images


@pytest.fixture
def score(pictures: Path) -> Callable[..., Scores]:
    """Scores a network by taylor; the cache is empty at first."""
    shutil.rmtree(cache_folder() / "scores", ignore_errors=True)
    network = untrained("resnet8")
    network.classes = ("class 0", "class 1", "class 2")
    dependencies, images = (
        find_dependencies(network.body, network.preprocessing.channels),
        TrainingImages(str(pictures)),
    )
    return lambda criterion="taylor", seed=0: (
        importance.scored(
            network, dependencies, criterion, images, seed=seed, progress=False
        ).importance
    )


def where(images: TrainingImages) -> tuple[str, float | None, int]:
    """What images they are."""
    return images.data, images.val_share, images.split_seed


def kept() -> int:
    return len(list((cache_folder() / "scores").glob("*/scores.json")))


def test_scores_are_kept_by_the_format_they_have(
    score: Callable[[], Scores], monkeypatch: pytest.MonkeyPatch
) -> None:
    score()
    score()
    assert kept() == 1
    monkeypatch.setattr(importance, "FORMAT", importance.FORMAT + 1)
    score()
    assert kept() == 2, "scores of another format are not taken for these"


def test_scores_are_kept_by_the_size_at_which_images_were_seen(
    score: Callable[[], Scores], pictures: Path
) -> None:
    score()
    network = untrained("resnet8")
    network.classes = ("class 0", "class 1", "class 2")
    network.preprocessing = Preprocessing(size=(24, 24))
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    importance.scored(
        network, dependencies, "taylor", TrainingImages(str(pictures)), progress=False
    )
    assert kept() == 2


def test_the_images_of_a_run_are_found_from_any_folder(
    quiet: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copy(quiet / "run.json", tmp_path)
    plan = runs.read_run(tmp_path)["plan"]
    network = untrained("resnet8")
    expected = str(pictures), plan["val_share"], plan["seed"]
    assert where(training_images(tmp_path, None, network)) == expected
    assert training_images(tmp_path / "best", "elsewhere", network).data == "elsewhere"


def test_a_network_outside_a_run_remembers_what_was_set_apart(tmp_path: Path) -> None:
    network = untrained("resnet8")
    assert where(training_images(tmp_path, "data", network)) == ("data", None, 0)
    trained = {"split_seed": 5, "val_share": 0.2}
    network.made = {"cut from": {"cut from": trained, "plan": {}}, "plan": {}}
    assert where(training_images(tmp_path, "data", network)) == ("data", 0.2, 5)


def test_another_cut_of_the_same_images_is_scored_anew(
    score: Callable[..., Scores], pictures: Path
) -> None:
    network = untrained("resnet8")
    network.classes = ("class 0", "class 1", "class 2")
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    for seed in (0, 1):
        importance.scored(
            network,
            dependencies,
            "taylor",
            TrainingImages(str(pictures), split_seed=seed),
            progress=False,
        )
    assert kept() == 2


def test_batches_are_mixed_on_demand_and_hold_the_same_images(
    score: Callable[..., Scores], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = untrained("resnet8")
    network.classes = ("class 0", "class 1", "class 2")
    monkeypatch.setattr(importance, "BATCH", 16)
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    subject, _ = importance.subject_of(
        network, dependencies, "taylor", TrainingImages(str(pictures)), progress=False
    )
    kinds = {}
    for mixed in (False, True):
        found = [labels.tolist() for _, labels in subject.batches(mixed=mixed)]
        kinds[mixed] = [len(set(labels)) for labels in found]
        assert sorted(itertools.chain(*found)) == [0] * 23 + [1] * 23 + [2] * 23
    assert min(kinds[True][:-1]) > 1 == min(kinds[False])


def test_a_seed_that_changes_no_score_costs_no_other_pass(score: Callable[..., Scores]) -> None:
    one, other = score(seed=0), score(seed=1)
    assert kept() == 1
    assert all(np.array_equal(one[path], other[path]) for path in one)
    score("reconstruction", 0)
    score("reconstruction", 1)
    assert kept() == 3, "it looks at other pixels"


def test_a_cache_that_cannot_be_written_costs_no_score(
    score: Callable[[], Scores], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = score()
    shutil.rmtree(cache_folder() / "scores")
    (cache_folder() / "scores").write_text("a file, where the folder would be")
    try:
        found = score()
    finally:
        (cache_folder() / "scores").unlink()
    assert all(np.array_equal(found[path], usual[path]) for path in usual)
    assert "the scores are not kept" in capsys.readouterr().err


@pytest.mark.long
def test_what_a_criterion_tells_is_kept_with_its_scores(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(cache_folder() / "scores", ignore_errors=True)
    network = untrained("lbmbnet32_r6")
    network.classes = ("class 0", "class 1", "class 2")
    dependencies, images = (
        find_dependencies(network.body, network.preprocessing.channels),
        TrainingImages(str(pictures)),
    )

    def told() -> dict[str, Any]:
        return importance.scored(network, dependencies, "se_gate", images, progress=False).observed

    first = told()
    monkeypatch.setattr(se_gate, "distribution", None)  # nothing is read a second time
    assert told() == first
    the_plan = plan(network, criterion="se_gate", images=images, keep=0.5, progress=False)
    assert PruningPlan.of_json(json.loads(json.dumps(the_plan.to_json()))).observed == first
    assert "observed" not in cut(network, the_plan).made["plan"]


def test_large_images_are_scored_a_few_at_a_time(pictures: Path) -> None:
    network = untrained("resnet8")
    network.classes = ("class 0", "class 1", "class 2")
    read, most = TrainingImages(str(pictures)), {8: 128, 200: 13}
    for size, batch in most.items():
        network.preprocessing = Preprocessing(size=(size, size), scale=(size, size))
        dependencies = find_dependencies(network.body, 3)
        subject, _ = importance.subject_of(network, dependencies, "taylor", read, progress=False)
        images, labels = next(iter(subject.batches()))
        assert images.shape == (len(labels), 3, size, size)
        assert len(images) == min(batch, len(read.of(network).of_train))


def test_scores_are_kept_by_the_weights_they_are_of(
    score: Callable[[], Scores], pictures: Path
) -> None:
    """One number in one tensor: of a weight, or of what a norm remembers."""
    before = score()
    dependencies = find_dependencies(untrained("resnet8").body, 3)
    for number, name in enumerate(("fc.weight", "stages.0.bn1.running_var"), 2):
        network = untrained("resnet8")
        network.classes = ("class 0", "class 1", "class 2")
        state = network.body.state_dict()
        name = name if name in state else next(key for key in state if key.endswith("running_var"))
        state[name].view(-1)[0] += 0.5
        images = TrainingImages(str(pictures))
        found = importance.scored(
            network, dependencies, "taylor", images, progress=False
        ).importance
        assert kept() == number
        assert any((found[path] != before[path]).any() for path in before)
