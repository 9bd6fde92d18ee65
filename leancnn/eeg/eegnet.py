"""EEGNet on the signal itself: what ssvepnet stands beside in the tables. Trained here, not kept.

Source: Lawhern et al., EEGNet: a compact convolutional neural network for EEG-based brain-computer
interfaces, J. Neural Eng. 2018, Table 2, with F1 = 8, D = 2, F2 = 16: signals at 128 Hz, a first
kernel of half a second. At 2 s of 8 channels and 3 targets there are 1,619 weights; its norms' caps
are left out.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from leancnn.eeg.features import Floats
from leancnn.eeg.filters import Bank
from leancnn.eeg.network import LR, WEIGHT_DECAY, learning_rate
from leancnn.eeg.recording import Epochs
from leancnn.eeg.windows import windows
from leancnn.process import kept_threads

EPOCHS = 120
BATCH = 64  # optimizer and schedule are those of ssvepnet
RATE = 128.0  # Hz
HIGH = 45.0  # Hz: above the second harmonics, and gone where it would fold back at that rate
KERNEL = 64  # of the first convolution, half a second
SEPARABLE = 16  # of the last
DROPOUT = 0.25


def same(kernel: int) -> tuple[int, int, int, int]:
    """Zeros around the time axis that keep its length."""
    return ((kernel - 1) // 2, kernel // 2, 0, 0)


class Front(nn.Module):
    """EEGNet's first two convolutions with the normalisation between, channels mixed first.

    Both are linear, so a channel's mixture may come before its filter: 16 signals are filtered
    instead of 8 × channels. What is normalised between them is never made: its mean and variance
    over a batch follow from those of the patches it reads, which `moments` has for each trial.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal = nn.Parameter(torch.empty(8, KERNEL).uniform_(-1, 1) / KERNEL**0.5)
        self.spatial = nn.Parameter(torch.empty(8, 2, channels).uniform_(-1, 1) / channels**0.5)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor, moments: Tensor | None) -> Tensor:
        """Windows (N, channels, samples), and in training their moments, to (N, 16, 1, T)."""
        norm = self.norm
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        if moments is not None:
            first, second = moments[:, 0].mean(0), moments[:, 1:].mean(0)
            batch_mean = self.temporal @ first
            batch_variance = ((self.temporal @ second) * self.temporal).sum(1) - batch_mean**2
            with torch.no_grad():
                mean.lerp_(batch_mean, 0.1)
                variance.lerp_(batch_variance, 0.1)
            mean, variance = batch_mean, batch_variance
        gain = norm.weight / (variance + norm.eps).sqrt()
        bias = self.spatial.sum(2) * (norm.bias - gain * mean)[:, None]
        mixed = self.spatial.flatten(0, 1) @ x
        kernel = (gain[:, None] * self.temporal).repeat_interleave(2, 0)
        return (filtered(mixed, kernel) + bias.flatten()[:, None])[:, :, None]


def filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """Each of the rows of x (N, rows, T) through its kernel (rows, K), length kept.

    By products of spectra: a quarter of the time of a depthwise convolution, backwards too.
    """
    before, after, *_ = same(kernels.shape[1])
    samples = -(-(x.shape[-1] + before + after) // 64) * 64  # of other lengths it takes much longer
    spectra = torch.fft.rfft(F.pad(x, (before, 0)), n=samples)
    spectra = spectra * torch.fft.rfft(kernels.flip(1), n=samples)
    whole: Tensor = torch.fft.irfft(spectra, n=samples)
    return whole[..., before + after :][..., : x.shape[-1]]


def moments(x: Tensor) -> Tensor:
    """Mean (row 0) and second moments of each window's patches: (N, 1 + KERNEL, KERNEL)."""
    found = []
    for trial in F.pad(x, same(KERNEL)[:2]):
        patches = trial.unfold(-1, KERNEL, 1).reshape(-1, KERNEL)
        found.append(torch.cat([patches.mean(0)[None], patches.T @ patches / len(patches)]))
    return torch.stack(found)


class EEGNet(nn.Module):
    """Windows (N, channels, samples) to logits (N, classes)."""

    def __init__(self, channels: int, samples: int, classes: int) -> None:
        super().__init__()
        self.front = Front(channels)
        self.body = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 4)),
            nn.Dropout(DROPOUT),
            nn.ZeroPad2d(same(SEPARABLE)),
            nn.Conv2d(16, 16, (1, SEPARABLE), groups=16, bias=False),
            nn.Conv2d(16, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 8)),
            nn.Dropout(DROPOUT),
            nn.Flatten(),
        )
        self.fc = nn.Linear(16 * (samples // 4 // 8), classes)

    def forward(self, x: Tensor, moments: Tensor | None = None) -> Tensor:
        logits: Tensor = self.fc(self.body(self.front(x, moments)))
        return logits


def signals(epochs: Epochs, bank: Bank, seconds: float, *, aligned: bool) -> NDArray[np.float32]:
    """What EEGNet reads (N, channels, samples): from the bank's lowest edge to 45 Hz at 128 Hz, or
    the nearest rate that divides that of the data, each trial of deviation 1.

    `aligned` whitens each session by its mean covariance first, all its trials but no label of it.
    Source: He and Wu, Transfer learning for brain-computer interfaces: a Euclidean space data
    alignment approach, IEEE Trans. Biomed. Eng. 2020. What is made of canonical correlations does
    not change by it: they are the same for any mixing of channels.
    """
    band, step = Bank((min(bank.lows),), HIGH, bank.order), max(round(epochs.fs / RATE), 1)
    x = np.stack([window[0, :, ::step] for window in windows(epochs, band, seconds)])
    if aligned:
        for session in np.unique(epochs.session):
            here = epochs.session == session
            x[here] = np.einsum("ij,njs->nis", whitening(x[here]), x[here])
    return np.asarray(x / x.std((1, 2), keepdims=True), np.float32)


def whitening(x: Floats) -> Floats:
    """The inverse square root (channels, channels) of the mean covariance of trials."""
    mean = np.mean([trial @ trial.T / np.trace(trial @ trial.T) for trial in x], 0)
    values, vectors = np.linalg.eigh(mean)
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1e-9 * values[-1])) @ vectors.T)


def eegnet_scores(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    *,
    seed: int,
    epochs: int = EPOCHS,
) -> Floats:
    """Logits of the test trials by an EEGNet trained on the others. A function of its arguments."""
    with torch.random.fork_rng(devices=[]), kept_threads():
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        net = EEGNet(x.shape[1], x.shape[2], int(labels.max()) + 1)
        _train(net, torch.from_numpy(x[train]), torch.from_numpy(labels[train]), epochs)
        with torch.inference_mode():
            found = net.eval()(torch.from_numpy(x[test]))
    return np.asarray(found.numpy(), np.float64)


def _train(net: EEGNet, x: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    batches, known, step = max(len(x) // BATCH, 1), moments(x), 0
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: batches * BATCH].chunk(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, epochs * batches)
            step += 1
            loss = F.cross_entropy(net(x[batch], known[batch]), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
