"""What the tables of `leancnn eeg bench` are made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from leancnn.eeg import bench
from leancnn.eeg.balance import (
    SHARES,
    balanced,
    balancing_offsets,
    less_rest,
    rest_share_for,
    share_for,
)
from leancnn.eeg.bench import Sizes, _other_windows, _place, _ties, keep
from leancnn.eeg.decoders import log_softmax
from leancnn.eeg.early import stops
from leancnn.eeg.eegnet import KERNEL, EEGNet, Front, moments, same, whitening
from leancnn.eeg.filters import bank_for
from leancnn.eeg.score_cache import cached
from leancnn.eeg.windows import images
from leancnn.eeg.yardstick import rest_windows
from tests.eeg_data import people


def test_eegnet_has_the_weights_that_it_is_said_to_have():
    assert sum(p.numel() for p in EEGNet(8, 256, 3).parameters()) == 1_619


@pytest.mark.parametrize("training", [True, False])
def test_eegnets_front_is_two_convolutions_and_a_normalisation(training):
    torch.manual_seed(0)
    front, x = Front(3).double(), torch.randn(5, 3, 90, dtype=torch.float64) + 0.3
    norm = nn.BatchNorm2d(8).double()
    plain = nn.Sequential(
        nn.ZeroPad2d(same(KERNEL)),
        nn.Conv2d(1, 8, (1, KERNEL), bias=False),
        norm,
        nn.Conv2d(8, 16, (3, 1), groups=8, bias=False),
    ).double()
    with torch.no_grad():
        plain[1].weight.copy_(front.temporal[:, None, None])
        plain[3].weight.copy_(front.spatial.flatten(0, 1)[:, None, :, None])
        for part in (front.norm, norm):
            part.weight.copy_(torch.arange(8) / 4 + 0.5)
            part.bias.copy_(torch.arange(8) / 8 - 0.5)
            part.running_mean.fill_(0.1)
            part.running_var.fill_(0.7)
    plain.train(training)
    assert torch.allclose(front(x, moments(x) if training else None), plain(x[:, None]), atol=1e-9)
    assert torch.allclose(front.norm.running_mean, norm.running_mean, atol=1e-9)


def test_whitened_trials_have_the_identity_as_their_mean_covariance():
    random = np.random.default_rng(0)
    x = random.standard_normal((6, 4, 4)) @ random.standard_normal((6, 4, 90))
    x /= np.sqrt(np.einsum("ncs,ncs->n", x, x))[:, None, None]
    made = np.einsum("ij,njs->nis", whitening(x), x)
    assert np.allclose(np.mean([one @ one.T for one in made], 0), np.eye(4), atol=1e-9)


def test_the_first_length_that_is_sure_enough_decides_and_else_the_last():
    most = np.array([[0.5, 0.9, 0.4], [0.8, 0.95, 0.5], [0.7, 0.6, 0.6]])
    assert stops(most, 0.75).tolist() == [1, 0, 2]
    assert stops(most.copy(), 0.0).tolist() == [0, 0, 0]


def test_what_is_kept_comes_back_and_other_facts_are_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path))
    x, calls = np.arange(6.0).reshape(2, 3), []

    def make():
        calls.append(1)
        return x + len(calls)

    first = cached(make, x, seed=0)
    assert np.array_equal(cached(make, x, seed=0), first)
    assert len(calls) == 1
    assert not np.array_equal(cached(make, x, seed=1), first)
    cached(make, x + 1, seed=0)
    assert len(calls) == 3
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    cached(make, x, seed=0)
    assert len(calls) == 4


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_what_evens_a_session_out_makes_all_targets_as_frequent(count, targets, seed):
    logs = log_softmax(np.random.default_rng(seed).normal(0, 3, (count, targets)))
    added = balancing_offsets(logs)
    shares = np.exp(log_softmax(logs + added)).mean(0)
    assert np.allclose(shares, 1 / targets, atol=1e-4)
    assert abs(added.sum()) < 1e-9
    assert np.allclose(balancing_offsets(logs + added), 0, atol=1e-3)


def test_sessions_are_balanced_each_for_itself_and_by_none_of_it_not_at_all():
    random = np.random.default_rng(0)
    logs, session = log_softmax(random.normal(0, 1, (30, 3))), np.repeat(["a", "b"], 15)
    assert np.allclose(balanced(logs, session, 0.0), logs)
    other = logs.copy()
    other[15:] = log_softmax(random.normal(0, 1, (15, 3)))
    assert np.array_equal(balanced(logs, session, 1.0)[:15], balanced(other, session, 1.0)[:15])


def test_the_share_is_chosen_without_the_people_that_are_held_out():
    epochs = people(count=3, trials=8).looking()
    features = images(epochs, bank_for(epochs.targets), 1.0)
    test = epochs.subject == epochs.subject[0]
    found = share_for(epochs, features, ~test)
    assert found in SHARES
    features[test] = np.nan
    assert share_for(epochs, features, ~test) == found


def test_less_rest_takes_away_what_rest_says_of_the_same_session_alone():
    random = np.random.default_rng(3)
    session, rest_session = np.repeat(["a", "b", "c"], 10), np.repeat(["a", "b"], 6)
    logs = log_softmax(random.normal(0, 1, (30, 3)))
    idle = log_softmax(random.normal(0, 1, (12, 3)))
    found = less_rest(logs, session, idle, rest_session, 1.0)
    assert np.allclose(less_rest(logs, session, idle, rest_session, 0.0), logs)
    assert np.allclose(found[20:], logs[20:])  # without rest
    idle[6:] = log_softmax(random.normal(0, 1, (6, 3)))  # of session b
    other = less_rest(logs, session, idle, rest_session, 1.0)
    assert np.array_equal(other[:10], found[:10])
    assert not np.allclose(other[10:20], found[10:20])
    biased = log_softmax(logs + np.array([2.0, 0.0, -1.0]) * (session == "a")[:, None])
    preferring = log_softmax(idle + np.array([2.0, 0.0, -1.0]) * (rest_session == "a")[:, None])
    again = less_rest(biased, session, preferring, rest_session, 1.0)
    assert np.allclose(again, other)  # a session's preference for a target is gone


def test_the_share_of_rest_is_chosen_without_the_people_that_are_held_out():
    epochs = people(count=3, trials=8, rest=2)
    looking = epochs.looking()
    features = images(looking, bank_for(looking.targets), 1.0)
    fed, who, sessions = rest_windows(epochs.resting(), looking.targets, 1.0)
    assert len(fed) == 2 * len(epochs.resting())  # of 1 s, between 1 and 3.5 s after the cue
    test = looking.subject == looking.subject[0]
    found = rest_share_for(looking, features, ~test, fed, who, sessions)
    assert found in SHARES
    features[test] = np.nan
    fed[who == looking.subject[0]] = np.nan
    assert rest_share_for(looking, features, ~test, fed, who, sessions) == found


def test_a_yardstick_of_one_window_keeps_the_rows_of_the_others(tmp_path):
    def rows(*windows):
        return [{"held out": "subjects", "window s": w, "accuracy": 0.5} for w in windows]

    keep(tmp_path, "yardstick", "a.npz", Sizes(), rows=rows(2.0, 4.0), details={"subject 4": 1})
    found, details = _other_windows(tmp_path, Sizes(windows=(2.0, 1.0)))
    assert found == rows(4.0)
    assert details == {"subject 4": 1}
    assert sorted([*found, *rows(2.0, 1.0)], key=_place) == rows(1.0, 2.0, 4.0)
    assert _other_windows(tmp_path, Sizes(windows=(2.0,), networks=1)) == ([], {})


def test_ties_among_variants_are_said_where_they_move_what_is_chosen():
    ends = "chosen, by which of equals"
    details = {"subject 4": {ends: [0.9, 0.92]}, "subject 2": {ends: [0.88, 0.88]}, "session 1": {}}
    assert _ties(details).endswith(": subjects 4 s 0.9000 to 0.9200")
    assert _ties({}).endswith("no ties")


def test_a_bench_writes_its_tables_into_a_page_and_the_picture_beside_it(tmp_path, monkeypatch):
    made = {"title": "Nothing", "rows": [{"fault": "none", "correct": 1}], "note": "made"}
    monkeypatch.setattr(bench, "TABLES", {"faults": lambda *_: made})
    monkeypatch.setattr(bench, "load_epochs", lambda _: people())
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables eeg -->\nold\n<!-- /tables -->\nafter\n")
    found = bench.bench("a.npz", tmp_path / "results", ["faults"], sizes=Sizes(), page=page)
    text = page.read_text()
    assert text.startswith("before\n<!-- tables eeg -->\n**Nothing**")
    assert "| none | 1 |" in text
    assert "--only faults" in text
    assert text.endswith("<!-- /tables -->\nafter\n")
    assert found[-1] == tmp_path / "eeg.png"
    assert found[-1].read_bytes().startswith(b"\x89PNG")
