"""The experiments in benchmarks/ begin right: splits by law, networks and recipes that exist."""

import sys
from pathlib import Path

import pytest

from leancnn import models, recipes

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import experiment
import orl
import rsenet_ablation


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 persons with 10 files each, which hold their own names."""
    root = tmp_path_factory.mktemp("faces")
    for person in range(1, 41):
        folder = root / f"s{person}"
        folder.mkdir()
        for image in range(1, 11):
            (folder / f"{image}.pgm").write_text(f"{person}/{image}")
    return root


def test_a_split_is_stratified_and_has_300_and_100_images(faces: Path, tmp_path: Path) -> None:
    where = orl.cut(faces, tmp_path / "split", 0)
    train, test = (sorted((where / part).glob("*/*")) for part in ("train", "test"))
    assert (len(train), len(test)) == (300, 100)
    assert {path.read_text() for path in train}.isdisjoint(path.read_text() for path in test)
    for person in (where / "train").iterdir():
        assert len(list(person.iterdir())) in (7, 8)


def test_a_split_is_a_function_of_its_seed(faces: Path, tmp_path: Path) -> None:
    def names(seed: int, folder: str) -> list[str]:
        where = orl.cut(faces, tmp_path / folder, seed)
        return sorted(path.read_text() for path in (where / "test").glob("*/*"))

    assert names(0, "a") == names(0, "b")
    assert names(0, "a") != names(1, "c")


@pytest.mark.parametrize(
    "trial",
    [*orl.trials(40), *rsenet_ablation.trials(2, 32), *rsenet_ablation.trials(2, 224)],
    ids=lambda trial: trial.label,
)
def test_every_trial_names_a_network_with_its_arguments_and_a_recipe(
    trial: experiment.Trial,
) -> None:
    assert models.arguments(trial.network).keys() >= trial.arguments.keys()
    assert recipes.of_json(trial.recipe.to_json()) == trial.recipe


def test_a_row_is_the_mean_and_spread_of_its_runs() -> None:
    trial = orl.trials(40)[0]
    found = [
        {"last": share, "best": None, "seconds": 10.0, "images_per_s": 300.0, "threads": 2}
        for share in (0.9, 1.0)
    ]
    row = experiment.row(trial, found)
    assert (row["network"], row["runs"]) == (trial.label, 2)
    assert (row["accuracy %"], row["± %"]) == (95.0, 7.07)
    assert row["threads"] == "2"
    assert experiment.row(trial, found[:1])["± %"] == ""  # one run has no spread
