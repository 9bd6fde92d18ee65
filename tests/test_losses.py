"""losses: equations by hand, and centres that move as their source says."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leancnn import losses
from leancnn.errors import MismatchError, UnknownNameError

CLASSES, WIDTH, BATCH = 5, 7, 12


def batch(seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(BATCH, CLASSES, generator=made)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=made)
    return logits, labels, torch.randn(BATCH, WIDTH, generator=made)


def create(name: str, **arguments: object) -> losses.Loss:
    return losses.create(name, classes=CLASSES, features=WIDTH, **arguments)


@given(st.integers(0, 10**6), st.floats(0.1, 50), st.sampled_from((0.0, 0.1, 0.5)))
@settings(max_examples=30)
def test_focal_loss_without_gamma_is_cross_entropy(
    seed: int, scale: float, smoothing: float
) -> None:
    logits, labels, _ = batch(seed, scale)
    focal = create("focal", gamma=0.0, label_smoothing=smoothing)(logits, labels)
    entropy = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.allclose(focal, entropy, rtol=1e-5, atol=1e-6)
    plain = create("cross_entropy", label_smoothing=smoothing)(logits, labels)
    assert torch.equal(plain, entropy)


def test_focal_loss_is_its_equation_for_each_class_of_its_own_weight() -> None:
    logits, labels, _ = batch()
    alpha = [0.25, 1.0, 2.0, 0.0, 0.5]
    p = logits.softmax(1)[torch.arange(BATCH), labels]
    expected = (-torch.tensor(alpha)[labels] * (1 - p) ** 1.5 * p.log()).mean()
    assert torch.allclose(create("focal", gamma=1.5, alpha=alpha)(logits, labels), expected)
    for same in (torch.tensor(alpha), np.array(alpha)):
        found = create("focal", gamma=np.float64(1.5), alpha=same)(logits, labels)
        assert torch.allclose(found, expected)
    assert create("focal", alpha=[1, 0, 1, 2, 1]).alpha.dtype == torch.float32
    halved = create("focal", gamma=1.5, alpha=0.5)(logits, labels)
    assert torch.allclose(halved, create("focal", gamma=1.5)(logits, labels) / 2)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_has_finite_slopes_when_sure_and_when_wrong(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0, 0, 0, 0], [-200.0, 0, 0, 0, 0]], requires_grad=True)
    loss = create("focal", gamma=gamma)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_centre_loss_is_half_the_mean_squared_distance() -> None:
    _, labels, features = batch()
    loss = create("center")
    loss.centres.normal_()
    expected = sum(
        ((x - loss.centres[y]) ** 2).sum() / 2 for x, y in zip(features, labels, strict=True)
    )
    found = loss(torch.zeros(BATCH, CLASSES), labels, features)
    assert torch.allclose(found, torch.as_tensor(expected) / BATCH)
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == ["centres"]


def test_centres_move_as_their_equation_says() -> None:
    _, labels, features = batch()
    labels[labels == 3] = 1  # a class that is not in the batch stays
    loss = create("center", alpha=0.3)
    loss.centres.normal_()
    before = loss.centres.clone()
    losses.update_centres(loss, features, labels)
    for j in range(CLASSES):
        mine = features[labels == j]
        step = (before[j] - mine).sum(0) / (1 + len(mine))
        assert torch.allclose(loss.centres[j], before[j] - 0.3 * step, atol=1e-6)
    assert torch.equal(loss.centres[3], before[3])


def test_centres_settle_on_the_means_of_their_classes() -> None:
    _, labels, features = batch()
    loss = create("center", alpha=1.0)
    for _ in range(200):
        losses.update_centres(loss, features, labels)
    for j in labels.unique():
        assert torch.allclose(loss.centres[j], features[labels == j].mean(0), atol=1e-4)


def test_the_joint_loss_is_the_weighted_sum_and_gamma_zero_is_softmax() -> None:
    logits, labels, features = batch()
    joint = create("softmax+center", gamma=0.5, label_smoothing=0.1)
    losses.update_centres(joint, features, labels)
    softmax = F.cross_entropy(logits, labels, label_smoothing=0.1)
    close = joint.center(logits, labels, features)
    assert torch.allclose(joint(logits, labels, features), softmax + 0.5 * close)
    alone = create("softmax+center", gamma=0.0)
    assert torch.equal(alone(logits, labels, features), F.cross_entropy(logits, labels))
    assert alone(logits, labels, 1e30 * features).isfinite()


def test_the_gradient_pulls_features_to_their_centre_and_leaves_the_centre() -> None:
    logits, labels, features = batch()
    features.requires_grad_()
    loss = create("center")
    loss.centres.normal_()
    loss(logits, labels, features).backward()
    pull = (features.detach() - loss.centres[labels]) / BATCH
    assert features.grad is not None
    assert torch.allclose(features.grad, pull)
    assert loss.centres.grad is None


def test_maps_are_averaged_to_features() -> None:
    logits, labels, features = batch()
    maps = features[:, :, None, None] + torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    loss = create("center")
    assert torch.allclose(loss(logits, labels, maps), loss(logits, labels, features), atol=1e-5)


def test_only_losses_that_use_features_ask_for_them() -> None:
    logits, labels, _ = batch()
    for name in losses.names():
        loss = create(name)
        if loss.uses_features:
            with pytest.raises(MismatchError, match=f"{WIDTH} each"):
                loss(logits, labels)
        else:
            assert loss(logits, labels).ndim == 0
            losses.update_centres(loss, torch.zeros(BATCH, WIDTH), labels)  # nothing to move


def test_wrong_names_and_numbers_are_refused_with_what_they_are() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'focal'"):
        create("focl")
    wrong: list[tuple[str, dict[str, object], str]] = [
        ("focal", {"alpha": [1.0, 2.0]}, "2 alphas for 5 classes"),
        ("focal", {"gamma": -1.0}, "-1"),
        ("focal", {"colour": 1}, "colour"),
        ("cross_entropy", {"gamma": 1.0}, "gamma"),
        ("cross_entropy", {"label_smoothing": 1.0}, "1.0"),
        ("center", {"alpha": 1.5}, "1.5"),
        ("center", {"label_smoothing": 0.1}, "smooth"),
        ("softmax+center", {"gamma": -0.1}, "-0.1"),
    ]
    for name, arguments, text in wrong:
        with pytest.raises(MismatchError, match=text):
            create(name, **arguments)
    logits, labels, _ = batch()
    with pytest.raises(MismatchError, match=r"7 features, not \(12, 6\)"):
        create("center")(logits, labels, torch.zeros(BATCH, 6))


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("cross_entropy", {"gamma": 2}, "no argument gamma; it takes none: change loss_arguments"),
        ("focal", {"alpa": 2, "x": 1}, "no argument alpa, x; it takes gamma and alpha"),
        ("center", {"classes": 3}, "no argument classes; it takes alpha"),
        ("focal", {"gamma": "2"}, "gamma takes a number of at most 1,000,000, not '2'"),
        ("focal", {"gamma": [1.0, 2.0]}, r"gamma takes a number .*, not \[1.0, 2.0\]"),
        ("focal", {"gamma": -1}, "gamma and alpha are 0 or more, not -1"),
        ("focal", {"alpha": [1.0, -1.0]}, "gamma and alpha are 0 or more"),
        ("focal", {"alpha": []}, "alpha is an empty list"),
        ("focal", {"gamma": 10**400}, "gamma takes a number of at most"),
        ("focal", {"alpha": [1.0, math.nan]}, "alpha takes numbers of at most"),
        ("focal", {"alpha": 1e200}, "alpha takes numbers of at most"),
        ("softmax+center", {"gamma": True}, "gamma takes a number .*, not True"),
    ],
)
def test_arguments_of_another_loss_are_refused_with_those_it_takes(name, arguments, text):
    with pytest.raises(MismatchError, match=text):
        losses.check(name, arguments)
    if "classes" not in arguments:
        with pytest.raises(MismatchError, match=text):
            create(name, **arguments)
