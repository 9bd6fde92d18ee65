"""Which forward pass trains here, and what is said about it."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from leancnn import cpu_training, runs, toolchain
from leancnn.distributed import World
from leancnn.errors import MissingDependencyError
from leancnn.models import create_model
from leancnn.recipes import Backend
from leancnn.train import backend, train
from leancnn.train.backend import choose
from tests.tiny import RECIPE, tiny

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = World(0, 1, torch.device("cpu"))
AUTO = RECIPE.changed(backend="auto")


def chosen(recipe: Any, world: World = ALONE) -> backend.Choice:
    return choose(tiny(), recipe, torch.randn(16, 3, 8, 8), world, uses_features=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Let steps of the backends take what a test says, in seconds; nothing is computed."""
    seconds = {"simd": 2.0, "torch": 1.0, "channels_last": 1.5}

    def turn(step: Any, turn_s: float, *, least: int = 1) -> list[float]:
        backend_, precision = step.args[1]
        own = f"{backend_} {precision}"
        return [seconds.get(own, seconds[backend_] + (precision == "bf16"))] * least

    monkeypatch.setattr(backend, "turn", turn)
    return seconds


def test_nothing_is_measured_where_the_recipe_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "turn", None)
    assert chosen(RECIPE) == backend.Choice("torch", "fp32", "the recipe says so")


@pytest.mark.parametrize("name", get_args(Backend))
def test_the_backend_that_a_recipe_names_is_the_one_that_trains(name: Backend) -> None:
    """`fake_quantized` was not, and fine-tuning for integers trained in floats."""
    found = chosen(RECIPE.changed(backend=name, precision="auto"))
    assert found.backend == name
    assert found.precision == "fp32" or name != "fake_quantized"


def test_measuring_changes_no_weight_and_leaves_no_gradient() -> None:
    body = tiny()
    before = {k: v.clone() for k, v in body.state_dict().items()}
    open_ = RECIPE.changed(precision="auto")
    found = choose(body, open_, torch.randn(4, 3, 8, 8), ALONE, uses_features=False)
    assert found.backend == "torch"
    assert found.precision in ("fp32", "bf16")
    assert all(torch.equal(before[k], v) for k, v in body.state_dict().items())
    assert all(p.grad is None for p in body.parameters())


def test_what_is_hopeless_on_a_few_images_is_not_timed_on_a_batch(
    clock: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock["torch bf16"] = clock["channels_last bf16"] = clock["channels_last"] = 30.0
    timed, slow = [], backend.turn

    def turn(step: Any, turn_s: float, *, least: int = 1) -> list[float]:
        timed.append((len(step.args[2]), *step.args[1]))
        return slow(step, turn_s, least=least)

    monkeypatch.setattr(backend, "turn", turn)
    auto = AUTO.changed(precision="auto")
    found = choose(tiny(), auto, torch.randn(64, 3, 8, 8), ALONE, uses_features=False)
    assert str(found) == (
        "training in plain torch, fp32: 2 s a step in SIMD batches, 1 s in torch, far slower with "
        "channels last"
    )
    at_length = {(way, precision) for many, way, precision in timed if many == 64}
    assert at_length == {("simd", "fp32"), ("simd", "bf16"), ("torch", "fp32")}
    assert {many for many, *_ in timed} == {16, 64}


def test_the_fastest_backend_is_chosen_and_all_times_are_told(clock: dict[str, float]) -> None:
    told = "2 s a step in SIMD batches, 1 s in torch, 1.5 s with channels last"
    assert str(chosen(AUTO)) == f"training in plain torch, fp32: {told}"
    clock["torch"] = 3.5
    assert chosen(AUTO).backend == "channels_last"
    clock["channels_last"] = 3.0
    assert str(chosen(AUTO)) == (
        "training in SIMD batches, fp32: "
        "2 s a step in SIMD batches, 3.5 s in torch, 3 s with channels last"
    )
    for named in ("simd", "channels_last"):
        assert chosen(RECIPE.changed(backend=named)) == backend.Choice(
            named, "fp32", "the recipe says so"
        )


def test_a_backend_that_is_slow_in_fp32_is_chosen_where_bf16_makes_it_the_fastest(
    clock: dict[str, float],
) -> None:
    clock["channels_last bf16"] = 0.5
    found = chosen(AUTO.changed(precision="auto"))
    told = "2 s a step in SIMD batches, 1 s in torch, 0.5 s with channels last"
    assert found == backend.Choice("channels_last", "bf16", told)


@pytest.mark.parametrize("backend", ["auto", "simd"])
def test_where_simd_batches_cannot_run_torch_does_and_says_why(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.changed(backend=backend)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.Flatten())
    found = choose(body, recipe, torch.randn(16, 3, 8, 8), ALONE, uses_features=False)
    assert found.backend in ("torch", "channels_last")
    begins = "not in SIMD batches: a convolution or a norm has no SIMD form; "
    assert found.why.startswith(begins)
    assert " s a step in torch, " in found.why.removeprefix(begins)
    monkeypatch.setattr(World, "of_first", lambda self, value: value)
    two = chosen(recipe, World(0, 2, torch.device("cpu")))
    assert two.why.startswith("not in SIMD batches: they are for one process, and these are 2; ")
    images = torch.randn(16, 3, 8, 8)
    reads = choose(tiny(), recipe.changed(loss="softmax+center"), images, ALONE, uses_features=True)
    begins = "not in SIMD batches: the loss softmax+center reads features, not only logits; "
    assert reads.why.startswith(begins)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_gives_the_same_gradients_and_leaves_parameters_as_they_lie(
    channels: int,
) -> None:
    body = create_model("henet_r2", channels=channels, classes=4, repeat=1)
    images = torch.randn(4, channels, 31, 31)
    seen: list[bool] = []
    body.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    results = []
    for way in ("torch", "channels_last"):
        mine = copy.deepcopy(body).double().train()
        forward = backend.training_forward(mine, way, "fp32", torch.device("cpu"))
        forward(images.double()).logsumexp(1).sum().backward()
        assert all(p.is_contiguous() and p.grad.is_contiguous() for p in mine.parameters())
        results.append([p.grad for p in mine.parameters()])
    assert seen[-1]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_all_processes_measure_since_their_norms_wait_for_each_other(
    clock: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, ways = backend.turn, []

    def noted(step: Any, *given: Any, **named: Any) -> list[float]:
        ways.append(step.args[1])
        return turn(step, *given, **named)

    monkeypatch.setattr(backend, "turn", noted)
    monkeypatch.setattr(World, "of_first", lambda self, value: value)
    done = []
    for rank in range(2):
        ways.clear()
        found = chosen(AUTO.changed(precision="auto"), World(rank, 2, torch.device("cpu")))
        done.append(list(ways))
        assert (found.backend, found.precision) == ("torch", "fp32")
    assert done[0] == done[1]
    assert {precision for _, precision in done[0]} == {"fp32", "bf16"}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MissingDependencyError("no C compiler found; install gcc or clang")

    cpu_training.program._library.cache_clear()
    monkeypatch.setattr(toolchain, "find_compiler", refuse)
    monkeypatch.setattr(cpu_training, "find_compiler", refuse)


@pytest.mark.usefixtures("no_compiler")
def test_a_run_says_once_which_backend_it_took_and_keeps_the_reason(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    why = "not in SIMD batches: no C compiler found; install gcc or clang"
    train(pictures, recipe=AUTO.changed(epochs=1), out=tmp_path / "run")
    lines = capfd.readouterr().err.splitlines()
    plan = runs.read_json(tmp_path / "run" / "run.json")["plan"]
    assert plan["backend"] in ("torch", "channels_last")
    assert plan["backend_why"].startswith(f"{why}; ")
    shown = backend.SHOWN[plan["backend"]]
    assert lines.count(f"training in {shown}, fp32: {plan['backend_why']}") == 1
    assert sum("SIMD" in line for line in lines) == 1
    assert cpu_training.compiler() == "none"


def test_the_compiler_is_named_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, version in (
        (("/usr/bin/cc",), "cc (Debian 12.2.0-14) 12.2.0"),
        (("/opt/x/gcc-12",), "gcc-12 (Debian 12.2.0-14) 12.2.0"),
    ):
        found = toolchain.Compiler(words, version)
        monkeypatch.setattr(cpu_training, "find_compiler", lambda found=found: found)
        assert cpu_training.compiler() == " ".join(
            ["gcc (Debian 12.2.0-14) 12.2.0", *cpu_training.FLAGS]
        )
    odd = toolchain.Compiler(("gcc", "-O1", "--sysroot=/home/me"), "gcc (GCC) 13.1")
    monkeypatch.setattr(cpu_training, "find_compiler", lambda: odd)
    assert cpu_training.compiler() == " ".join(["gcc (GCC) 13.1 -O1", *cpu_training.FLAGS])
