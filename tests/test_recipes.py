"""Recipes as values, and the learning rate as a function of progress."""

import ast
import inspect
import json
import math
import re
import typing
from contextlib import suppress
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import leancnn
from leancnn import models, recipes, runs
from leancnn.errors import DamagedError, DataError, DivergedError, MismatchError, UnknownNameError
from leancnn.recipes import learning_rate
from tests.few import few
from tests.tiny import RECIPE

STEP = recipes.get("henet-paper").changed(lr=1.0, schedule="multistep", milestones=[0.5, 0.75])


@pytest.fixture(scope="module", params=recipes.names())
def recipe(request: pytest.FixtureRequest) -> recipes.Recipe:
    return recipes.get(request.param)


def test_every_recipe_comes_back_from_json(recipe: recipes.Recipe) -> None:
    assert recipes.of_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_every_recipe_names_its_network_and_source(recipe: recipes.Recipe) -> None:
    assert models.card(recipe.network)
    assert recipe.source


@given(st.floats(0, 1))
def test_no_rate_is_negative_or_above_the_peak(progress: float) -> None:
    for name in recipes.names():
        recipe = recipes.get(name)
        assert 0 <= learning_rate(recipe, progress) <= recipe.lr


def test_multistep_falls_at_its_milestones() -> None:
    rates = [learning_rate(STEP, p) for p in (0, 0.49, 0.5, 0.74, 0.75, 1)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_one_cycle_rises_and_falls_in_straight_lines() -> None:
    cycle = STEP.changed(schedule="one-cycle", warmup=0.25, final=0.2)
    rates = [learning_rate(cycle, p) for p in (0.125, 0.25, 0.625, 1)]
    assert rates == pytest.approx([0.5, 1, 0.6, 0.2])
    assert learning_rate(cycle, 0) > 0


def test_cosine_is_half_a_cosine() -> None:
    cosine = STEP.changed(schedule="cosine")
    for progress in (0, 0.3, 0.5, 0.9, 1):
        expected = (1 + math.cos(math.pi * progress)) / 2
        assert learning_rate(cosine, progress) == pytest.approx(expected)


def test_constant_stays_after_its_warm_up() -> None:
    constant = STEP.changed(schedule="constant", warmup=0.1)
    assert [learning_rate(constant, p) for p in (0.05, 0.1, 1)] == pytest.approx([0.5, 1, 1])


def test_the_paper_trains_for_65000_steps_on_cifar() -> None:
    paper = recipes.get("henet-paper")
    assert paper.steps(50_000) == 65_000
    assert learning_rate(paper, 31_999 / 65_000) == pytest.approx(0.01)
    assert learning_rate(paper, 32_000 / 65_000) == pytest.approx(0.001)
    assert learning_rate(paper, 48_000 / 65_000) == pytest.approx(0.0001)


def test_on_svhn_the_paper_trains_as_long_and_augments_nothing() -> None:
    paper, svhn = recipes.get("henet-paper"), recipes.get("henet-paper-svhn")
    assert svhn.steps(73_257) == 65_000
    plain = {"name": paper.name, "source": paper.source, "epochs": paper.epochs}
    assert svhn.changed(**plain, pad=4, flip=True) == paper
    assert (svhn.pad, svhn.shift, svhn.flip, svhn.cutout, svhn.mixup) == (0, 0, False, 0, 0)


@pytest.mark.parametrize(
    ("name", "images", "steps", "falls"),
    [
        ("henet-paper", 50_000, 65_000, (32_000, 48_000)),
        ("resnet-paper", 45_000, 64_000, (32_000, 48_000)),
        ("resnetv2-paper", 45_000, 64_000, (32_000, 48_000)),
        ("rsenet-paper", 50_000, 400_000, (200_000, 300_000)),
        ("lbmbnet-paper", 50_000, 200 * 390, (80 * 390, 140 * 390, 180 * 390)),
        ("nvmnet-paper", 300, 40 * 9, ()),
    ],
)
def test_a_papers_recipe_takes_its_steps_and_falls_at_them(name, images, steps, falls):
    paper = recipes.get(name)
    assert paper.steps(images) == steps
    begin = round(paper.warmup * steps)
    rates = [learning_rate(paper, step / steps) for step in range(begin, steps)]
    found = [step for step, (a, b) in enumerate(pairwise(rates), begin + 1) if b < a]
    assert found == list(falls)
    assert rates[0] == paper.lr
    assert rates[-1] == pytest.approx(paper.lr / 10 ** len(falls))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [  # ARCHITECTURES.md, section 8
        ("henet-paper", (0.01, 128, 0.9, True, 5e-4, "cross_entropy", {}, 4, 0, True)),
        ("lbmbnet-paper", (0.1, 128, 0.9, False, 5e-4, "cross_entropy", {}, 0, 4, True)),
        (
            "nvmnet-paper",
            (
                *(0.01, 32, 0.9, False, 5e-4),
                *("softmax+center", {"gamma": 0.003, "alpha": 0.5}, 0, 0, False),
            ),
        ),
        (
            "rsenet-paper",
            (0.01, 128, 0.9, False, 5e-4, "focal", {"gamma": 2.0, "alpha": 1.0}, 0, 0, False),
        ),
    ],
)
def test_a_papers_recipe_has_the_papers_numbers(name, numbers):
    r = recipes.get(name)
    found = (r.lr, r.batch, r.momentum, r.nesterov, r.weight_decay, r.loss, r.loss_arguments)
    assert (*found, r.pad, r.shift, r.flip) == numbers


def test_another_loss_begins_with_its_own_arguments() -> None:
    joint = recipes.get("nvmnet-paper")
    assert joint.changed(loss="focal").loss_arguments == {}
    assert joint.changed(loss=joint.loss).loss_arguments == joint.loss_arguments
    assert joint.changed(lr=0.1).loss_arguments == joint.loss_arguments
    asked = joint.changed(loss="focal", loss_arguments={"gamma": 1.0})
    assert asked.loss_arguments == {"gamma": 1.0}


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"epocs": 3}, UnknownNameError, "did you mean 'epochs'"),
        ({"lr": "fast"}, MismatchError, "lr takes a finite number, not 'fast'"),
        ({"lr": math.inf}, MismatchError, "lr takes a finite number, not inf"),
        ({"lr": 10**400}, MismatchError, "lr takes a finite number, not inf"),
        ({"epochs": math.nan}, MismatchError, "epochs takes a finite number, not nan"),
        ({"batch": 1.5}, MismatchError, "batch takes a whole number"),
        ({"batch": True}, MismatchError, "batch takes a whole number"),
        ({"flip": 1}, MismatchError, "flip takes true or false"),
        ({"loss_arguments": [1]}, MismatchError, "loss_arguments takes an object"),
        ({"milestones": "x"}, MismatchError, "milestones is a list, not"),
        ({"milestones": [7]}, MismatchError, "milestones from 0 to 1"),
        ({"epochs": 1e300}, MismatchError, "epochs above 0 and at most 100,000"),
        ({"scale": [10**6, 32]}, MismatchError, "a scale of 1 to 4096 pixels"),
        ({"pad": 10**9}, MismatchError, "pad, shift, cutout and mixup of at most 4096"),
        ({"lr": 1e308}, MismatchError, "lr of at most 1,000,000"),
        ({"weight_decay": 1e39, "clip": 2e6}, MismatchError, "weight_decay, clip of at most"),
        ({"final": -0.1}, MismatchError, "factor and final of 0 or more"),
        ({"schedule": "cosin"}, MismatchError, "schedule is one of"),
        ({"scale": [32]}, MismatchError, "scale is a list of 2"),
        ({"epochs": 0, "batch": 0}, MismatchError, "epochs above 0.*a batch of 2"),
        ({"pad": 1, "shift": 1}, MismatchError, "pad or shift"),
        ({"momentum": 0.0}, MismatchError, "momentum for nesterov"),
        ({"channels": 2}, MismatchError, "1 or 3 channels"),
    ],
)
def test_a_wrong_field_is_named(
    changes: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as told:
        recipes.get("smoke").changed(**changes)
    assert re.search(text, str(told.value).replace("`", ""))


def test_a_file_is_a_recipe_too(tmp_path: Path) -> None:
    smoke = recipes.get("smoke")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**smoke.to_json(), "epochs": 7}))
    assert recipes.read(path) == smoke.changed(epochs=7)
    assert recipes.read(str(path)).epochs == 7
    assert recipes.read(smoke) is smoke
    for broken in ("{", "[" * 100_000):
        path.write_text(broken)
        with pytest.raises(DamagedError):
            recipes.read(path)
    path.write_text('{"name": "x"}')
    with pytest.raises(MismatchError, match="needs source, network"):
        recipes.read(path)
    with pytest.raises(DataError, match="no such recipe file"):
        recipes.read(tmp_path / "other.json")
    with pytest.raises(UnknownNameError, match="did you mean 'smoke'"):
        recipes.read("smoky")


def test_a_network_without_a_recipe_of_its_own_trains_fast() -> None:
    assert recipes.for_network("shufflenet_r3").name == "henet-fast"


NUMBERS = [key for key, given in recipes.get("smoke").to_json().items() if type(given) is float]


@pytest.mark.parametrize("key", few(sorted({*NUMBERS, "mixup", "clip"} - {"epochs"})))
@pytest.mark.usefixtures("one_thread")
def test_the_largest_number_that_is_taken_trains_or_is_said_to_diverge(
    key: str, pictures: Path, tmp_path: Path
) -> None:
    """No number of a recipe ends in an error of torch's, such as an overflow of float32."""
    for value in (1e6, 1e3, 4096.0, 0.999999, 1e-308):
        with suppress(MismatchError):
            recipe = RECIPE.changed(epochs=0.5, **{key: value})
            break
    with suppress(DivergedError):
        leancnn.train(pictures, recipe=recipe, out=tmp_path / "run", progress=False)
    assert runs.load_checkpoint(tmp_path / "run")[0] is not None


def field_rows() -> list[str]:
    """A line of the page for each field: its name, what it is where nothing is said, its words."""
    source = Path(inspect.getfile(recipes.Recipe)).read_text(encoding="utf-8")
    body = next(
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Recipe"
    )
    words = {
        one.target.id: " ".join(ast.literal_eval(two.value).split())
        for one, two in pairwise(body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(two, ast.Expr)
        and isinstance(one.target, ast.Name)
    }
    kinds = typing.get_type_hints(recipes.Recipe)
    rows = []
    for one in fields(recipes.Recipe):
        choices = typing.get_args(kinds[one.name])
        options = typing.get_origin(kinds[one.name]) is typing.Literal
        among = f"one of {', '.join(f'`{choice}`' for choice in choices)}. " if options else ""
        default = "" if one.default is MISSING else f"`{json.dumps(one.default)}`"
        default = default if one.default_factory is MISSING else "`{}`"
        said = among + words.get(one.name, "")
        rows.append(f"| `{one.name}` | {default} | {said} |".replace("  ", " "))
    return rows


def test_the_page_of_recipes_lists_every_field_with_its_default_and_what_it_does() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith("| `")]
    assert shown == field_rows()
