"""EEGNet on the signal itself: what ssvepnet stands beside in the tables. Trained here, not kept.

Source: Lawhern et al., EEGNet: a compact convolutional neural network for EEG-based brain-computer
interfaces, J. Neural Eng. 2018, Table 2, with F1 = 8, D = 2, F2 = 16. Kernels are 16 samples long,
so that at 2 s of 8 channels and 3 targets there are 1,619 weights; its norms' caps are left out.
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
KERNEL = 16
DROPOUT = 0.25
SAME = (KERNEL // 2 - 1, KERNEL // 2, 0, 0)


class Front(nn.Module):
    """EEGNet's first two convolutions with the normalisation between, as one convolution.

    What the first would give, of eight times the size, is never made: its mean and variance over a
    batch follow from those of the patches it reads, which `moments` has for each trial.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal = nn.Parameter(torch.empty(8, KERNEL).uniform_(-1, 1) / KERNEL**0.5)
        self.spatial = nn.Parameter(torch.empty(8, 2, channels).uniform_(-1, 1) / channels**0.5)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor, moments: Tensor | None) -> Tensor:
        """Windows (N, 1, channels, samples), and in training their moments, to (N, 16, 1, T)."""
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
        kernel = self.spatial[:, :, :, None] * (gain[:, None] * self.temporal)[:, None, None, :]
        bias = self.spatial.sum(2) * (norm.bias - gain * mean)[:, None]
        return F.conv2d(F.pad(x, SAME), kernel.flatten(0, 1)[:, None], bias.flatten())


def moments(x: Tensor) -> Tensor:
    """Mean (row 0) and second moments of each window's patches: (N, 1 + KERNEL, KERNEL)."""
    found = []
    for trial in F.pad(x, SAME):
        patches = trial.unfold(-1, KERNEL, 1).reshape(-1, KERNEL)
        found.append(torch.cat([patches.mean(0)[None], patches.T @ patches / len(patches)]))
    return torch.stack(found)


class EEGNet(nn.Module):
    """Windows (N, 1, channels, samples) to logits (N, classes)."""

    def __init__(self, channels: int, samples: int, classes: int) -> None:
        super().__init__()
        self.front = Front(channels)
        self.body = nn.Sequential(
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.AvgPool2d((1, 4)),
            nn.Dropout(DROPOUT),
            nn.ZeroPad2d(SAME),
            nn.Conv2d(16, 16, (1, KERNEL), groups=16, bias=False),
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
    """What EEGNet reads (N, channels, samples): the bank's widest band, each trial of deviation 1.

    `aligned` whitens each session by its mean covariance first, all its trials but no label of it.
    Source: He and Wu, Transfer learning for brain-computer interfaces: a Euclidean space data
    alignment approach, IEEE Trans. Biomed. Eng. 2020. What is made of canonical correlations does
    not change by it: they are the same for any mixing of channels.
    """
    widest = Bank((min(bank.lows),), bank.high, bank.order)
    x = np.stack([window[0] for window in windows(epochs, widest, seconds)])
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
        _train(net, torch.from_numpy(x[train])[:, None], torch.from_numpy(labels[train]), epochs)
        with torch.inference_mode():
            found = net.eval()(torch.from_numpy(x[test])[:, None])
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
