"""The experiments in benchmarks/ begin right: splits by law, networks and recipes that exist."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from leancnn import models, recipes, runs
from leancnn.errors import RunError
from tests.tiny import RECIPE

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import curves
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
    [
        *orl.trials(40, 224),
        *orl.trials(40, 112),
        *rsenet_ablation.trials(2, 32),
        *rsenet_ablation.trials(2, 224),
    ],
    ids=lambda trial: trial.label,
)
def test_every_trial_names_a_network_with_its_arguments_and_a_recipe(
    trial: experiment.Trial,
) -> None:
    assert models.arguments(trial.network).keys() >= trial.arguments.keys()
    assert recipes.of_json(trial.recipe.to_json()) == trial.recipe


def test_a_run_of_another_recipe_or_of_other_data_is_not_taken_for_this_one(
    quiet: Path, pictures: Path
) -> None:
    trial = experiment.Trial(label="tiny", network="tiny", recipe=RECIPE.changed(epochs=8))
    with pytest.raises(RunError, match="another recipe; choose another folder"):
        experiment.run(trial, pictures, 0, quiet)
    same = experiment.Trial(label="tiny", network="tiny", recipe=RECIPE.changed(size=(8, 8)))
    experiment.check_same(quiet, same, pictures)  # 8×8 is what the network takes anyway
    with pytest.raises(RunError, match="was trained on"):
        experiment.run(same, pictures.parent, 0, quiet)


def test_a_command_makes_its_table_again() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("faces", type=Path)
    for key, usual in (("splits", 5), ("epochs", 40.0), ("recipe", "nvmnet-fast")):
        parser.add_argument(f"--{key}", type=type(usual), default=usual)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--result", type=Path)
    words = ["/x/orl-faces", "--epochs", "8", "--splits", "5", "--only", "nvmnet_g4", "nvmnet_g4 b",
             "--runs", "/y", "--result", "/z"]  # fmt: skip
    told = experiment.command("/x/benchmarks/orl.py", parser, parser.parse_args(words))
    assert told == ("python benchmarks/orl.py orl-faces --epochs 8 --only nvmnet_g4 'nvmnet_g4 b'")
    assert vars(parser.parse_args(shlex.split(told)[2:])) == {
        **vars(parser.parse_args(words)), "faces": Path("orl-faces"), "runs": Path("runs"),
        "result": None,
    }  # fmt: skip


def test_a_curve_is_the_mean_of_the_runs_and_says_whose_it_is(tmp_path: Path) -> None:
    def run(label: str, train: list[float], val: list[float | None]) -> dict[str, object]:
        return {"label": label, "train_accuracy": train, "val_accuracy": val}

    found = [run("a", [0.2, 0.6], [None, None]), run("a", [0.4, 0.8], [None, None])]
    whose, drawn = curves.lines(found)
    assert whose == "training"
    assert drawn["a"] == pytest.approx([30.0, 70.0])
    assert curves.lines([run("a", [0.2], [0.1])]) == ("validation", {"a": [10.0]})
    curves.picture({"title": "t", "runs": found}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_is_the_mean_and_spread_of_its_runs() -> None:
    trial = orl.trials(40, 224)[0]
    found = [
        {**told(trial.label, 0), "last": share, "seconds": 10.0, "threads": 2}
        for share in (0.9, 1.0)
    ]
    row = experiment.row(trial, found)
    assert (row["network"], row["runs"]) == (trial.label, 2)
    assert (row["accuracy %"], row["± %"]) == (95.0, 7.07)
    assert row["threads"] == "2"
    assert experiment.row(trial, found[:1])["± %"] == ""  # one run has no spread


def test_what_is_finished_stands_in_a_result_before_more_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [experiment.Trial(label=f"net {n}", network="tiny", recipe=RECIPE) for n in "ab"]
    for name, state in (("net-b-seed1", "finished"), ("net-a-seed0", "stopped")):
        runs.write_json(tmp_path / name / "run.json", {"state": state})
    asked: list[str] = []

    def run(trial: experiment.Trial, data: object, seed: int, folder: Path, **_: object) -> Any:
        asked.append(folder.name)
        return told(trial.label, seed)

    monkeypatch.setattr(experiment, "run", run)
    result = tmp_path / "result.json"
    experiment.all_of(
        trials, {0: "data", 1: "data"}, tmp_path, result, title="t", command="c", note="n"
    )
    assert asked == ["net-b-seed1", "net-a-seed0", "net-b-seed0", "net-a-seed1"]
    assert [row["runs"] for row in runs.read_json(result)["rows"]] == [2, 2]


def told(label: str, seed: int, processor: str = "") -> dict[str, Any]:
    """What `experiment.run` would return."""
    return {
        "label": label,
        "seed": seed,
        "last": 0.5,
        "best": None,
        "seconds": 1.0,
        "images_per_s": 1.0,
        "threads": 1,
        "processor": processor or runs.machine()["processor"],
    }


def test_runs_that_stand_in_a_result_are_not_repeated_unless_they_were_trained_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, asked = tmp_path / "result.json", []

    def run(trial: experiment.Trial, data: object, seed: int, folder: Path, **_: object) -> Any:
        asked.append((trial.label, seed))
        return told(trial.label, seed)

    def again(title: str, seeds: int, a: Any, only: list[str] | None = None) -> dict[str, Any]:
        asked.clear()
        experiment.all_of(
            [
                experiment.Trial(label="a", network="tiny", recipe=a),
                experiment.Trial(label="b", network="tiny", recipe=RECIPE),
            ],
            dict.fromkeys(range(seeds), "data"),
            tmp_path,
            result,
            title=title,
            command="c",
            note="n",
            only=only,
        )
        return {row["network"]: row["runs"] for row in runs.read_json(result)["rows"]}

    monkeypatch.setattr(experiment, "run", run)
    assert again("t", 1, RECIPE) == {"a": 1, "b": 1}
    assert again("t", 2, RECIPE, only=["b"]) == {"a": 1, "b": 2}
    assert asked == [("b", 1)]
    kept = runs.read_json(result)
    kept["runs"][0].pop("processor")  # a result of before had none
    runs.write_json(result, {**kept, "machine": {**kept["machine"], "processor": "Z80"}})
    assert again("t", 2, RECIPE) == {"a": 2, "b": 2}
    assert asked == [("a", 1)]
    assert runs.read_json(result)["note"] == "n; 1 runs on Z80"
    assert again("t", 2, RECIPE.changed(lr=0.3)) == {"a": 2, "b": 2}
    assert asked == [("a", 0), ("a", 1)]
    assert again("other data", 1, RECIPE) == {"a": 1, "b": 1}
