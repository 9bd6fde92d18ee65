"""Wide networks pruned to the budget of a search: which are tried, and how far they are cut."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn import count, load, runs
from leancnn.errors import MismatchError
from leancnn.search import Budget, feasible, latency_model, result
from leancnn.search import run as searching
from leancnn.search.budget import Candidate, either
from leancnn.search.pruning import MOST, Cut, can_be_cut, forget_older, over, pruned, to_prune
from leancnn.search.space import architectures
from leancnn.search.trial import Job, forget
from leancnn.train import train
from tests.searches import FOUND, a_plan, priced, study_in

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


@pytest.fixture(scope="module")
def run(tmp_path_factory, no_curves):
    """A wide network after an epoch of digits."""
    folder = tmp_path_factory.mktemp("wide") / "trial"
    torch.set_num_threads(1)
    train(
        "digits",
        model="resnet8",
        arguments=wide(1).arguments,
        out=folder,
        epochs=1,
        size=[SIDE, SIDE],
        channels=3,
        backend="torch",
        precision="fp32",
        progress=False,
    )
    return folder


def test_a_trained_network_is_cut_until_it_keeps_each_limit(run):
    asked = {"macs": 0.5 * wide(1).macs, "bytes": 0.3 * wide(1).bytes, "microseconds": 40.0}
    cut = Cut(budget=asked, microseconds=70.0, factors=FACTORS)
    known = {"seed": 0, "overrides": {"backend": "torch", "precision": "fp32"}}
    accuracy = pruned(run, wide(1), cut, epochs=1, **known)
    small = load(run / "pruned-1", "best")
    cost = count(small.body, (3, SIDE, SIDE))
    assert 0.2 * wide(1).bytes < cost.bytes <= asked["bytes"]
    assert cost.macs <= asked["macs"]
    assert accuracy == max(one["val_accuracy"] for one in runs.read_metrics(run / "pruned-1"))
    assert pruned(run, wide(1), cut, epochs=1, **known) == accuracy  # goes on where it stood
    weights = (run / "pruned-1" / "best" / "weights.safetensors").read_bytes()
    pruned(run, wide(1), cut, epochs=3, **known)
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


def test_what_groups_do_not_let_shrink_is_passed_over_for_the_next_nearest():
    some = list(architectures(classes=10, channels=3, sizes=[(32, 32)], only=["henet_r3"]))
    floats = [Candidate(one, one.macs / 1e5) for one in some]
    budget = Budget(macs=1_000_000)
    (found,) = to_prune(floats, budget)
    assert not can_be_cut(found, budget)
    others = to_prune(floats, budget, lambda one: can_be_cut(one, budget))
    assert found.architecture not in [one.architecture for one in others]


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
    assert not result._is_saved(tmp_path, one)
    (folder / "pruned-3" / "best").mkdir(parents=True)
    assert result._is_saved(tmp_path, one)


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
