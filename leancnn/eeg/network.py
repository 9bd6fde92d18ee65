"""Networks as decoders: SSVEPNet on correlations, some seeds averaged, or any on spectrograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from leancnn import models
from leancnn.eeg.decoders import Scores, log_softmax
from leancnn.eeg.features import Floats, correlations
from leancnn.eeg.filters import Bank
from leancnn.eeg.spectrogram import spectrogram
from leancnn.process import kept_threads
from leancnn.signal_window import SignalWindow
from leancnn.weights import Network

EPOCHS = 20
BATCH = 64
LR = 3e-3  # peak, AdamW; it rises for 20 steps and falls along a cosine
WEIGHT_DECAY = 0.1
NOISE = 0.3  # standard deviations, added to the features in training
WARM_UP = 20


@dataclass(frozen=True, slots=True)
class NetDecoder:
    """Networks on the image of correlations, or on spectrograms of the size `picture`.

    The scores are the mean of their log-probabilities. An answer takes float32 features (N, H, W,
    planes), of correlations H candidates and W offsets, and gives logits (N, K): a network, or the
    same compiled.
    """

    frequencies: tuple[float, ...]
    bank: Bank
    answers: tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], ...]
    networks: tuple[Network, ...] = ()
    temperature: float = 1.0
    name: str = "ssvepnet"
    picture: tuple[int, int] | None = None

    def scores(self, window: Floats, fs: float) -> Scores:
        if self.picture is not None:
            return self.scores_from_features(
                spectrogram(window, self.frequencies, fs, self.picture)
            )
        return self.scores_from_features(correlations(window, self.frequencies, fs))

    def scores_from_features(self, image: NDArray[np.float32]) -> Scores:
        """Features (planes, H, W) to scores (K,)."""
        fed = np.ascontiguousarray(image.transpose(1, 2, 0))[None]
        logs = [log_softmax(answer(fed)[0]) for answer in self.answers]
        return np.asarray(np.mean(logs, 0), np.float32)


def in_torch(network: Network) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A network as a function of arrays."""

    @torch.inference_mode()
    def answer(features: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = network(torch.from_numpy(features)).numpy()
        return found

    return answer


def decoder_of(
    networks: Sequence[Network],
    frequencies: tuple[float, ...],
    bank: Bank,
    temperature: float = 1.0,
) -> NetDecoder:
    """Networks of one kind, in evaluation mode, as one decoder."""
    name = networks[0].name
    return NetDecoder(
        frequencies,
        bank,
        tuple(in_torch(network) for network in networks),
        tuple(networks),
        temperature,
        name=name,
        picture=None if name == "ssvepnet" else networks[0].preprocessing.size,
    )


def fit_network(
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    frequencies: Sequence[float],
    *,
    seed: int,
    name: str = "ssvepnet",
    epochs: int = EPOCHS,
    fbcca_start: bool = True,
    keep_ratio: float | None = None,
) -> Network:
    """Train one network on features (N, planes, H, W). A function of its arguments alone.

    An ssvepnet reads correlations (N, planes, K, 9), any other spectrograms. `fbcca_start` false
    draws the skip's weights too: what a control with shuffled labels needs. With `keep_ratio` only
    that share of channels stays, by their l1 norm, and is trained once more.
    """
    planes, *size = images.shape[1:]
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3)) + 1e-6
    settings = {} if fbcca_start or name != "ssvepnet" else {"fbcca_start": False}
    body = models.create_model(
        name, classes=len(frequencies), channels=planes, seed=seed, **settings
    )
    x = torch.from_numpy((images - mean[:, None, None]) / std[:, None, None])
    with kept_threads():  # so small a network is slower on several
        torch.set_num_threads(1)
        _train(body, x.float(), torch.from_numpy(labels), seed, epochs)
        network = Network(
            body.eval(),
            name=name,
            arguments=settings,
            classes=[f"{hz:g} Hz" for hz in frequencies],
            preprocessing=SignalWindow(size=(size[0], size[1]), channels=planes),
            mean=mean.tolist(),
            std=std.tolist(),
            made={"epochs": epochs, "seed": seed},
        ).eval()
        if keep_ratio is not None:
            network = pruned(network, keep_ratio)
            _train(network.body, x.float(), torch.from_numpy(labels), seed, epochs)
    return network.eval()


def pruned(network: Network, keep_ratio: float) -> Network:
    """The network with that share of its channels, by l1. Raises `MismatchError` as `plan` does."""
    from leancnn.prune import cut, plan

    return cut(network, plan(network, criterion="l1", keep=keep_ratio, progress=False))


def _train(body: torch.nn.Module, x: Tensor, labels: Tensor, seed: int, epochs: int) -> None:
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(body.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    batches = max(len(x) // BATCH, 1)
    body.train()
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=random)
        for batch in order[: batches * BATCH].chunk(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, epochs * batches)
            noise = torch.randn(x[batch].shape, generator=random)
            loss = F.cross_entropy(body(x[batch] + NOISE * noise), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1


def learning_rate(step: int, steps: int) -> float:
    """Up in a straight line, down along half a cosine."""
    warm = min((step + 1) / WARM_UP, 1.0)
    return float(LR * warm * (1 + np.cos(np.pi * step / steps)) / 2)
