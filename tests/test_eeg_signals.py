"""Filters, features, decoders without training, and made EEG: laws that need no recorded data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn.eeg import decoders
from leancnn.eeg.decoders import (
    FBCCA,
    Ensemble,
    fbcca,
    fit_logit,
    log_softmax,
    probabilities,
    temperature_for,
)
from leancnn.eeg.features import CENTRE, OFFSETS, correlations, squared_correlations
from leancnn.eeg.filters import Bank, Causal, band_pass, bank_for, notch
from leancnn.eeg.ring import Ring
from leancnn.eeg.synthetic import Head, band_power, synthetic_trials
from leancnn.eeg.windows import images, windows
from leancnn.errors import DataError, MismatchError
from tests.eeg_data import TARGETS, people


def signal(channels=3, samples=1200, seed=0):
    return np.random.default_rng(seed).standard_normal((channels, samples)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 64, 513])
def test_a_bank_fed_in_chunks_gives_the_bits_of_the_whole(size):
    x = signal() + 5000  # an amplifier's offset
    whole = Bank().filters(256.0, 3)(x)
    bands = Bank().filters(256.0, 3)
    parts = [bands(x[:, start : start + size]) for start in range(0, x.shape[1], size)]
    assert np.array_equal(np.concatenate(parts, 2), whole)


def test_a_filter_that_forgets_starts_as_if_new():
    filter_ = Causal(notch(50.0, 250.0), 2)
    x = signal(2)
    first = filter_(x)
    assert not np.array_equal(filter_(x), first)
    filter_.reset()
    assert np.array_equal(filter_(x), first)


def test_a_constant_offset_makes_no_jump():
    bands = Bank().filters(256.0, 1)
    assert np.abs(bands(np.full((1, 500), 4000.0))).max() < 1e-6


def test_a_band_outside_the_rate_is_named_in_the_error():
    with pytest.raises(MismatchError, match="40 to 70 Hz does not fit a rate of 100 Hz"):
        band_pass(40, 70, 100.0)
    with pytest.raises(MismatchError, match="3 channels got"):
        Causal(notch(50.0, 250.0), 3)(signal(2))


@given(st.lists(st.floats(2, 40), min_size=2, max_size=6))
def test_the_bank_follows_the_lowest_frequency(frequencies):
    lows = bank_for(frequencies).lows
    assert lows[0] <= max(0.8 * min(frequencies), 1)
    assert np.allclose(np.diff(lows), 8)


def test_the_largest_correlation_stands_at_the_sine():
    time = np.arange(512) / 256
    random = np.random.default_rng(1)
    for hz in (8.0, 13.0, 17.25, 21.0):
        x = random.standard_normal((1, 4, 512))
        x[0] += np.outer(random.standard_normal(4), np.sin(2 * np.pi * hz * time + 1))
        around = [hz + step for step in np.arange(-3, 3.5, 0.5)]
        found = squared_correlations(x, around, 256.0, (1,))[0, 0]
        assert around[int(found.argmax())] == hz


@given(st.integers(0, 10_000))
def test_features_do_not_change_when_channels_are_mixed_or_scaled(seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((2, 4, 300))
    mixing = np.linalg.qr(random.standard_normal((4, 4)))[0] * random.uniform(0.5, 2, 4)
    scale = 10.0 ** random.uniform(-6, 6, 4)
    plain = correlations(x, (10.0, 12.0), 250.0)
    assert np.allclose(correlations(mixing @ x, (10.0, 12.0), 250.0), plain, atol=1e-6)
    assert np.allclose(correlations(x * scale[:, None], (10.0, 12.0), 250.0), plain, atol=1e-6)


def test_an_image_of_features_has_the_candidates_in_its_middle():
    x = signal(4, 500)[None].astype(np.float64)
    image = correlations(x, (9.0, 11.0), 250.0)
    assert image.shape == (2, 2, len(OFFSETS))
    alone = squared_correlations(x, (9.0, 11.0), 250.0, (1, 2))
    assert np.allclose(np.exp(image[:, :, CENTRE]) - 0.02, alone[:, 0], atol=1e-6)


def test_a_silent_channel_counts_as_not_there():
    x = signal(4, 500)[None].astype(np.float64)
    silent = x.copy()
    silent[:, 2] = 0
    without = np.delete(x, 2, axis=1)
    both = [squared_correlations(one, TARGETS, 250.0, (1, 2)) for one in (silent, without)]
    assert np.allclose(*both, atol=1e-9)


def test_channels_that_are_sums_of_others_are_no_trouble():
    x = signal(4, 500)[None].astype(np.float64)
    referenced = x - x.mean(1, keepdims=True)
    found = squared_correlations(referenced, TARGETS, 250.0, (1, 2))
    assert np.isfinite(found).all()
    assert found.max() < 0.5


def test_a_window_that_is_too_short_is_refused():
    with pytest.raises(MismatchError, match="10 samples is too short for 8 channels"):
        squared_correlations(np.zeros((1, 8, 10)), TARGETS, 250.0, (2,))


@pytest.mark.parametrize("asked", [-30.0, -14.0, -3.0])
def test_made_eeg_has_the_ratio_that_was_asked_for(asked):
    head = Head(asked, seed=3)
    rest = head.rest(5000)
    answer = head.looking(10.0, rest) - rest
    measured = 10 * np.log10((band_power(answer, 250.0) / band_power(rest, 250.0)).max())
    assert abs(measured - asked) < 0.5


def accuracy(epochs, decoder, seconds):
    answers = [
        decoder.scores(w, epochs.fs).argmax() for w in windows(epochs, decoder.bank, seconds)
    ]
    return float((np.array(answers) == epochs.labels).mean())


def test_no_answer_is_found_where_there_is_none():
    epochs = synthetic_trials(TARGETS, -30.0, trials=120)
    assert abs(accuracy(epochs, fbcca(TARGETS), 2.0) - 0.25) < 0.12  # three standard errors


def test_a_clear_answer_is_found():
    epochs = synthetic_trials(TARGETS, -10.0, trials=60)
    assert accuracy(epochs, fbcca(TARGETS), 4.0) >= 0.97


def test_a_bank_that_cuts_the_lowest_target_is_worse():
    epochs = synthetic_trials((7.5, 9.0), -18.0, trials=60)
    low = epochs[epochs.hz == 7.5]
    follows, cuts = fbcca((7.5, 9.0)), FBCCA((7.5, 9.0), Bank())
    strength = [
        np.mean(
            [d.scores(w, low.fs)[0] - d.scores(w, low.fs)[1] for w in windows(low, d.bank, 2.0)]
        )
        for d in (follows, cuts)
    ]
    assert strength[0] > strength[1]


def test_two_equal_frequencies_are_no_choice():
    with pytest.raises(DataError, match="two or more different"):
        fbcca((10.0, 10.0))


@given(st.integers(0, 1000), st.floats(0.2, 5))
def test_the_temperature_undoes_what_was_multiplied(seed, factor):
    random = np.random.default_rng(seed)
    true = random.standard_normal((400, 3)) * 2
    labels = np.array([random.choice(3, p=p) for p in np.exp(log_softmax(true))])
    plain = temperature_for(true, labels)
    assert temperature_for(true * factor, labels) == pytest.approx(plain * factor, rel=1e-2)


def test_probabilities_sum_to_one_and_keep_the_order():
    decoder = fbcca(TARGETS)
    scores = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
    found = probabilities(decoder, scores)
    assert found.sum() == pytest.approx(1)
    assert (found.argsort() == scores.argsort()).all()


# The ring


def ring(**more):
    return Ring(Bank((8.0,), 40.0), 250.0, 3, 500, **more)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_a_ring_holds_the_last_samples_whatever_the_chunks(sizes):
    x = signal(3, sum(sizes))
    buffer, at = ring(), 0
    for size in sizes:
        buffer.push(x[:, at : at + size], at)
        at += size
    whole = Bank((8.0,), 40.0).filters(250.0, 3)(x)[:, :, -500:]
    window = buffer.window()
    assert (window is None) == (at < 500)
    assert buffer.held == min(at, 500)
    if window is not None:
        assert np.array_equal(window, whole)


def test_a_short_loss_is_bridged_and_a_long_one_starts_anew():
    x = signal(3, 2000)
    buffer = ring()
    buffer.push(x[:, :600], 0)
    buffer.push(x[:, 610:1200], 610)
    assert buffer.counts["lost"] == buffer.counts["bridged"] == 10
    assert buffer.window() is not None
    buffer.push(x[:, 1300:1400], 1300)
    assert buffer.counts["lost"] == 110
    assert buffer.counts["restarts"] == 1
    assert buffer.window() is None
    assert buffer.held == 100


def test_samples_that_come_twice_are_taken_once():
    x = signal(3, 800)
    once, twice = ring(), ring()
    once.push(x, 0)
    twice.push(x[:, :500], 0)
    twice.push(x[:, 300:], 300)
    assert np.array_equal(once.window(), twice.window())
    assert twice.counts["samples"] == 800


def test_nan_is_counted_and_does_not_stay_in_the_filters():
    x = signal(3, 1500)
    x[1, 200:205] = np.nan
    buffer = ring()
    buffer.push(x, 0)
    assert buffer.counts["nan"] == 5
    assert np.isfinite(buffer.window()).all()


def test_flat_and_railed_channels_are_named():
    x = 10 * signal(3, 600)
    x[0], x[2] = 7.0, np.clip(x[2], -5, 5)
    buffer = ring(unit="uV")
    buffer.push(x, 0)
    quality = buffer.quality()
    assert (quality.flat, quality.railed, quality.unused) == ((0,), (2,), (0, 2))


def test_an_ensemble_computes_once_what_its_parts_read(monkeypatch):
    epochs = people()
    bank, targets = bank_for(epochs.targets), epochs.targets
    features = images(epochs, bank, 1.0)
    parts = [
        fit_logit(features, epochs.labels, epochs.session, targets, bank, strength=strength)
        for strength in (0.03, 1.0)
    ]
    window = next(iter(windows(epochs, bank, 1.0)))
    alone = [log_softmax(part.scores(window, epochs.fs)) for part in parts]
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return correlations(*arguments)

    monkeypatch.setattr(decoders, "correlations", counted)
    found = Ensemble(tuple(parts)).scores(window, epochs.fs)
    assert np.array_equal(found, np.mean(alone, 0).astype(np.float32))
    assert len(calls) == 1
