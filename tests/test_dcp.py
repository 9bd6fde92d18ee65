"""DCP: the channel that tells classes apart is chosen first, and descent lowers the joint loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from leancnn import criteria
from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.criteria import Subject, dcp
from tests.test_criteria import Small, built, small, subject_of

pytestmark = pytest.mark.usefixtures("one_thread")
TELLS = 5


@torch.no_grad()
def telling() -> Subject:
    """Channel 5 of eight is the class; the others are noise, which four of six filters sum up."""
    random = torch.Generator().manual_seed(1)
    body = Small()
    first, second, fc = body.first, body.second, body.fc
    for layer in (first, second, fc):
        layer.weight.zero_()
        layer.bias.zero_()
    noise = [channel for channel in range(8) if channel != TELLS]
    first.weight[noise, 1:] = torch.rand(7, 2, 1, 1, generator=random)
    first.weight[TELLS, 0] = 1
    second.weight[0, TELLS], second.bias[0] = 0.4, 0.1
    second.weight[2:, noise] = 0.1 + 0.1 * torch.rand(4, 7, 1, 1, generator=random)
    fc.weight[1, 0], fc.bias[1] = 10, -3

    def batches(mixed: bool = False):
        labels = torch.arange(80) % 2
        images = torch.rand(80, 3, 3, 3, generator=torch.Generator().manual_seed(2))
        images[:, 0] = labels[:, None, None]
        yield from zip(images.split(32), labels.split(32), strict=True)

    body.eval()
    return Subject(body, subject_of(body, 3).dependencies, batches)


def test_the_one_channel_that_separates_the_classes_is_chosen_first(monkeypatch):
    subject = telling()
    with torch.no_grad():
        right = [(subject.body(x).argmax(1) == y).all() for x, y in subject.batches()]
    assert all(right)
    assert dcp.score(subject)["first"].argmax() == TELLS
    monkeypatch.setattr(dcp, "LAMBDA", 0.0)
    assert dcp.score(subject)["first"].argmax() != TELLS, "to answer as before is another wish"


def test_the_first_choice_is_the_largest_gradient_of_both_losses():
    subject = small(kernel=3)
    (joint, *_) = dcp._joint_losses(subject)
    assert joint.reader.path == "second"
    images = torch.cat([images for images, _ in subject.batches()])
    labels = torch.cat([labels for _, labels in subject.batches()])
    body = subject.body
    maps = F.relu(body.first(images)).detach()
    weight = torch.zeros_like(body.second.weight, requires_grad=True)
    out = F.conv2d(maps, weight, body.second.bias)
    behind = F.linear(F.relu(out).mean((2, 3)), joint.softmax.weight, joint.softmax.bias)
    loss = (out - body.second(maps).detach()).square().mean() / 2 + F.cross_entropy(behind, labels)
    loss.backward()
    pulls = weight.grad.square().sum((0, 2, 3)).sqrt()
    assert int(dcp.score(subject)["first"].argmax()) == int(pulls.argmax())
    value, grad = joint.slope(torch.zeros_like(body.second.weight))
    assert value == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(grad, weight.grad)


def test_the_weights_that_stay_descend_the_joint_loss_and_the_others_are_zero():
    subject = built("resnet8")
    keep = np.ones(subject.dependencies.coupled_count, bool)
    for group in subject.dependencies.channel_groups:
        keep[group.coupled[::2]] = False
    found = dcp.reconstruct(subject, keep)
    lower = 0
    for joint in dcp._joint_losses(subject):
        mask = joint.mask(np.flatnonzero(keep))
        before = float(joint.of(joint.whole * mask).detach())
        after = float(joint.of(found[joint.reader.path]).detach())
        assert after <= before
        lower += after < before
        assert not (found[joint.reader.path] * (1 - mask)).any()
    assert lower >= 6


def test_a_softmax_in_the_middle_tells_what_can_be_told():
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    labels = (x[:, 2] > 0).long()
    softmax = dcp._fitted(torch.cat([100 + 10 * x, torch.ones(200, 1)], 1), labels)
    logits = F.linear(
        torch.cat([100 + 10 * x, torch.ones(200, 1)], 1), softmax.weight, softmax.bias
    )
    assert (logits.argmax(1) == labels).float().mean() > 0.97


def test_it_is_a_criterion_that_reads_labels_and_reconstructs():
    member = criteria.get("dcp")
    assert member.reads == "labels"
    assert member.reconstruct is dcp.reconstruct
    assert not member.trains


def test_losses_in_the_middle_stand_by_depth_whatever_shares_channels():
    for name in ("resnet20", "shufflenet_r3"):
        network = untrained(name)
        dependencies = find_dependencies(network.body, network.preprocessing.channels)
        order = {node: at for at, node in enumerate(dependencies.graph.nodes)}
        found = dcp._points(Subject(network.body, dependencies, lambda mixed=False: iter(())))
        depths = [order[point] for point in found]
        assert depths == sorted(depths)
