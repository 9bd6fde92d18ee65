"""One clock: turns, warm-up, medians and ratios, without a clock that decides a test."""

import pytest

from leancnn import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that a call moves on by so many seconds."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def taking(seconds):
        def call():
            now[0] += seconds

        return call

    return taking


def test_a_turn_lasts_as_long_as_it_was_given_and_has_one_call_at_least(clock):
    assert timing.turn(clock(0.25), 1.0) == [0.25] * 4
    assert timing.turn(clock(5.0), 1.0) == [5.0]
    assert timing.turn(clock(0.25), 0, least=3) == [0.25] * 3


def test_warming_up_is_not_counted(clock):
    steps = iter([9.0, 9.0, 0.5, 0.5])
    slow = {seconds: clock(seconds) for seconds in (9.0, 0.5)}
    assert timing.turn(lambda: slow[next(steps)](), 1.0, warm_up=2) == [0.5, 0.5]


def test_those_that_are_compared_take_turns(clock):
    order = []

    def noted(name, call):
        return lambda: (order.append(name), call())

    calls = {"a": noted("a", clock(1.0)), "b": noted("b", clock(2.0))}
    found = timing.in_turns(calls, 2, 0)
    assert order == ["a", "b", "a", "b"]
    assert found == {"a": [[1.0], [1.0]], "b": [[2.0], [2.0]]}


def test_a_machine_that_changes_its_speed_between_rounds_changes_no_ratio():
    ours, theirs = [1.0, 3.0, 1.0, 2.0], [2.0, 6.0, 2.0, 4.0]
    assert timing.times_faster(ours, theirs) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="shorter"):
        timing.times_faster(ours, theirs[:-1])


def test_the_median_of_a_turn_is_of_its_own_calls():
    assert timing.medians([[1.0, 9.0, 2.0], [5.0]]) == [2.0, 5.0]
