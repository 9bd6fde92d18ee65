"""Budgets of a search: what is read, what nothing meets, and the sentence at its end."""

import json
import shlex
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn.cli import build_parser
from leancnn.commands.search import share, time_of
from leancnn.errors import ArgumentError, MismatchError
from leancnn.search import Budget, sentence
from leancnn.search.budget import amount, within
from leancnn.search.request import SearchRequest
from leancnn.search.space import Change
from leancnn.search.study import Trial
from leancnn.sections.search import again
from tests.searches import FOUND, a_plan, priced


def test_a_time_is_read_in_every_unit():
    texts = ("150us", "150 µs", "0.15ms", "1.5e-4", "0.00015s", "150000ns")
    assert [time_of(text) for text in texts] == pytest.approx([1.5e-4] * len(texts))
    assert share("95%") == share("0.95") == 0.95


OPTIONS = {
    "--time": st.builds("{}{}".format, st.floats(0.1, 999), st.sampled_from(["us", "ms", "ns"])),
    "--bytes": st.integers(1, 10**9).map(str),
    "--macs": st.floats(1e3, 1e9).map(str),
    "--accuracy": st.floats(0.2, 1).map(str),
    "--networks": st.sampled_from(["resnet8", "resnet8,henet_r3"]),
    "--size": st.sampled_from(["31x31", "8x16"]),
    "--epochs": st.integers(1, 99).map(str),
    "--val-share": st.floats(0.05, 0.5).map(str),
    "--clock-on": st.just("sh 'on pi.sh'"),
    "--seed": st.integers(0, 9).map(str),
    "--floats-only": st.just(None),
    "--no-pruning": st.just(None),
}


PARSER = cache(build_parser)


def asked_by(words):
    """What the words of a command ask of a search."""
    args = PARSER().parse_args(words)
    return SearchRequest(
        data=args.data,
        budget=Budget(
            microseconds=None if args.time is None else 1e6 * args.time,
            bytes=args.bytes,
            macs=args.macs,
            accuracy=args.accuracy,
        ),
        networks=args.networks and tuple(args.networks.split(",")),
        sizes=args.size and tuple(args.size),
        epochs=args.epochs,
        seed=args.seed,
        val_share=args.val_share,
        integers=not args.floats_only,
        clock_on=args.clock_on,
        pruning=not args.no_pruning,
    )


@given(st.fixed_dictionaries({}, optional=OPTIONS))
@settings(deadline=None, max_examples=30)
def test_the_command_that_a_report_names_goes_on_with_the_same_search(options):
    words = [word for pair in options.items() for word in pair if word is not None]
    first = asked_by(["search", "photos", *words, "--hours", "1", "--out", "s"])
    known = {"budget": first.budget, "seed": first.seed, "val_share": first.val_share}
    plan = a_plan(data="photos", asked=first.space(), **known)
    line = again(json.loads(json.dumps(plan.to_json())), Path("s")).replace(" HOURS ", " 1 ")
    plan.check_same(asked_by(shlex.split(line)[1:]).to_json(), Path("s"))


def test_what_no_budget_is_gets_one_line():
    for wrong in ({"accuracy": 1.5}, {"accuracy": 0.1}, {"bytes": 0}, {"macs": float("nan")}):
        with pytest.raises(ArgumentError):
            Budget(**wrong).check(10)
    Budget(microseconds=1, bytes=1, macs=1, accuracy=0.11).check(10)


def test_a_budget_that_nothing_meets_names_the_limit_and_what_comes_nearest():
    with pytest.raises(MismatchError, match=r"at most 5 µs: the least is henet_r3 .* 10 µs"):
        within(FOUND, Budget(microseconds=5))
    slow_small = [priced(10, size=900), priced(90, size=100)]
    with pytest.raises(MismatchError, match=r"together, though each alone is met"):
        within(slow_small, Budget(microseconds=20, bytes=200))
    assert [one.microseconds for one in within(FOUND, Budget(microseconds=20))] == [10] * 3 + [
        20
    ] * 3


def test_amounts_are_read_by_people():
    assert amount("microseconds", 150) == "150 µs"
    assert amount("microseconds", 25_000) == "25 ms"
    assert amount("bytes", 98_200) == "98.2 kB"
    assert amount("macs", 8.5e6) == "8.5 M multiply-accumulates"


def member(**changes):
    known = {
        "trial": 0,
        "network": "henet_r3 at 31×31",
        "change": "",
        "epochs": 9,
        "val_accuracy": 0.9,
        "microseconds": 100.0,
        "low_us": 98.0,
        "high_us": 103.0,
        "predicted_us": 99.0,
        "bytes": 1000,
        "macs": 10**6,
        "disturbed": (),
        "test_accuracy": 0.88,
        "test_low": 0.86,
        "test_high": 0.9,
    }
    return sentence.Member(**{**known, **changes})


def said(members, budget, *, reached):
    able = [one for one in members if one.keeps(budget)]
    trials = [Trial(number, FOUND[0], Change(), {9: 0.5}, "finished") for number in range(2)]
    return sentence.say(
        a_plan(budget=budget), members, able[0] if able else None, reached=reached, trials=trials
    )


def test_a_program_keeps_its_time_only_with_the_upper_end_of_its_interval():
    assert member().keeps(Budget(microseconds=103))
    assert not member().keeps(Budget(microseconds=102))
    assert not member().keeps(Budget(bytes=999))


def test_the_sentence_says_reached_with_the_optimism_of_the_choice():
    text = said([member()], Budget(microseconds=120), reached=True)
    assert text.startswith("reached: henet_r3 at 31×31 with 90.00%")
    assert "validation was 2.00% too high" in text
    assert "the best of 2 that were compared" in text


def test_the_sentence_says_what_is_nearest_and_what_it_would_take():
    line = [member(microseconds=50.0 * 2**n, val_accuracy=0.7 + 0.1 * n) for n in range(3)]
    text = said(line[::-1], Budget(accuracy=0.95), reached=False)
    assert text.startswith("not reachable in this time: the nearest is henet_r3")
    assert "by the trend of the front" in text
    text = said([member()], Budget(microseconds=90), reached=False)
    assert "103 µs where 90 µs are allowed" in text


def test_a_trend_is_exact_on_a_power_law_and_silent_where_there_is_none():
    line = [
        member(microseconds=10.0 * 2**n, val_accuracy=1 - 0.4 * 2 ** (-n / 2)) for n in range(4)
    ]
    assert sentence.trend(line, 0.9) == pytest.approx(160)
    assert sentence.trend(line[:2], 0.9) is None
    flat = [member(microseconds=10.0 * 2**n) for n in range(4)]
    assert sentence.trend(flat, 0.95) is None
