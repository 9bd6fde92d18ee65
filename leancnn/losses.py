"""Losses by name: cross-entropy, focal, centre, and softmax with centre.

Every loss is called `loss(logits, labels, features)` and returns the mean over the batch: logits
(N, classes), labels (N,), and features (N, F) or maps (N, F, H, W), what the network's `features`
gives. Only those with `uses_features` read the third. Centres are buffers of the loss: they belong
to a checkpoint and not to a network.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from leancnn.errors import ArgumentError, MismatchError
from leancnn.registry import Registry

Weights = Sequence[float] | None
losses: Registry[Callable[..., "Loss"]] = Registry("loss")


class Loss(nn.Module):
    """What every loss is: see the top of this file."""

    uses_features = False

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class Weighted(Loss):
    """A loss that counts classes by weights, and is their plain mean without.

    The mean is over the images, not over the weights, so that a batch's share of a run does not
    depend on which classes it drew.
    """

    class_weights: Tensor

    def __init__(self, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        self.weighted = class_weights is not None
        if class_weights is not None:
            values = torch.tensor(class_weights, dtype=torch.float32)
            self.register_buffer("class_weights", values)

    def mean(self, each: Tensor, labels: Tensor) -> Tensor:
        """Of one number for each image, (N,)."""
        return (each * self.class_weights[labels]).mean() if self.weighted else each.mean()


class Focal(Weighted):
    """−α_t (1 − p_t)^γ log p_t, where p_t is the probability of the true class.

    γ = 0 and α = 1 is cross-entropy.

    `alpha` is one number or one for each class. With `label_smoothing` every class is a target to
    its share. Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 5. Raises
    `MismatchError` for a vector of another length and for numbers below 0.
    """

    alpha: Tensor

    def __init__(
        self,
        *,
        classes: int,
        gamma: float,
        alpha: float | Sequence[float],
        label_smoothing: float,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(class_weights)
        weights = [float(alpha)] * classes if isinstance(alpha, int | float) else list(alpha)
        if len(weights) != classes:
            raise MismatchError(f"focal loss got {len(weights)} alphas for {classes} classes")
        if gamma < 0 or min(weights) < 0:
            raise ArgumentError(f"focal loss: gamma and alpha are 0 or more, not {gamma}, {alpha}")
        self.gamma = gamma
        self.smoothing = _share(label_smoothing)
        self.register_buffer("alpha", torch.tensor(weights, dtype=torch.float32))

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor | None = None) -> Tensor:
        logp = F.log_softmax(logits.float(), 1)  # (N, classes)
        each = -self.alpha * logp
        if self.gamma > 0:
            # 1 − p from log p; the floor keeps the slope finite where p is 1
            each = each * (-torch.expm1(logp)).clamp_min(1e-12) ** self.gamma
        true = each.gather(1, labels[:, None]).squeeze(1)
        return self.mean((1 - self.smoothing) * true + self.smoothing * each.mean(1), labels)


class CrossEntropy(Weighted):
    """−log p_t, with label smoothing."""

    def __init__(
        self, *, label_smoothing: float, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(class_weights)
        self.smoothing = _share(label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor | None = None) -> Tensor:
        if not self.weighted:
            return F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)
        each = F.cross_entropy(
            logits.float(), labels, label_smoothing=self.smoothing, reduction="none"
        )
        return self.mean(each, labels)


class Center(Loss):
    """½ ‖x − c_y‖², how far features lie from their class's centre; no gradient reaches a centre.

    Centres start at 0 and move in `update_centres` only: c_j ← c_j − α Σ(c_j − x_i) / (1 + n_j),
    over the n_j features of class j in the batch. Source: Wen et al., A Discriminative Feature
    Learning Approach for Deep Face Recognition, ECCV 2016, Eq. 2-4.
    """

    uses_features = True
    centres: Tensor

    def __init__(self, *, classes: int, features: int, alpha: float) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ArgumentError(f"centres move by a share in 0..1 (alpha), not {alpha}")
        self.alpha = alpha
        self.register_buffer("centres", torch.zeros(classes, features))

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor | None = None) -> Tensor:
        x = self._vectors(features)
        return (x - self.centres[labels]).square().sum(1).mean() / 2

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Move the centres towards one batch; in several processes towards all their batches."""
        x = self._vectors(features)
        hits = torch.zeros_like(self.centres[:, 0]).index_add_(0, labels, torch.ones_like(x[:, 0]))
        sums = torch.zeros_like(self.centres).index_add_(0, labels, x)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(hits)
            distributed.all_reduce(sums)
        hits = hits[:, None]
        self.centres -= self.alpha * (hits * self.centres - sums) / (1 + hits)

    def _vectors(self, features: Tensor | None) -> Tensor:
        width = self.centres.shape[1]
        if features is None:
            raise MismatchError(f"the centre loss needs the features of the network, {width} each")
        x = features.float().flatten(2).mean(2) if features.ndim > 2 else features.float()
        if x.ndim != 2 or x.shape[1] != width:
            raise MismatchError(f"the centres have {width} features, not {tuple(features.shape)}")
        return x


class SoftmaxCenter(Loss):
    """Cross-entropy + γ × centre loss. Source: the NVM paper, which gives neither γ nor α."""

    uses_features = True

    def __init__(
        self,
        *,
        classes: int,
        features: int,
        gamma: float,
        alpha: float,
        label_smoothing: float,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ArgumentError(f"the centre loss weighs 0 or more (gamma), not {gamma}")
        self.gamma = gamma
        self.softmax = CrossEntropy(label_smoothing=label_smoothing, class_weights=class_weights)
        self.center = Center(classes=classes, features=features, alpha=alpha)

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor | None = None) -> Tensor:
        softmax: Tensor = self.softmax(logits, labels)
        if self.gamma == 0:
            return softmax
        close: Tensor = self.center(logits, labels, features)
        return softmax + self.gamma * close


def update_centres(loss: nn.Module, features: Tensor, labels: Tensor) -> None:
    """Move the centres of a loss after a step; nothing happens where there are none."""
    for part in loss.modules():
        if isinstance(part, Center):
            part.update(features, labels)


def names() -> list[str]:
    """All losses."""
    return list(losses)


def create(
    name: str,
    *,
    classes: int,
    features: int,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    **arguments: Any,
) -> Loss:
    """Build a loss for networks of `classes` classes and `features` (their `fc.in_features`).

    `arguments` are those of the loss: focal takes gamma and alpha, center alpha, softmax+center
    gamma and alpha; one for each class is a list, a tensor or an array. Raises
    `UnknownNameError` for a name and `MismatchError` for arguments that do not fit.
    """
    arguments = {key: _plain(value) for key, value in arguments.items()}
    check(name, arguments, label_smoothing)
    return losses[name](
        classes=classes,
        features=features,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        **arguments,
    )


def check(name: str, arguments: Mapping[str, Any], label_smoothing: float = 0.0) -> None:
    """Refuse what `create` would refuse, while the classes are not known.

    Raises `UnknownNameError` for the loss, `MismatchError` for its arguments.
    """
    takes = inspect.signature(losses[name]).parameters
    known = [key for key in takes if key not in _GIVEN]
    foreign = [key for key in arguments if key not in known]
    if foreign:
        some = f"it takes {' and '.join(known)}" if known else "it takes none"
        raise ArgumentError(
            f"loss {name} has no argument {', '.join(foreign)}; {some}: "
            "change loss_arguments, such as --override 'loss_arguments={}'"
        )
    for key, value in arguments.items():
        many = takes[key].annotation is not float  # one for each class
        each = value if many and isinstance(value, list | tuple) else [value]
        if not each:
            raise ArgumentError(f"loss {name}: {key} is an empty list; it takes one for each class")
        if not all(type(item) in (int, float) and abs(item) <= LARGEST for item in each):
            words = "numbers" if many else "a number"
            raise ArgumentError(
                f"loss {name}: {key} takes {words} of at most {LARGEST:,}, not {value!r}"
            )
    lists = [value for value in arguments.values() if isinstance(value, list | tuple)]
    losses[name](
        classes=max(map(len, lists), default=0) or 2,
        features=1,
        label_smoothing=label_smoothing,
        class_weights=None,
        **arguments,
    )


LARGEST = 1_000_000  # of an argument: far above any use, far below what float32 holds
_GIVEN = ("classes", "features", "label_smoothing", "class_weights")  # to every loss


def _plain(value: Any) -> Any:
    """Numbers of torch and numpy as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _share(label_smoothing: float) -> float:
    if not 0 <= label_smoothing < 1:
        raise ArgumentError(f"label smoothing is a share in 0..1, not {label_smoothing}")
    return label_smoothing


def _cross_entropy(
    *, classes: int, features: int, label_smoothing: float, class_weights: Weights
) -> Loss:
    return CrossEntropy(label_smoothing=label_smoothing, class_weights=class_weights)


def _focal(
    *,
    classes: int,
    features: int,
    label_smoothing: float,
    class_weights: Weights,
    gamma: float = 2.0,
    alpha: float | Sequence[float] = 1.0,
) -> Loss:
    return Focal(
        classes=classes,
        gamma=gamma,
        alpha=alpha,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
    )


def _center(
    *,
    classes: int,
    features: int,
    label_smoothing: float,
    class_weights: Weights,
    alpha: float = 0.5,
) -> Loss:
    if class_weights is not None:
        raise MismatchError("the centre loss alone has no class weights")
    if label_smoothing:
        raise ArgumentError(
            "the centre loss alone has no labels to smooth; label_smoothing is 0 with it"
        )
    return Center(classes=classes, features=features, alpha=alpha)


def _softmax_center(
    *,
    classes: int,
    features: int,
    label_smoothing: float,
    class_weights: Weights,
    gamma: float = 0.003,
    alpha: float = 0.5,
) -> Loss:
    return SoftmaxCenter(
        classes=classes,
        features=features,
        gamma=gamma,
        alpha=alpha,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
    )


losses.register("cross_entropy", _cross_entropy)
losses.register("focal", _focal)
losses.register("center", _center)
losses.register("softmax+center", _softmax_center)
