"""Whoever prunes, trains again or compares loads the images once and hands them down."""

from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

import leancnn
from leancnn import weights
from leancnn.prune.compare import compare
from leancnn.training_data import TrainingImages, training_images

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, ...]]:
    """How often each parts of a data set were loaded, by whichever module asks."""
    found: Counter[tuple[str, ...]] = Counter()
    for name in ("training_data", "held_out"):
        module = import_module(f"leancnn.{name}")
        before = module.load_dataset

        def counted(*given, parts, before=before, **named):  # type: ignore[no-untyped-def]
            found[tuple(parts)] += 1
            return before(*given, parts=parts, **named)

        monkeypatch.setattr(module, "load_dataset", counted)
    return found


def test_a_pruning_loads_its_images_once(
    wide: Path, tmp_path: Path, loads: Counter[tuple[str, ...]]
) -> None:
    """The check, the scores, the fit of the kept weights, the retraining: each read them before."""
    recipe = wide / "recipe.json"
    out = tmp_path / "small"
    leancnn.prune(wide, out=out, criterion="taylor", keep=0.5, finetune=recipe, progress=False)
    assert loads == {("train", "val"): 1}
    loads.clear()
    leancnn.prune(wide, out=out, criterion="taylor", keep=0.5, finetune=recipe, progress=False)
    assert loads == {("train", "val"): 1}, "also where it goes on"


@pytest.mark.long
def test_a_comparison_loads_the_train_part_once_and_the_test_part_once(
    wide: Path, tmp_path: Path, loads: Counter[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        import_module("leancnn.prune.compare"), "pruning_picture", lambda lines: b""
    )
    compare(
        wide, out=tmp_path / "cmp", criteria=["taylor", "l1"], baselines=["scratch"], keep=0.5,
        timed=False, progress=False,
    )  # fmt: skip
    assert loads == {("train", "val"): 1, ("test",): 1}


def test_images_are_loaded_for_each_way_to_prepare_them_and_no_more(
    wide: Path, loads: Counter[tuple[str, ...]]
) -> None:
    network = weights.load(wide)
    images = training_images(wide, None, network)
    assert not loads, "nothing is opened before it is asked for"
    assert images.of(network) is images.of(network)
    assert images.digest(network) == images.of(network).manifest["sha256"]["train"]
    assert sum(loads.values()) == 1


def test_other_classes_than_those_of_the_network_are_refused(pictures: Path) -> None:
    from leancnn.bench import untrained

    with pytest.raises(leancnn.LeanCNNError, match="its classes are not those"):
        TrainingImages(str(pictures)).of(untrained("resnet8"))
