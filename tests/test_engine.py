"""Which forward pass trains here, and what is said about it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leancnn import engine, lanes, runs
from leancnn.distributed import World
from leancnn.engine import choose
from leancnn.errors import MissingDependencyError
from leancnn.native import build
from leancnn.train import train
from tests.tiny import RECIPE, tiny

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = World(0, 1, torch.device("cpu"))
AUTO = RECIPE.changed(engine="auto")


def chosen(recipe: Any, world: World = ALONE) -> engine.Choice:
    return choose(tiny(), recipe, torch.randn(16, 3, 8, 8), world, uses_features=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Let steps of the engines take what a test says, in seconds; nothing is computed."""
    seconds = {"lanes": 2.0, "torch": 1.0}

    def step(forward: Any, way: tuple[str, str], images: Any) -> float:
        return seconds[way[0]] + (way[1] == "bf16")

    monkeypatch.setattr(engine, "_seconds_of_step", step)
    return seconds


def test_nothing_is_measured_where_the_recipe_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_seconds_of_step", None)
    assert chosen(RECIPE) == engine.Choice("torch", "fp32", "the recipe says so")


def test_measuring_changes_no_weight_and_leaves_no_gradient() -> None:
    body = tiny()
    before = {k: v.clone() for k, v in body.state_dict().items()}
    open_ = RECIPE.changed(precision="auto")
    found = choose(body, open_, torch.randn(4, 3, 8, 8), ALONE, uses_features=False)
    assert found.engine == "torch"
    assert found.precision in ("fp32", "bf16")
    assert all(torch.equal(before[k], v) for k, v in body.state_dict().items())
    assert all(p.grad is None for p in body.parameters())


def test_the_faster_engine_is_chosen_and_both_times_are_told(clock: dict[str, float]) -> None:
    assert str(chosen(AUTO)) == (
        "training in plain torch, fp32: 2 s a step in the lanes, 1 s in torch"
    )
    clock["torch"] = 3.5
    assert str(chosen(AUTO)) == (
        "training in the lanes, fp32: 2 s a step in the lanes, 3.5 s in torch"
    )
    assert chosen(RECIPE.changed(engine="lanes")).why == "the recipe says so"


@pytest.mark.parametrize("wish", ["auto", "lanes"])
def test_where_the_lanes_cannot_run_torch_does_and_says_why(wish: str) -> None:
    recipe = RECIPE.changed(engine=wish)
    body = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten())
    found = choose(body, recipe, torch.randn(16, 3, 8, 8), ALONE, uses_features=False)
    assert found.engine == "torch"
    assert found.why == "not in the lanes: a convolution or a norm has no lanes form"
    two = chosen(recipe, World(0, 2, torch.device("cpu")))
    assert two.why == "not in the lanes: they are for one process, and these are 2"
    images = torch.randn(16, 3, 8, 8)
    reads = choose(tiny(), recipe.changed(loss="softmax+center"), images, ALONE, uses_features=True)
    assert reads.why == "not in the lanes: the loss softmax+center reads features, not only logits"


def test_all_processes_measure_since_their_norms_wait_for_each_other(
    clock: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, ways = engine._seconds_of_step, []

    def noted(forward: Any, way: tuple[str, str], images: Any) -> float:
        ways.append(way)
        return step(forward, way, images)

    monkeypatch.setattr(engine, "_seconds_of_step", noted)
    monkeypatch.setattr(World, "of_first", lambda self, value: value)
    done = []
    for rank in range(2):
        ways.clear()
        found = chosen(AUTO.changed(precision="auto"), World(rank, 2, torch.device("cpu")))
        done.append(list(ways))
        assert (found.engine, found.precision) == ("torch", "fp32")
    assert done[0] == done[1]
    assert {precision for _, precision in done[0]} == {"fp32", "bf16"}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MissingDependencyError("no C compiler found; install gcc or clang")

    lanes.program._library.cache_clear()
    monkeypatch.setattr(build, "find_compiler", refuse)
    monkeypatch.setattr(lanes, "find_compiler", refuse)


@pytest.mark.usefixtures("no_compiler")
def test_a_run_says_once_which_engine_it_took_and_keeps_the_reason(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    why = "not in the lanes: no C compiler found; install gcc or clang"
    train(pictures, recipe=AUTO.changed(epochs=1), out=tmp_path / "run")
    lines = capfd.readouterr().err.splitlines()
    assert lines.count(f"training in plain torch, fp32: {why}") == 1
    assert sum("lanes" in line for line in lines) == 1
    plan = runs.read_json(tmp_path / "run" / "run.json")["plan"]
    assert (plan["engine"], plan["engine_why"]) == ("torch", why)
    assert lanes.compiler() == "none"


def test_the_compiler_is_named_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, version in (
        (("/usr/bin/cc",), "cc (Debian 12.2.0-14) 12.2.0"),
        (("/opt/x/gcc-12",), "gcc-12 (Debian 12.2.0-14) 12.2.0"),
    ):
        found = build.Compiler(words, version)
        monkeypatch.setattr(lanes, "find_compiler", lambda found=found: found)
        assert lanes.compiler() == " ".join(["gcc (Debian 12.2.0-14) 12.2.0", *lanes.FLAGS])
    odd = build.Compiler(("gcc", "-O1", "--sysroot=/home/me"), "gcc (GCC) 13.1")
    monkeypatch.setattr(lanes, "find_compiler", lambda: odd)
    assert lanes.compiler() == " ".join(["gcc (GCC) 13.1 -O1", *lanes.FLAGS])
