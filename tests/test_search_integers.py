"""Networks of 8-bit integers in a search: what they cost, which may be tried, what wins."""

import dataclasses
import json

import pytest
import torch

from leancnn import manifests, runs
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.compiler.trace_torch import trace_torch
from leancnn.errors import MismatchError
from leancnn.search import Budget, feasible, integers, latency_model
from leancnn.search import run as searching
from leancnn.search.budget import Candidate, either
from leancnn.search.space import Architecture, Change, architectures, counted
from leancnn.search.study import Study
from leancnn.search.trial import INT8, Job, Outcome
from tests.few import few
from tests.searches import FOUND, architecture, priced

SIDE = 32


def of(network):
    return next(architectures(classes=10, channels=3, sizes=[(SIDE, SIDE)], only=[network]))


def sized(network, **arguments):
    """An architecture with arguments that no search tries."""
    known = {"network": network, "arguments": arguments, "channels": 3, "classes": 10}
    (found,) = counted(Architecture(**known, size=(1, 1), macs=0, bytes=0), [(SIDE, SIDE)])
    return found


@pytest.mark.parametrize(
    ("network", "arguments"),
    few(
        [
            ("henet_r3", {"repeat": 1, "width": 12}),
            ("shufflenet_r3", {"repeat": 1, "width": 12}),
            ("resnet8", {"width": 8}),
            ("resnet20", {"repeats": 1, "width": 8}),
            ("mobilenetv2", {"width": 0.35}),
            ("mobilenetv3_small", {"stem": "cifar"}),
            ("squeezenet1_1", {"bn": "all"}),
            ("rsenet", {"widths": (16, 32), "rmac": "paper21"}),  # sums of 21 vectors
            ("rsenet", {"widths": (16, 32), "rmac_at": "nowhere", "stem": "cifar"}),
            ("rsenet", {"widths": (16,), "rmac_at": "both"}),
        ],
        rows=True,
    ),
)
def test_what_integers_store_is_known_before_there_are_any(network, arguments):
    some = sized(network, **arguments)
    graph = simplify(trace_torch(some.build().eval(), (3, SIDE, SIDE)))
    images = [torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))]
    made = quantize(graph, measure(graph, images), (0.5,) * 3, (0.25,) * 3)
    assert some.int8_bytes == pytest.approx(IntegerNetwork(made).network.weights(), rel=0.08)


def test_c_of_integers_is_written_before_there_are_any():
    some = of("resnet8")
    assert "leancnn" in integers.integer_source(some)
    assert some.int8_bytes < some.bytes / 2


def test_integers_are_tried_where_floats_miss_the_budget_and_only_there():
    floats = [priced(10, size=100), priced(30, size=400, repeat=2)]
    floats = [
        Candidate(
            dataclasses.replace(one.architecture, int8_bytes=one.architecture.bytes // 4),
            one.microseconds,
        )
        for one in floats
    ]
    ints = integers.as_integers(floats, {"henet_r3": 0.5})
    assert [one.microseconds for one in ints] == [5, 15]
    found = either(floats, ints, Budget(bytes=100))
    assert [(one.form, one.bytes) for one in found] == [("float32", 100), ("int8", 100)]
    found = either(floats, ints, Budget(microseconds=15))
    assert [(one.form, one.microseconds) for one in found] == [("float32", 10), ("int8", 15)]
    assert found[1].title.endswith(", in 8-bit integers")
    assert [one.form for one in either(floats, ints, Budget(bytes=30))] == ["int8"]
    with pytest.raises(MismatchError, match=r"the least is .*, in 8-bit integers with 0\.025 kB"):
        either(floats, ints, Budget(bytes=20))


def test_a_limit_of_bytes_hides_no_integers_that_a_limit_of_time_finds(monkeypatch):
    factors = dict.fromkeys(("window", "winograd", "kernels"), 1e-3)
    made = latency_model.LatencyModel(factors, 0.1, 0.2, 9, 5e4)
    monkeypatch.setattr(feasible, "load_or_fit", lambda *_, **__: made)
    monkeypatch.setattr(
        feasible,
        "ratios",
        lambda floats, limit, on, **_: {
            one.architecture.network: 0.5 for one in floats if 1 < one.microseconds / limit <= 4
        },
    )
    known = {"networks": ["resnet8"], "sizes": [(16, 16)], "integers": True}
    every = feasible.can_meet(Budget(), **{**known, "integers": False}).found
    limit = 0.7 * max(one.microseconds for one in every)
    found = {one.title for one in feasible.can_meet(Budget(microseconds=limit), **known).found}
    widest = max(every, key=lambda one: one.bytes).architecture
    both = Budget(microseconds=limit, bytes=1.1 * widest.int8_bytes)
    assert Candidate(widest, 0.0, "int8").title in found
    assert Candidate(widest, 0.0, "int8").title in {
        one.title for one in feasible.can_meet(both, **known).found
    }


def test_a_priced_shape_is_read_back_with_its_form_and_one_of_an_older_search_is_of_floats():
    one = Candidate(architecture(), 7.0, "int8")
    text = json.loads(json.dumps(one.to_json()))
    assert Candidate.of_json(text) == one
    del text["form"], text["int8_bytes"]
    assert Candidate.of_json(text) == Candidate(architecture(), 7.0)


def test_a_study_begins_with_floats_and_then_with_the_costliest_integers(tmp_path):
    ints = [
        Candidate(architecture(network=one.architecture.network, repeat=9), 51.0, "int8")
        for one in FOUND[4::5]
    ]
    found = sorted([*FOUND, *ints], key=lambda one: one.microseconds)
    study = Study(tmp_path / "study.journal", found, (1, 3))
    drawn = [study.ask().candidate for _ in range(6)]
    assert [one.form for one in drawn] == ["float32"] * 3 + ["int8"] * 3
    assert {one.microseconds for one in drawn} == {50, 51}


def test_the_form_of_a_trial_crosses_to_its_worker_and_stands_in_what_it_came_to(tmp_path):
    job = Job(
        number=3,
        architecture=architecture(),
        change=Change(),
        epochs=3,
        data="digits",
        folder=str(tmp_path),
        seed=0,
        split_seed=0,
        val_share=None,
        form="int8",
    )
    assert Job.of_json(json.loads(json.dumps(job.to_json()))) == job
    runs.write_checked(
        tmp_path / "rung-3.json",
        dataclasses.asdict(Outcome(number=3, epochs=3, accuracy=0.5, form="int8")),
    )
    assert runs.read_json(tmp_path / "rung-3.json", manifests.Rung)["form"] == "int8"


@pytest.fixture
def clock(monkeypatch):
    """A latency model that nothing was timed for."""
    kinds = dict.fromkeys(("window", "winograd", "kernels"), 1e-3)
    made = latency_model.LatencyModel(kinds, 0.1, 0.2, 9, 5e4)
    monkeypatch.setattr(feasible, "load_or_fit", lambda *_, **__: made)


@pytest.mark.usefixtures("clock")
def test_what_neither_floats_nor_integers_meet_names_the_least_of_both():
    known = {"networks": ["resnet8"], "sizes": [(16, 16)]}
    assert {one.form for one in feasible.can_meet(Budget(bytes=30e3), **known).found} == {"int8"}
    assert {one.form for one in feasible.can_meet(Budget(bytes=100e3), **known).found} == {
        "float32"
    }
    with pytest.raises(MismatchError, match=r"0\.01 kB: the least is .*8-bit integers with 22\."):
        feasible.can_meet(Budget(bytes=10), **known)


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_budget_that_no_floats_meet_is_met_in_integers(tmp_path):
    known = {"networks": ["resnet8"], "sizes": [(16, 16)], "progress": False}
    least = min(
        one.bytes
        for one in architectures(classes=10, channels=3, sizes=[(16, 16)], only=["resnet8"])
    )
    budget = Budget(bytes=0.6 * least, accuracy=0.2)
    found = searching.search("digits", out=tmp_path, hours=0.2, epochs=4, budget=budget, **known)
    assert found.reached
    assert found.winner is not None
    assert found.winner.form == "int8"
    assert found.winner.bytes <= budget.bytes < least
    assert runs.evaluations(tmp_path / "trials" / f"{found.winner.trial:04d}" / INT8)
    assert (tmp_path / "winner" / "resnet8.c").exists()
    assert found.sentence.startswith("reached: resnet8")
    again = searching.search("digits", out=tmp_path, hours=0.2, epochs=4, budget=budget, **known)
    assert again == found
