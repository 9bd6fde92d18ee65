"""What the tables of `leancnn eeg bench` are made of."""

import numpy as np
import pytest
import torch
from torch import nn

from leancnn.eeg.early import stops
from leancnn.eeg.eegnet import KERNEL, SAME, EEGNet, Front, moments, whitening
from leancnn.eeg.kept import kept


def test_eegnet_has_the_weights_that_it_is_said_to_have():
    assert sum(p.numel() for p in EEGNet(8, 512, 3).parameters()) == 1_619


@pytest.mark.parametrize("training", [True, False])
def test_eegnets_front_is_two_convolutions_and_a_normalisation(training):
    torch.manual_seed(0)
    front, x = Front(3).double(), torch.randn(5, 1, 3, 40, dtype=torch.float64) + 0.3
    norm = nn.BatchNorm2d(8).double()
    plain = nn.Sequential(
        nn.ZeroPad2d(SAME),
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
    assert torch.allclose(front(x, moments(x) if training else None), plain(x), atol=1e-9)
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

    first = kept(make, x, seed=0)
    assert np.array_equal(kept(make, x, seed=0), first)
    assert len(calls) == 1
    assert not np.array_equal(kept(make, x, seed=1), first)
    kept(make, x + 1, seed=0)
    assert len(calls) == 3
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    kept(make, x, seed=0)
    assert len(calls) == 4
