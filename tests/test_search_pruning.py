"""Wide networks pruned to the budget of a search: which are tried, and how far they are cut."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn import cli, count, load, recipes, runs
from leancnn.bench import with_placeholders
from leancnn.channels.dependencies import find_dependencies
from leancnn.compiler.cycles import cycles
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.errors import MismatchError
from leancnn.preprocess import Preprocessing
from leancnn.prune.budget import Candidates
from leancnn.prune.importance import scored
from leancnn.search import Budget, feasible, latency_model, measured, result
from leancnn.search import run as searching
from leancnn.search.budget import Candidate, either
from leancnn.search.drive import front
from leancnn.search.programs import lowered, price
from leancnn.search.pruning import (
    FEWEST,
    MOST,
    can_be_cut,
    forget_older,
    over,
    pruned,
    recipe_again,
    to_prune,
)
from leancnn.search.space import Change, architectures
from leancnn.search.study import Trial
from leancnn.search.trial import Job, Outcome, forget, outcome
from leancnn.search.widest_cut import CLOSE, STEP, Cut, Pricing, widest
from leancnn.train import train
from tests.searches import FOUND, a_plan, driven, priced, study_in
from tests.test_search import Stub

SIDE = 16
FACTORS = dict.fromkeys(("window", "winograd", "kernels"), 1e-3)


def wide(at):
    """One of the widths of ResNet-8, the narrowest first."""
    return list(architectures(classes=10, channels=3, sizes=[(SIDE, SIDE)], only=["resnet8"]))[at]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "microseconds": st.floats(1, 100),
            "bytes": st.floats(5e3, 1e5),
            "macs": st.floats(5e5, 1e7),
        },
    )
)
def test_what_is_pruned_meets_the_budget_that_the_whole_misses_by_at_most_four(limits):
    budget = Budget(**limits)
    found = to_prune(FOUND, budget)
    places = [(one.architecture.network, one.architecture.size) for one in found]
    assert len(places) == len(set(places))
    for one in found:
        whole = next(each for each in FOUND if each.architecture == one.architecture)
        assert one.meets(budget)
        assert not whole.meets(budget)
        assert over(whole, budget) <= MOST
        assert one.share == pytest.approx(1 / over(whole, budget))
        assert whole.training_macs < one.training_macs < 1.34 * whole.training_macs
        assert Candidate.of_json(json.loads(json.dumps(one.to_json()))) == dataclasses.replace(
            one, microseconds=round(one.microseconds, 2)
        )


def test_a_network_that_fits_whole_is_not_pruned_and_one_may_be_tried_in_two_forms():
    floats = [priced(10, size=1000), priced(30, size=3000, repeat=2)]
    ints = [dataclasses.replace(one, form="int8") for one in floats]
    pruned_ones = to_prune(floats, Budget(bytes=1500))
    found = either(floats, ints, Budget(microseconds=15), to_prune(floats, Budget(microseconds=15)))
    assert [(one.form, one.architecture.arguments) for one in found] == [
        ("float32", {}),
        ("pruned", {"repeat": 2}),
    ]
    assert [one.bytes for one in pruned_ones] == [1499]
    assert len({one.key for one in (*floats, *ints, *pruned_ones)}) == 5


def test_what_a_trial_is_cut_to_crosses_to_its_worker(tmp_path):
    one = to_prune(FOUND, Budget(microseconds=15))[0]
    plan = a_plan(budget=Budget(microseconds=15), found=(one,), latency_model={"factors": FACTORS})
    driver = searching.Driver(plan, tmp_path, study_in(tmp_path), None, seconds=1.0)
    trial = dataclasses.replace(driver.study.ask(), candidate=one)
    job = driver.job(trial)
    assert job.cut == Cut(
        budget={"microseconds": 15}, microseconds=one.microseconds / one.share, factors=FACTORS
    )
    assert Job.of_json(json.loads(json.dumps(job.to_json()))) == job
    assert driver.job(driver.study.ask()).cut is None


def trained(folder, epochs):
    """A wide network after so many epochs of digits."""
    torch.set_num_threads(1)
    train(
        "digits",
        model="resnet8",
        arguments=wide(1).arguments,
        out=folder,
        epochs=epochs,
        size=[SIDE, SIDE],
        channels=3,
        backend="torch",
        precision="fp32",
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, no_curves):
    """A wide network after an epoch."""
    return trained(tmp_path_factory.mktemp("wide") / "trial", 1)


@pytest.mark.long
def test_a_trained_network_is_cut_until_it_keeps_each_limit(run):
    asked = {"macs": 0.5 * wide(1).macs, "bytes": 0.3 * wide(1).bytes, "microseconds": 40.0}
    cut = Cut(budget=asked, microseconds=70.0, factors=FACTORS)
    known = {"seed": 0, "overrides": {"backend": "torch", "precision": "fp32"}}
    accuracy, costs = pruned(run, wide(1), cut, epochs=1, **known)
    small = load(run / "pruned-1", "best")
    cost = count(small.body, (3, SIDE, SIDE))
    assert 0.2 * wide(1).bytes < cost.bytes <= asked["bytes"]
    assert cost.macs <= asked["macs"]
    program = schedule(lower(simplify(trace_torch(small.body.eval(), (3, SIDE, SIDE)))))
    share = price(FACTORS, cycles(program)) / price(FACTORS, cycles(lowered(wide(1))))
    known_now = {"macs": cost.macs, "bytes": cost.bytes, "microseconds": 70.0 * share}
    assert costs == pytest.approx(known_now, rel=0.01)
    assert accuracy == max(one["val_accuracy"] for one in runs.read_metrics(run / "pruned-1"))
    again = pruned(run, wide(1), cut, epochs=1, **known)  # goes on where it stood
    assert again == (accuracy, costs)
    pruned(run, wide(1), cut, epochs=3, **known)
    weights = (run / "pruned-3" / "best" / "weights.safetensors").read_bytes()
    assert pruned(run, wide(1), dataclasses.replace(cut, budget={"macs": 1e6}), epochs=3, **known)
    pruned(run, wide(1), cut, epochs=3, **known)  # what stands there of another goal is scratch
    assert len(list(run.glob("pruned-*"))) == 2
    forget_older(run, 3)
    assert [one.name for one in run.glob("pruned-*")] == ["pruned-3"]
    assert (run / "pruned-3" / "best" / "weights.safetensors").read_bytes() == weights
    forget(run, keep=True)
    assert (run / "pruned-3" / "best").is_dir()
    assert not (run / "pruned-3" / "checkpoints").exists()


def test_limits_that_no_cut_keeps_are_an_error_that_names_them(run):
    cut = Cut(budget={"bytes": 10}, microseconds=70.0, factors=FACTORS)
    with pytest.raises(MismatchError, match=r"resnet8 cannot be cut|no cut brings resnet8 to"):
        pruned(run, wide(1), cut, epochs=9, seed=0, overrides={})


@pytest.fixture(scope="module")
def cuts():
    """Those of a ResNet-8 that nobody trained."""
    architecture = wide(2)
    taken = Preprocessing(size=(SIDE, SIDE), channels=3)
    body = architecture.build()
    network = with_placeholders(body, "resnet8", 10, taken, architecture.arguments)
    dependencies = find_dependencies(network.body, 3)
    scores = scored(network, dependencies, "l1", None, progress=False)
    return Candidates(network, dependencies, scores.importance)


class Stairs(Pricing):
    """Times that fall with the work in steps, as those of programs do."""

    height, power = 1.0, 1.0

    def _microseconds(self, keep):
        share = self.cuts.cost(keep).macs / self.architecture.macs
        return self.height * math.ceil(100 * share**self.power / self.height)


@pytest.mark.long
@given(st.floats(0.05, 0.95), st.floats(0.1, 12), st.floats(0.4, 2.5), st.floats(0.05, 2))
@settings(deadline=None, max_examples=15)
def test_a_cut_ends_close_below_the_limits_or_none_that_is_wider_keeps_them(
    cuts, limit, height, power, size
):
    whole = wide(2)
    budget = {"microseconds": 100 * limit, "bytes": size * whole.bytes}
    asked = Cut(budget=budget, microseconds=100.0, factors=FACTORS)
    pricing = Stairs(cuts, whole, asked)
    pricing.height, pricing.power = height, power
    every = [pricing.costs(cuts.keep(number / 256)) for number in range(256)]
    able = [one for one in every if asked.times(one) <= 1]
    if not able:
        with pytest.raises(MismatchError, match=r"cannot be cut|no cut brings resnet8 to"):
            widest(pricing)
        return
    goal, costs = widest(pricing)
    assert goal.kind in ("macs", "bytes")
    assert asked.times(costs) <= 1
    most = max(one["macs"] for one in able)
    assert asked.times(costs) >= CLOSE or costs["macs"] * STEP**2 >= most


def test_a_third_of_the_epochs_is_trained_again_but_no_fewer_steps_than_norms_need():
    for name in ("resnet8", "henet_r3"):
        own = recipes.for_network(name)
        for epochs in (1, 2, 3, 9, 100):
            for images in (own.batch, 5 * own.batch, 60 * own.batch, 50_000):
                again = recipe_again(own, epochs, images)
                steps, most = again.steps(images), own.changed(epochs=epochs).steps(images)
                assert steps == max(round(most / 3), min(most, FEWEST))
                assert again.lr == pytest.approx(0.3 * own.lr)


class Cutting(Stub):
    """A stub whose pruned trials turn out cheaper than they were foreseen."""

    def wait(self, seconds):
        job = self.jobs[0]
        return [
            dataclasses.replace(one, costs={"microseconds": 1.0, "bytes": 10, "macs": job.epochs})
            if job.form == "pruned"
            else one
            for one in super().wait(seconds)
        ]


def test_the_front_compares_what_pruned_networks_turned_out_to_cost(tmp_path):
    found = (*FOUND, *to_prune(FOUND, Budget(microseconds=15)))
    driver, _ = driven(tmp_path, Cutting(), 60, found=found, budget=Budget(microseconds=15))
    trials = driver.study.trials()
    cut = [one for one in trials if one.candidate.form == "pruned" and one.accuracies]
    assert cut
    assert {(one.microseconds, one.bytes) for one in cut} == {(1.0, 10)}
    best = max(cut, key=lambda one: one.accuracy)
    assert best.number in [one.number for one in front(trials)]
    assert study_in(tmp_path, found=found).trials()[best.number] == best
    shown = searching.status(driver)[1]
    assert "1.0" in next(line for line in shown.splitlines() if f" {best.number} " in f" {line} ")


def test_what_a_rung_came_to_is_read_back_with_its_costs_and_without_from_an_older_search(tmp_path):
    made = Outcome(number=3, epochs=9, costs={"microseconds": 1.5, "bytes": 10.0, "macs": 7.0})
    value = dataclasses.asdict(made)
    runs.write_checked(tmp_path / "rung-9.json", value)
    assert outcome(tmp_path, 9) == made
    del value["costs"]
    runs.write_checked(tmp_path / "rung-9.json", value)
    assert outcome(tmp_path, 9) == dataclasses.replace(made, costs=None)


@pytest.fixture
def clock(monkeypatch):
    """A latency model that nothing was timed for."""
    made = latency_model.LatencyModel(FACTORS, 0.1, 0.2, 9, 5e4)
    monkeypatch.setattr(feasible, "load_or_fit", lambda *_, **__: made)


@pytest.mark.usefixtures("clock")
def test_a_budget_below_the_narrowest_is_met_by_pruning_where_that_is_asked_for():
    known = {"networks": ["resnet8"], "sizes": [(SIDE, SIDE)], "integers": False}
    least = min(one.macs for one in map(wide, range(5)))
    with pytest.raises(MismatchError, match="the least is resnet8"):
        feasible.can_meet(Budget(macs=0.6 * least), **known)
    found = feasible.can_meet(Budget(macs=0.6 * least), pruning=True, **known)
    assert [one.form for one in found.found] == ["pruned"]
    assert "0 of 5 architectures meet the budget, and 1 more when pruned" in found.text()
    narrow = feasible.can_meet(Budget(microseconds=60), pruning=True, **known).found
    assert [one.form for one in narrow].count("pruned") == 1
    assert all(one.meets(Budget(microseconds=60)) for one in narrow)


@pytest.mark.long
def test_what_groups_do_not_let_shrink_is_passed_over_for_the_next_nearest():
    some = list(architectures(classes=10, channels=3, sizes=[(32, 32)], only=["henet_r3"]))
    floats = [Candidate(one, one.macs / 1e5) for one in some]
    budget = Budget(macs=1_000_000)
    (found,) = to_prune(floats, budget)
    assert not can_be_cut(found, budget)
    others = to_prune(floats, budget, lambda one: can_be_cut(one, budget))
    assert found.architecture not in [one.architecture for one in others]


@pytest.mark.usefixtures("clock")
def test_a_dry_run_lists_what_a_cut_would_make_fit_in_rows_of_its_own(capsys):
    words = ["search", "--dry-run", "--networks", "resnet8", "--size", f"{SIDE}x{SIDE}", "--quiet"]
    words += ["--macs", str(1.5 * wide(0).macs)]

    def rows(*more):
        assert cli.main([*words, *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [" ".join(line.split()) for line in lines if line.startswith("resnet8")]

    whole, pruned_row = sorted(rows(), key=lambda line: "pruned" in line)
    assert "resnet8 1 resnet8 (width=8) at 16×16 " in whole
    assert "at 16×16, pruned" in pruned_row
    assert rows("--no-pruning") == [whole]
    assert rows("--no-pruning", "--floats-only") == [whole]


@pytest.mark.long
@pytest.mark.usefixtures("clock")
def test_a_network_that_only_a_cut_brings_into_the_budget_is_among_what_is_pruned():
    known = {"networks": ["shufflenet_r3", "resnet8"], "sizes": [(32, 32)], "integers": False}
    found = feasible.can_meet(Budget(bytes=60_000), pruning=True, **known).found
    assert {one.architecture.network for one in found if one.form == "pruned"} >= {"resnet8"}
    assert {one.form for one in found} == {"float32", "pruned"}


def test_a_trial_whose_last_rung_was_not_reported_keeps_the_one_before(tmp_path):
    one = dataclasses.replace(
        study_in(tmp_path).ask(), candidate=to_prune(FOUND, Budget(macs=3e6))[0]
    )
    one = dataclasses.replace(one, accuracies={3: 0.5})
    folder = tmp_path / "trials" / f"{one.number:04d}"
    (folder / "pruned-9" / "best").mkdir(parents=True)
    assert not measured.is_saved(tmp_path, one)
    (folder / "pruned-3" / "best").mkdir(parents=True)
    assert measured.is_saved(tmp_path, one)


@pytest.mark.long
@pytest.mark.usefixtures("no_curves")
def test_the_front_tells_of_the_weights_that_are_there_where_a_rung_was_cut_short(
    run, tmp_path, monkeypatch
):
    place = tmp_path / "trials" / "0000"
    shutil.copytree(run, place)
    trial = Trial(0, Candidate(wide(1), 50.0), Change(), {1: 0.25}, "running")
    monkeypatch.setattr(result, "timed", lambda network, on: measured.Times((1.0, 2.0, 3.0)))
    first = result._member(tmp_path, a_plan(), trial, "float32")
    shutil.rmtree(place / "best")
    shutil.copytree(trained(tmp_path / "longer", 3) / "best", place / "best")
    second = result._member(tmp_path, a_plan(), trial, "float32")
    best = max(runs.read_metrics(tmp_path / "longer"), key=lambda row: row["val_accuracy"])
    assert (second.epochs, second.val_accuracy) == (best["epoch"], best["val_accuracy"])
    assert first.epochs == 1
    assert second.val_accuracy > first.val_accuracy
    assert result._member(tmp_path, a_plan(), trial, "float32") == second


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_search_whose_budget_only_a_cut_meets_ends_with_that(tmp_path):
    known = {"networks": ["resnet8"], "sizes": [(SIDE, SIDE)], "progress": False}
    budget = Budget(macs=0.6 * wide(0).macs, accuracy=0.15)
    found = searching.search(
        "digits", out=tmp_path, hours=0.3, epochs=9, budget=budget, integers=False, **known
    )
    assert found.winner is not None
    assert found.winner.form == "pruned"
    assert found.winner.macs <= budget.macs
    assert found.winner.network.endswith(", pruned")
    network = load(tmp_path / "winner")
    assert count(network.body, (3, SIDE, SIDE)).macs == found.winner.macs
    where = tmp_path / "trials" / f"{found.winner.trial:04d}" / f"pruned-{found.winner.epochs}"
    assert runs.evaluations(where)
    assert (tmp_path / "winner" / "resnet8.c").exists()
