"""Rows of engines side by side: ties have no winner."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from leancnn.bench_figures import Row, rivals, summary, winner

ROW = Row(
    model="a",
    engine="c",
    rounds_us=(9.0, 10.0, 11.0),
    p95_us=12.0,
    share_of_peak=0.5,
    macs=1,
    peak_mb=1.0,
    artifact_bytes=1,
    startup_s=0.1,
    difference=0.0,
)


def test_overlapping_intervals_have_no_winner():
    slower = replace(ROW, engine="torch", rounds_us=(10.0, 11.0, 12.0))
    assert (slower.low_us, slower.median_us, slower.high_us) == (10.5, 11.0, 11.5)
    assert winner([ROW, slower]) is None
    assert winner([ROW, replace(slower, rounds_us=(11.0, 12.0, 13.0))]) == "c"
    assert winner([ROW]) == "c"


def test_the_winner_is_compared_with_every_rival_not_only_the_second():
    second = replace(ROW, engine="torch", rounds_us=(12.0, 12.0, 12.0))
    third = replace(ROW, engine="ncnn", rounds_us=(9.5, 30.0, 31.0))
    assert third.median_us > second.median_us
    assert third.low_us > ROW.high_us, "not yet an overlap"
    assert winner([third, second, ROW]) == "c"
    wide = replace(third, rounds_us=(9.0, 10.0, 30.0, 31.0, 32.0))
    assert wide.low_us < ROW.high_us < second.low_us < wide.median_us
    assert [row.engine for row in rivals([wide, second, ROW])] == ["c", "ncnn"]
    assert winner([wide, second, ROW]) is None
    assert summary([wide, second, ROW]) == "no winner, intervals overlap: c, ncnn"


ROWS = st.lists(st.lists(st.floats(1, 100), min_size=1, max_size=5), min_size=1, max_size=5)


@given(ROWS)
def test_a_winner_overlaps_nobody_and_no_winner_overlaps_somebody(rounds):
    rows = [replace(ROW, engine=str(i), rounds_us=tuple(each)) for i, each in enumerate(rounds)]
    best = min(rows, key=lambda row: row.median_us)
    overlap = [
        row for row in rows if row is not best and row.low_us <= best.high_us and row.high_us >= 1
    ]
    assert winner(rows) == (None if overlap else best.engine)
