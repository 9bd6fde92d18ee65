"""benchmarks/pruning.py begins right: subsets by law, rows as the tables want them."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

from leancnn import criteria, models, recipes, runs
from leancnn.prune.baselines import check_baseline
from leancnn.prune.goal import GoalWords
from leancnn.prune.significance import Comparison, Row, conclusion

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import experiment
import pruning
import tables

CLASSES = {"cat": 20, "dog": 20, "hen": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that hold their own names."""
    root = tmp_path_factory.mktemp("data") / "pets"
    for part, times in (("train", 1), ("test", 2)):
        for name, number in CLASSES.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for image in range(number // times):
                (folder / f"{image:02}.png").write_text(f"{part}/{name}/{image}")
    return root


def texts(folder: Path, part: str) -> set[str]:
    return {path.read_text() for path in (folder / part).glob("*/*")}


def test_a_subset_is_stratified_and_its_test_part_whole(data: Path, tmp_path: Path) -> None:
    where = experiment.subset(data, 31, 0, tmp_path / "cut")
    counts = sorted(len(list((where / "train" / name).iterdir())) for name in CLASSES)
    assert counts == [10, 10, 11]
    assert texts(where, "test") == texts(data, "test")
    assert texts(where, "train") < texts(data, "train")


def test_a_subset_is_a_function_of_its_seed_and_holds_the_smaller_ones(
    data: Path, tmp_path: Path
) -> None:
    cuts = {
        (images, seed, turn): texts(
            experiment.subset(data, images, seed, tmp_path / f"{images}-{seed}-{turn}"), "train"
        )
        for images, seed, turn in ((30, 0, 0), (30, 0, 1), (30, 1, 0), (12, 0, 0))
    }
    assert cuts[30, 0, 0] == cuts[30, 0, 1]
    assert cuts[30, 0, 0] != cuts[30, 1, 0]
    assert cuts[12, 0, 0] < cuts[30, 0, 0]


def test_a_subset_that_was_stopped_is_made_anew_and_strange_data_are_refused(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.making" / "train" / "cat").mkdir(parents=True)
    assert len(texts(experiment.subset(data, 6, 0, tmp_path / "cut"), "train")) == 6
    assert not (tmp_path / "cut.making").exists()
    with pytest.raises(SystemExit, match="needs train/"):
        experiment.subset(data / "train", 6, 0, tmp_path / "other")


@pytest.mark.parametrize("name", pruning.experiments(20))
def test_an_experiment_names_what_there_is(name: str) -> None:
    one = pruning.experiments(20)[name]
    assert models.arguments(one.network).keys() >= one.arguments.keys()
    assert recipes.get(one.recipe)
    for criterion in one.criteria:
        criteria.get(criterion)
    assert one.goals.keys() == one.baselines.keys()
    for goal, wanted in one.goals.items():
        assert len(wanted) == 1
        assert wanted.keys() <= GoalWords.__annotations__.keys()
        for baseline in one.baselines[goal]:
            check_baseline(baseline)
    lines = {(g, c) for g in one.goals for c in (*one.criteria, *one.baselines[g])}
    assert one.published.keys() <= {("whole", "whole"), *lines}


def test_published_figures_of_lbmbnet_are_those_of_the_cards() -> None:
    text = models.card("lbmbnet32_r6").published + models.card("lbmbnet32_r80").published
    for told in pruning.experiments(20)["lbmbnet"].published.values():
        assert f"{told.split()[0]} %" in text


def found(goal: float, *after: tuple[str, str, float]) -> Comparison:
    rows = tuple(
        Row(label=label, kind=kind, seed=seed, before=None if kind == "baseline" else 0.5, after=a,
            macs=100, trainable=10, microseconds=None, epochs=4.0)
        for seed, (label, kind, a) in enumerate(after)
    )  # fmt: skip
    return Comparison(
        folder="f", goal={"expansion": goal}, images=1000, rows=rows, left_out=(),
        conclusion=conclusion(rows, 1000), picture="p",
    )  # fmt: skip


def test_a_result_has_the_whole_network_once_and_each_line_beside_what_was_published(
    tmp_path: Path,
) -> None:
    one = pruning.experiments(12)["lbmbnet"]
    told = {
        "r6": found(6, ("whole", "whole", 0.9), ("se_gate", "criterion", 0.88),
                    ("se_gate", "criterion", 0.86), ("scratch", "baseline", 0.8)),
        "r3": found(3, ("whole", "whole", 0.9), ("se_gate", "criterion", 0.7)),
    }  # fmt: skip
    path = tmp_path / "pruning-x.json"
    pruning.keep(path, one, recipes.get(one.recipe), "python x", "trained on 5 images", told)
    kept = runs.read_json(path)
    lines = [(row["cut to"], row["network"], row["runs"]) for row in kept["rows"]]
    assert lines == [
        ("whole", "whole", 1), ("r6", "se_gate", 2), ("r6", "scratch", 1), ("r3", "se_gate", 1),
    ]  # fmt: skip
    gate = kept["rows"][1]
    assert (gate["after %"], gate["± %"], gate["change"]) == (87.0, 1.41, -3.0)
    assert gate["published"].startswith("94.90")
    assert kept["rows"][3]["published"] == ""
    assert "trained on 5 images" in kept["note"]
    assert "r6: se_gate is" in kept["note"]
    assert len(kept["runs"]["r6"]["rows"]) == 4
    assert "folder" not in kept["runs"]["r6"], "no paths of this machine"
    text = tables.table(kept)
    assert all(len(row) == len(kept["rows"][0]) for row in kept["rows"])
    assert "| r6 | se_gate | 2 |" in text


def test_the_command_of_a_result_makes_it_again() -> None:
    def words(**changes: Any) -> argparse.Namespace:
        usual = {"name": "lbmbnet", "data": Path("/x/pets"), "wide": 12, "epochs": 8.0, "batch": 0}
        more = {"size": 0, "images": 500, "seeds": 2, "criteria": ""}
        return argparse.Namespace(**{**usual, **more, **changes})

    assert pruning.command_words(words()) == (
        "lbmbnet pets --wide 12 --images 500 --epochs 8 --seeds 2"
    )
    assert pruning.command_words(words(), short=True) == "r12-500-8"
    smaller = words(batch=32, size=16)
    assert "--epochs 8 --batch 32 --size 16 --seeds 2" in pruning.command_words(smaller)
    assert pruning.command_words(smaller, short=True) == "r12-500-8-b32-s16"
    other = words(name="henet", images=0, criteria="l1")
    assert pruning.command_words(other) == "henet pets --epochs 8 --seeds 2 --criteria l1"
    assert pruning.command_words(other, short=True) == "all-8"


def test_the_clock_compares_each_network_with_the_first_round_by_round() -> None:
    turns = {
        ("whole", "c"): [4.0, 8.0, 4.0],
        ("r6 by se_gate", "c"): [2.0, 4.0, 1.0],
        ("whole", "onnxruntime"): [3.0, 3.0, 3.0],
    }
    lines = pruning.clock_table("x", {"whole": 400, "r6 by se_gate": 100}, turns)
    assert [line["fewer MACs"] for line in lines] == [1.0, 4.0]
    assert [line["c, times faster"] for line in lines] == [1.0, 2.0]
    assert lines[1]["onnxruntime µs"] == ""
    assert lines[0].keys() == lines[1].keys()


def test_the_clock_takes_the_first_criterion_and_networks_of_the_zoo(tmp_path: Path) -> None:
    rows = [("whole", "whole"), ("l1", "criterion"), ("random", "criterion"),
            ("henet_r3", "baseline"), ("scratch", "baseline")]  # fmt: skip
    runs.write_json(
        tmp_path / "henet_r3" / "comparison.json",
        {"rows": [{"label": label, "kind": kind} for label, kind in rows]},
    )
    assert pruning.pruned(tmp_path) == {
        "whole": tmp_path / "whole",
        "henet_r3 by l1": tmp_path / "henet_r3" / "l1-seed0",
        "henet_r3": tmp_path / "henet_r3" / "henet_r3-seed0",
    }
