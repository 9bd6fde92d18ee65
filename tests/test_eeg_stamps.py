"""Samples lost or only late, told by nothing but stamps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn.eeg.stamps import ON_TIME_S, SETTLED_S, Numbering
from tests.few import few

FS, CHUNK = 250.0, 4


def pushed(when, fs=FS, chunk=CHUNK):
    """Stamps of chunks whose last samples are stamped when they are pushed, as LSL has them."""
    return [[at - (chunk - 1 - n) / fs for n in range(chunk)] for at in when]


def numbered(chunks, fs=FS):
    """The number of each sample, in the order in which they came, and the numbering."""
    numbering, told = Numbering(fs), []
    for chunk in chunks:
        told += numbering.take(chunk)
    told += numbering.flush()
    return [first + n for first, count in told for n in range(count)], numbering


def on_time(count, fs=FS, chunk=CHUNK):
    return (1 + np.arange(count)) * chunk / fs


@given(st.lists(st.floats(0, 0.8 * ON_TIME_S), min_size=1, max_size=200))
def test_nothing_is_lost_where_stamps_jitter(late):
    chunks = pushed(on_time(len(late)) + np.array(late))
    numbers, numbering = numbered(chunks)
    assert numbers == list(range(CHUNK * len(late)))
    assert numbering.lost == 0


@given(st.integers(1, 40), st.floats(0.02, 3.0), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_a_sender_that_was_late_and_caught_up_lost_nothing(start, late_s, seed):
    """It is held up once: what was due meanwhile goes out at the end, chunk behind chunk."""
    due = on_time(1200) + np.random.default_rng(seed).uniform(0, 0.003, 1200)
    free = due[start] + late_s
    when, now = [], 0.0
    for at in due:
        now = max(at, now + 1e-4, free if at >= due[start] else 0.0)
        when.append(now)
    numbers, numbering = numbered(pushed(when))
    assert numbers == list(range(CHUNK * 1200))
    assert numbering.lost == 0


@pytest.mark.parametrize(("jitter", "off"), [(0.0019, 0), (0.003, 1)])  # a sample is 4 ms
@given(place=st.integers(10, 60), missing=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_what_was_withheld_is_missing_where_it_was_withheld(jitter, off, place, missing, seed):
    """To the sample where stamps are less than half of one off their time."""
    when = on_time(400) + np.random.default_rng(seed).uniform(0, jitter, 400)
    kept = [n for n in range(400) if not place <= n < place + missing]
    numbers, numbering = numbered(pushed(when[kept]))
    assert abs(numbering.lost - CHUNK * missing) <= off
    if not off:
        assert numbers == [CHUNK * n + sample for n in kept for sample in range(CHUNK)]


@pytest.mark.parametrize("chunk", [1, 4, 32])
def test_five_in_a_hundred_packets_are_counted(chunk):
    random = np.random.default_rng(chunk)
    count = 60_000 // chunk
    when = on_time(count, chunk=chunk) + random.uniform(0, 0.002, count)
    kept = random.random(count) > 0.05
    kept[:8] = kept[-200:] = True
    numbers, numbering = numbered(pushed(when[kept], chunk=chunk))
    gone = chunk * int((~kept).sum())
    assert numbering.lost == pytest.approx(gone, rel=0.1 if chunk == 1 else 0.02)
    assert len(numbers) == chunk * int(kept.sum())
    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize("ppm", few([-500, -200, 200, 500]))
def test_a_clock_that_drifts_loses_nothing(ppm):
    when = on_time(20_000) * (1 + ppm * 1e-6)
    numbers, numbering = numbered(pushed(when))
    assert numbers == list(range(CHUNK * 20_000))
    assert numbering.lost == 0


def test_what_is_held_is_told_within_a_tenth_of_a_second_of_stamps():
    numbering = Numbering(FS)
    chunks = pushed(on_time(200)[[*range(50), *range(60, 200)]])
    told = 0
    for place, chunk in enumerate(chunks):
        told += sum(count for _, count in numbering.take(chunk))
        waiting = CHUNK * (place + 1) - told
        assert waiting <= SETTLED_S * FS + 2 * CHUNK
    assert numbering.lost == 40


def test_what_was_taken_for_lost_and_came_after_all_is_taken_back():
    """Late by the same for longer than is waited, then on time again."""
    late = np.zeros(300)
    late[100:160] = 0.05
    numbers, numbering = numbered(pushed(on_time(300) + late))
    assert numbering.lost <= 2
    assert len(numbers) == CHUNK * 300


def shared_by_packets(random):
    """Ten samples a packet, all with the packet's stamp, up to 30 ms late."""
    return np.repeat(np.arange(9, 15_000, 10) / FS + random.uniform(0, 0.03, 1500), 10)


EVEN = np.arange(15_000) / FS


@pytest.mark.parametrize(
    "stamps",
    [
        shared_by_packets,
        lambda random: EVEN + random.normal(0, 0.005, 15_000),
        lambda random: EVEN + random.normal(0, 0.03, 15_000),
        lambda random: EVEN + random.exponential(0.01, 15_000),
        *(lambda random, rate=rate: np.arange(15_000) / rate for rate in (247, 248.5, 252)),
        *(lambda random, by=by: EVEN - by * (np.arange(15_000) == 7000) for by in (0.03, 0.9, 3)),
        lambda random: np.where(np.arange(15_000) % 5000 == 0, np.nan, EVEN),
        lambda random: np.where(np.arange(15_000) == 99, np.inf, EVEN),
    ],
)
def test_stamps_of_every_kind_that_lack_nothing_count_nothing(stamps):
    whole = stamps(np.random.default_rng(0))
    numbers, numbering = numbered([whole[at : at + 10].tolist() for at in range(0, 15_000, 10)])
    assert numbering.lost == 0
    assert numbers == list(range(15_000))


@pytest.mark.parametrize("back_s", [1.5, 3600])
def test_a_clock_that_is_set_back_takes_no_loss_away(back_s):
    stamps = np.delete(EVEN, np.s_[5000:5500])
    stamps[8000:] -= back_s
    _, numbering = numbered([stamps[at : at + 10].tolist() for at in range(0, len(stamps), 10)])
    assert numbering.lost == 500
