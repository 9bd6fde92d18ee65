"""What is decided, or refused, before the first step."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from leancnn import recipes, runs, weights
from leancnn.data import Dataset
from leancnn.errors import DamagedError, LeanCNNError, MismatchError, RunError, UsageError
from leancnn.train.plan import TrainingPlan, check_options
from leancnn.training_data import check_place, keep_margin, kept_preprocessing, preprocessing_for
from tests.tiny import RECIPE


def test_preprocessing_stores_no_less_than_the_network_takes() -> None:
    preprocessing = preprocessing_for("henet_r2", recipes.get("henet-fast"))
    assert (preprocessing.size, preprocessing.scale, preprocessing.channels) == (
        (31, 31),
        (32, 32),
        3,
    )
    preprocessing = preprocessing_for(
        "henet_r2", replace(recipes.get("smoke"), scale=None, channels=1)
    )
    assert (preprocessing.size, preprocessing.scale, preprocessing.channels) == (
        (31, 31),
        (31, 31),
        1,
    )


def test_a_recipe_may_choose_size_and_fit() -> None:
    recipe = recipes.get("henet-fast").changed(size=[40, 33], fit="stretch")
    preprocessing = preprocessing_for("henet_r2", recipe)
    assert (preprocessing.size, preprocessing.scale, preprocessing.fit) == (
        (40, 33),
        (40, 33),
        "stretch",
    )
    preprocessing = preprocessing_for("henet_r2", recipe.changed(size=[31, 31]))
    assert (preprocessing.size, preprocessing.scale) == ((31, 31), (32, 32))


def test_a_smaller_size_is_no_smaller_window_of_images_as_large_as_before() -> None:
    def scale(name: str, network: str, **overrides: Any) -> object:
        recipe = recipes.get(name).changed(**overrides)
        return keep_margin(recipe, network, overrides).scale

    assert scale("small-fast", "resnet20", size=(24, 20)) == (24, 20)
    assert scale("henet-fast", "henet_r2", size=(40, 33)) == (41, 34)
    assert scale("small-fast", "nvmnet_g4", size=(64, 64)) == (64, 64)
    assert scale("small-fast", "resnet20", size=(24, 24), scale=(32, 32)) == (32, 32)
    assert scale("small-fast", "resnet20", lr=0.1) == (32, 32)
    assert scale("nvmnet-fast", "nvmnet_g4", size=(64, 64)) is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"seed": -1}, "a `seed` is 0 to"),
        ({"seed": 2**63}, "a `seed` is 0 to"),
        ({"val_share": 1}, "`val_share` is 0"),
        ({"val_share": -0.1}, "`val_share` is 0"),
        ({"val_share": float("nan")}, "`val_share` is 0"),
        (
            {"arguments": {"width": 10**12}},
            "tiny with width=10+ is too large",
        ),
        ({"arguments": {"classes": 3}}, "classes is not among a network's arguments"),
        ({"arguments": {"width": -1}}, "tiny cannot be built with width=-1"),
        ({"recipe": {"loss": "cross_entropy", "loss_arguments": {"gamma": 2}}}, "it takes none"),
        ({"recipe": {"loss": "soft"}}, "no loss named 'soft'"),
        ({"recipe": {"loss": "focal", "loss_arguments": {"gamma": -1}}}, "0 or more, not -1"),
        ({"recipe": {"loss": "center"}}, "never trains the classifier; choose softmax"),
    ],
)
def test_what_no_run_can_be_is_refused_before_any_decoding(
    fields: dict[str, Any], text: str
) -> None:
    given = {"arguments": {}, "seed": 0, "val_share": 0.1, **fields}
    given["recipe"] = RECIPE.changed(**given.get("recipe", {}))
    preprocessing = preprocessing_for("tiny", given["recipe"])
    with pytest.raises(LeanCNNError, match=text):
        check_options("tiny", preprocessing=preprocessing, **given)


def test_images_that_the_network_cannot_take_are_refused_before_any_decoding() -> None:
    for size, text in (([20, 31], "31×31 .* 20×31"), ([47, 47], "47×47")):
        recipe = recipes.get("smoke").changed(size=size)
        preprocessing = preprocessing_for("henet_r2", recipe)
        with pytest.raises(MismatchError, match=text):
            check_options("henet_r2", {}, recipe, preprocessing, seed=0, val_share=None)


def test_a_large_network_and_large_images_are_checked_by_their_shapes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, build = [], weights.build

    def recorded(*given: Any) -> Any:
        made.append(build(*given))
        return made[-1]

    monkeypatch.setattr(weights, "build", recorded)
    recipe = recipes.get("plain-224").changed(size=[4096, 4096])
    check_options("vgg16", {}, recipe, preprocessing_for("vgg16", recipe), seed=0, val_share=None)
    assert all(p.is_meta for p in made[0].parameters())


def test_a_recipe_for_other_images_than_those_of_the_start_is_remarked(quiet: Path) -> None:
    plan = TrainingPlan.of_json(runs.read_json(quiet / "run.json")["plan"])
    plan = replace(plan, recipe=plan.recipe.changed(size=(16, 16), channels=1))
    manifest = {"parts": ["test"], "skipped": []}
    told = plan.warnings(Dataset(name="folder", classes=(), manifest=manifest))
    start = "but the network that training starts from has"
    assert f"the recipe says size (16, 16), {start} (8, 8), which stays" in told
    assert f"the recipe says channels 1, {start} 3, which stays" in told


def test_a_batch_that_was_asked_for_is_no_larger_than_the_data(quiet: Path) -> None:
    plan = TrainingPlan.of_json(runs.read_json(quiet / "run.json")["plan"])
    plan.check_sizes(asked=True)
    large = replace(plan, recipe=RECIPE.changed(batch=plan.images + 1))
    large.check_sizes(asked=False)  # a recipe is written for other data; a remark tells of it
    with pytest.raises(MismatchError, match=f"a batch of {plan.images + 1} is more than the"):
        large.check_sizes(asked=True)
    endless = replace(plan, images=10**7, recipe=RECIPE.changed(epochs=1000))
    with pytest.raises(MismatchError, match=r"625,000,000 steps; at most 99,999,999"):
        endless.check_sizes(asked=False)


def test_a_plan_of_another_version_is_told_so(quiet: Path) -> None:
    written = runs.read_json(quiet / "run.json")["plan"]
    assert (
        TrainingPlan.of_json(written).to_json()
        == TrainingPlan.of_json(TrainingPlan.of_json(written).to_json()).to_json()
    )
    older = {key: value for key, value in written.items() if key != "threads"}
    recipe = {**written["recipe"], "dream": 1}
    for other in ({**written, "dream": 1}, older, {**written, "recipe": recipe}):
        with pytest.raises(
            DamagedError, match=r"is not what leancnn writes|a plan of another version of leancnn"
        ):
            TrainingPlan.of_json(other)


@pytest.mark.parametrize(("name", "flip"), [("svhn", True), ("svhn", False), ("folder", True)])
def test_mirrored_digits_are_remarked(quiet: Path, name: str, flip: bool) -> None:
    plan = TrainingPlan.of_json(runs.read_json(quiet / "run.json")["plan"])
    plan = replace(plan, recipe=plan.recipe.changed(flip=flip))
    found = plan.warnings(
        Dataset(name=name, classes=(), manifest={"parts": ["test"], "skipped": []})
    )
    assert any("--override flip=false" in text for text in found) is (flip and name == "svhn")


def test_a_step_that_may_not_fit_into_memory_is_remarked(
    quiet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-SeNet at 224×224 with 128 images: without a word Linux kills it."""
    recipe = recipes.get("rsenet-fast")
    plan = replace(
        TrainingPlan.of_json(runs.read_json(quiet / "run.json")["plan"]),
        model="rsenet", arguments={}, recipe=recipe, images=1000,
        preprocessing=preprocessing_for("rsenet", recipe),
    )  # fmt: skip
    data = Dataset(name="folder", classes=(), manifest={"parts": ["test"], "skipped": []})
    for free, remarked in ((10**9, True), (6 * 10**9, True), (8 * 10**9, False), (None, False)):
        monkeypatch.setattr(
            import_module("leancnn.train.plan"), "free_memory", lambda free=free: free
        )
        found = [text for text in plan.warnings(data) if "a step on 128 images of 224×224" in text]
        assert bool(found) is remarked
        assert all("smaller --batch" in text for text in found)
    shared = replace(plan, processes=4)
    monkeypatch.setattr(import_module("leancnn.train.plan"), "free_memory", lambda: 2 * 10**9)
    assert not [text for text in shared.warnings(data) if "a step on" in text]


def test_a_run_does_not_lie_in_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    for inside in ("photos", "photos/run", "other/../photos/cat/run"):
        with pytest.raises(RunError, match="lies in the data, photos; choose a folder outside"):
            check_place(Path(inside), "photos")
    for outside in ("photos-2", "run", "."):
        check_place(Path(outside), "photos")
    check_place(Path("digits/run"), "digits")  # that is the name of a data set


def test_training_that_starts_from_a_network_keeps_its_images(quiet: Path) -> None:
    start = weights.load(quiet)
    assert kept_preprocessing(start, {"epochs": 1}) == start.preprocessing
    with pytest.raises(UsageError, match="leave out fit, size"):
        kept_preprocessing(start, {"size": (9, 9), "fit": "stretch"})
