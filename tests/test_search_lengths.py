"""How long a search trains, in which order, and what it times before it trains on."""

import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn import recipes
from leancnn.errors import ArgumentError, LeanCNNError
from leancnn.recipes import Backend
from leancnn.search import Budget, drive, lengths, measured
from leancnn.search.drive import front
from leancnn.search.space import Change
from leancnn.search.study import Trial
from leancnn.search.trial import Outcome
from tests.searches import FOUND, Stub, a_plan, architecture, driven, study_in


def of_one_pace(seconds, epochs=None):
    """A second for an epoch of a million multiply-accumulates."""
    names = {one.architecture.network for one in FOUND}
    return lengths.Lengths(seconds=seconds, pace=dict.fromkeys(names, 1e-6), epochs=epochs)


@given(
    seconds=st.floats(1, 1e5), epochs=st.none() | st.integers(1, 200), at=st.integers(0, len(FOUND))
)
def test_a_whole_training_is_the_recipes_where_there_is_time_and_rungs_are_its_shares(
    seconds, epochs, at
):
    made = of_one_pace(seconds, epochs)
    found = made.trainable(FOUND)
    rungs = made.rungs(found)
    assert [b / a for a, b in pairwise(rungs)] == [lengths.REDUCTION] * (len(rungs) - 1)
    for one in found:
        own = recipes.for_network(one.architecture.network).epochs
        reached = made.of(one, rungs)
        assert reached[-1] == made.whole(one) <= (epochs or own)
        assert reached[-1] == (epochs or own) or (reached[-1] + 1) * made.per_epoch(one) > seconds
        assert reached[0] >= 1
        assert all(a < b for a, b in pairwise(reached))
        assert all(
            abs(e - reached[-1] * r / rungs[-1]) <= 0.5 for e, r in zip(reached, rungs, strict=True)
        )


def test_what_learns_nothing_in_the_time_is_left_out_and_no_time_at_all_is_refused():
    twenty = of_one_pace(40.0).trainable(FOUND)  # seconds: twenty epochs of 2 M
    assert {one.architecture.macs for one in twenty} == {10**6, 2 * 10**6}
    assert len(of_one_pace(2.0).trainable(FOUND)) == 2  # a tenth, rounded up
    with pytest.raises(ArgumentError, match="give at least 2 times as many"):
        of_one_pace(0.5).trainable(FOUND)


def test_an_older_search_goes_on_by_epochs():
    assert a_plan(rungs=(2, 6)).epochs(FOUND[0]) == (2, 6)


def test_each_network_gets_a_trial_before_any_goes_on_and_the_best_goes_on_first(tmp_path):
    pool = Stub(size=1)
    driver, _ = driven(tmp_path, pool, many=60)
    first = [number for number, epochs in pool.done[:3]]
    assert first == [0, 1, 2]
    assert {epochs for _, epochs in pool.done[:3]} == {1}
    trials = {one.number: one for one in driver.study.trials()}
    best = max(first, key=lambda number: trials[number].accuracies[1])
    assert pool.done[3] == (best, 3)


def test_a_study_tells_optuna_shares_and_the_driver_epochs_of_each_network_itself(tmp_path):
    own = {"henet_r3": (7, 20, 60), "shufflenet_r3": (2, 5, 15), "resnet8": (3, 10, 30)}

    def epochs(one):
        return own[one.architecture.network]

    pool = Stub()
    plan = a_plan()
    study = study_in(tmp_path, FOUND, epochs=epochs)
    driver = drive.Driver(plan, tmp_path, study, pool, seconds=1e9)
    driver.look = lambda one: setattr(one, "seconds", 0.0) if len(pool.done) >= 40 else None
    driver.run()
    again = study_in(tmp_path, FOUND, epochs=epochs)
    assert again.trials() == study.trials()
    ends = {one.candidate.architecture.network: one.epochs for one in again.trials()}
    assert set(ends) == set(own)
    for one in again.trials():
        asked = own[one.candidate.architecture.network]
        assert tuple(one.accuracies) == asked[: len(one.accuracies)]
        assert (one.state == "finished") == (len(one.accuracies) == 3)


def test_nothing_is_begun_whose_whole_training_cannot_end_in_time(tmp_path):
    pool = Stub(size=1, pace=1e-6)
    plan = a_plan(pace=dict.fromkeys(("henet_r3", "shufflenet_r3", "resnet8"), 1e-6))
    study = study_in(tmp_path)
    driver = drive.Driver(plan, tmp_path, study, pool, 40.0, clock=lambda: 0.0)
    driver.look = lambda one: setattr(one, "seconds", 0.0) if len(pool.done) >= 20 else None
    driver.run()
    assert pool.done
    tried = {number for number, _ in pool.done}
    assert all(9 * study.trial(number).candidate.macs <= 40e6 for number in tried)
    waiting = [one for one in study.trials() if one.state == "running" and not one.accuracies]
    assert waiting  # with more hours they go on
    assert all(9 * one.candidate.macs > 40e6 for one in waiting)


def test_what_is_too_slow_as_a_program_is_not_trained_to_the_end(tmp_path):
    quiet = []

    class Quiet(Stub):
        @contextmanager
        def quiet(self):
            quiet.append(True)
            yield
            quiet.append(False)

    def slow(trial, rung):
        assert quiet[-1:] == [True]
        assert (len(trial.accuracies), rung.epochs) == (1, 3)
        return "its program takes 9 ms" if trial.candidate.microseconds > 40 else ""

    pool = Quiet()
    study = study_in(tmp_path)
    driver = drive.Driver(a_plan(), tmp_path, study, pool, seconds=1e9, too_slow=slow)
    driver.look = lambda one: setattr(one, "seconds", 0.0) if len(pool.done) >= 60 else None
    driver.run()
    trials = study.trials()
    assert {one.why for one in trials if one.state == "failed"} == {"its program takes 9 ms"}
    done = [one for one in trials if one.state == "finished"]
    assert done
    assert all(one.candidate.microseconds <= 40 for one in done)
    assert all(one.candidate.microseconds <= 40 for one in front(trials) if one.epochs >= 3)


def test_an_epoch_is_estimated_as_it_is_trained(monkeypatch):
    ways = []

    def step(body, way, images, trials):
        ways.append(way)
        none = "no SIMD form" if len(ways) > 1 and way[0] == "simd" else ""
        return (2.0 if way[0] == "simd" else 3.0), none

    monkeypatch.setattr(lengths, "best_step", step)
    small = architecture(network="resnet8")
    steps = 1000 // recipes.for_network("resnet8").batch
    assert lengths.seconds_per_epoch(small, 1000) == 2.0 * steps
    assert lengths.seconds_per_epoch(small, 1000) == 3.0 * steps
    assert {way[0] for way in ways} == {"simd", "torch"} <= set(get_args(Backend))


WORKER = """
import sys, time
from pathlib import Path
from leancnn.process import die_with_parent
die_with_parent()
Path(sys.argv[1]).with_name("began").touch()
while True:
    time.sleep(0.02)
"""
DRIVER = """
import sys, time
from pathlib import Path
from leancnn.search.pool import LocalPool
from tests.searches import a_job
folder = Path(sys.argv[1])
pool = LocalPool([0], [sys.executable, "-c", sys.argv[2]])
pool.start(a_job(folder))
while not (folder / "began").exists():
    time.sleep(0.02)
pid = pool._running[0].process.pid
with pool.quiet():
    print(pid, flush=True)
    sys.stdin.readline()
print("on", flush=True)
sys.stdin.readline()
"""


def state(pid):
    """T: halted; S or R: at work; nothing: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def soon(found):
    until = time.monotonic() + 30
    while not found() and time.monotonic() < until:
        time.sleep(0.02)
    return found()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_halted_workers_go_on_and_do_not_outlive_a_driver_that_is_killed(tmp_path):
    for killed in (False, True):
        command = [sys.executable, "-c", DRIVER, str(tmp_path / str(killed)), WORKER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as driver:
            pid = int(driver.stdout.readline())
            assert soon(lambda pid=pid: state(pid) == "T")
            if not killed:
                driver.stdin.write("\n")
                driver.stdin.flush()
                assert driver.stdout.readline() == "on\n"
                assert soon(lambda pid=pid: state(pid) in ("S", "R"))
            driver.kill()
        assert soon(lambda pid=pid: state(pid) in ("", "Z"))


def test_a_program_is_too_slow_by_its_quickest_turn_and_what_cannot_be_timed_is_left(
    tmp_path, monkeypatch
):
    trial = Trial(0, FOUND[0], Change(), {1: 0.5}, "running")
    rung = Outcome(number=0, epochs=3)
    monkeypatch.setattr(measured.weights, "load", lambda *where: where)
    plan = a_plan(budget=Budget(microseconds=100.0))
    for turns, slow in (((100.0, 300.0), False), ((101.0, 300.0), True)):
        times = measured.Times(turns)
        monkeypatch.setattr(measured, "timed", lambda network, on, times=times: times)
        assert bool(measured.too_slow(tmp_path, plan, trial, rung)) is slow
        assert not measured.too_slow(tmp_path, a_plan(budget=Budget()), trial, rung)

    def fails(network, on):
        raise LeanCNNError("no compiler")

    monkeypatch.setattr(measured, "timed", fails)
    assert not measured.too_slow(tmp_path, plan, trial, rung)


def test_what_failed_reaches_no_accuracy(tmp_path):
    plan = a_plan(budget=Budget(accuracy=0.55, microseconds=100.0))
    study = study_in(tmp_path)
    driver = drive.Driver(plan, tmp_path, study, Stub(), 1e9)
    trial = study.ask()
    study.report(trial.number, 1, 0.9)
    assert driver._reached()
    study.fail(trial.number, "too slow")
    assert not driver._reached()


def test_a_kill_before_the_end_of_a_trial_was_written_leaves_it_finished(tmp_path):
    study = study_in(tmp_path)
    trial = study.ask()
    for epochs in (1, 3, 9):
        study.report(trial.number, epochs, 0.9)
    path = tmp_path / "study.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))  # that it was finished
    again = study_in(tmp_path)
    assert again.trial(trial.number).state == "finished"


def test_what_was_passed_over_is_begun_later_only_if_it_can_end(tmp_path):
    pace = dict.fromkeys(("henet_r3", "shufflenet_r3", "resnet8"), 1e-6)
    plan, tried = a_plan(pace=pace), set()
    for seconds in (40.0, 41.0):  # the costliest take 45
        pool = Stub(size=1, pace=1e-6)
        study = study_in(tmp_path)
        driver = drive.Driver(plan, tmp_path, study, pool, seconds, clock=lambda: 0.0)
        enough = len(pool.done) + 8
        driver.look = lambda one, pool=pool, enough=enough: (
            setattr(one, "seconds", 0.0) if len(pool.done) >= enough else None
        )
        driver.run()
        tried |= {study.trial(number).candidate.macs for number, _ in pool.done}
    assert max(tried) * 9e-6 <= 41
