"""What earlier versions left on disk loads, and goes on: a run of 0.1, one of a week later, a cut.

tests/saved/ holds what they wrote, byte for byte, of the network and the pictures of `tests.tiny`;
only the pictures of the epochs and older checkpoints are left out.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import leancnn
from leancnn import recipes, runs, weights
from leancnn.errors import DamagedError
from leancnn.prune import PruningPlan
from leancnn.recipes import _base
from leancnn.renamed_keys import renamed
from leancnn.safe_files import load_pair, read_manifest, save_pair
from leancnn.train import resume
from leancnn.train.plan import TrainingPlan
from tests.tiny import RECIPE

SAVED = Path(__file__).parent / "saved"
VERSIONS = ("0.1", "0.1-later")
pytestmark = pytest.mark.usefixtures("no_curves", "one_thread")


@pytest.fixture(params=VERSIONS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run, to work on."""
    shutil.copytree(SAVED / request.param / "run", tmp_path / "run")
    return tmp_path / "run"


def test_the_recipe_and_the_plan_are_read_by_the_words_of_today(run: Path) -> None:
    assert "engine" in json.loads((run / "recipe.json").read_text())
    recipe = recipes.read(run / "recipe.json")
    assert recipe == RECIPE.changed(epochs=2)
    plan = TrainingPlan.of_json(runs.read_run(run)["plan"])
    assert (plan.backend, plan.recipe, plan.epochs) == ("torch", recipe, 2)


def test_the_network_answers_and_its_uses_of_the_test_set_are_counted_on(
    run: Path, pictures: Path
) -> None:
    assert leancnn.predict(run, next(pictures.rglob("*.png")))[0].label.startswith("class ")
    found = leancnn.evaluate(run, pictures, picture=run / "c.png")
    assert found.accuracy == runs.evaluations(run)[0]["accuracy"]
    assert (found.uses, found.all_uses) == (2, 2)
    assert found.to_json()["opened"] == 2


def test_the_run_is_lengthened_and_then_speaks_the_words_of_today(
    run: Path, pictures: Path
) -> None:
    assert len(resume(run, data=pictures, epochs=3, progress=False).history) == 3
    about = runs.read_run(run)
    assert about["plan"]["backend"] == "torch"
    assert "engine" not in about["plan"]
    assert any("from 2 to 3 epochs" in text for text in about["warnings"])
    assert json.loads((run / "recipe.json").read_text())["backend"] == "torch"


def rewritten(folder: Path, **changes: Any) -> Path:
    """A saved network with another manifest, whose digests fit."""
    manifest, arrays = load_pair(folder / weights.MANIFEST, folder / weights.WEIGHTS)
    for key in ("file", "tensors", "sha256"):
        manifest.pop(key, None)
    save_pair(folder / weights.MANIFEST, folder / weights.WEIGHTS, {**manifest, **changes}, arrays)
    return folder


@pytest.mark.parametrize("version", [1, 2, 3])
def test_networks_of_every_format_are_read_and_written_in_the_newest(
    version: int, run: Path, tmp_path: Path
) -> None:
    old = weights.load(run)
    weights.save(old, tmp_path / "new")
    assert read_manifest(tmp_path / "new" / weights.MANIFEST)["format"] == weights.FORMAT
    again = weights.load(rewritten(tmp_path / "new", format=version))
    assert weights.digest(again) == weights.digest(old)


def test_a_network_of_a_format_to_come_is_refused_in_words(run: Path) -> None:
    rewritten(run / "best", format=weights.FORMAT + 1)
    with pytest.raises(DamagedError, match="saved by a newer leancnn; update this one"):
        weights.load(run)


def test_a_cut_and_its_plan_are_read_and_the_same_call_goes_on(
    tmp_path: Path, pictures: Path
) -> None:
    shutil.copytree(SAVED / "0.1-later" / "pruned", tmp_path / "pruned")
    written = runs.read_json(tmp_path / "pruned" / "plan.json", dict[str, Any])
    assert {"notes", "told"} <= written.keys()
    plan = PruningPlan.of_json(written)
    assert (str(plan.goal), plan.warnings, plan.observed) == ("keep 0.5", (), {})
    small = weights.load(tmp_path / "pruned")
    pruned = leancnn.prune(
        SAVED / "0.1-later" / "run", out=tmp_path / "pruned", criterion="l1", keep=0.5,
        progress=False, data=pictures,
    )  # fmt: skip
    assert pruned.plans == (plan,)
    assert weights.digest(pruned.network) == weights.digest(small)


def test_old_words_of_a_recipe_are_taken_and_said_so_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _base._tell_of_engine.cache_clear()
    changed = RECIPE.changed(engine="lanes")
    assert changed == RECIPE.changed(engine="lanes") == RECIPE.changed(backend="simd")
    assert capsys.readouterr().err.count("engine is called backend now") == 1
    plan = {"engine": "lanes", "engine_why": "the recipe says so", "seed": 1}
    new = {"backend": "simd", "backend_why": "the recipe says so", "seed": 1}
    assert renamed(plan) == renamed(new) == new
