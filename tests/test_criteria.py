"""Criteria: laws that hold for every one on the shelf, and each against its paper by hand."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.nn import functional as F

from leancnn import criteria, models
from leancnn.channels.dependencies import find_dependencies
from leancnn.criteria import Scores, Subject, dcp, reconstruction, se_gate
from leancnn.errors import MismatchError
from leancnn.layers import LocalBinaryConv2d, SqueezeExcite

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {
    "lbmbnet32_r6": (16, {"expansion": 2, "repeats": 1}),
    "resnet8": (16, {}),
    "henet_r2": (31, {}),
}


def subject_of(body: nn.Module, size: int, *, images: int = 5, batch: int = 3) -> Subject:
    """Random images in batches of which the last is smaller."""

    def batches(mixed: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(5)
        x = torch.randn(images, 3, size, size, generator=random)
        y = torch.randint(0, 2, (images,), generator=random)
        yield from zip(x.split(batch), y.split(batch), strict=True)

    return Subject(body.eval(), find_dependencies(body, 3), batches, seed=3)


def built(name: str) -> Subject:
    """A network whose batch norms do something."""
    size, changes = NETWORKS[name]
    body = models.create_model(name, seed=1, **changes)
    random = torch.Generator().manual_seed(2)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=random)
            nn.init.normal_(module.bias, 0, 0.2, generator=random)
    return subject_of(body, size)


class Small(nn.Module):
    """Two convolutions and a classifier: (N, 3, 3, 3) → (N, 2)."""

    def __init__(self, *, kernel: int = 1, groups: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(8, 6, kernel, groups=groups)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.relu(self.norm(self.first(x))))
        return self.fc(self.pool(self.relu2(x)).flatten(1))


def small(*, images: int = 5, **changes: Any) -> Subject:
    torch.manual_seed(4)
    return subject_of(Small(**changes), 3, images=images)


# laws


@dataclass(frozen=True)
class Case:
    """A criterion that has scored a network, and what the network was before."""

    criterion: criteria.Criterion
    subject: Subject
    before: dict[str, Any]
    scores: Scores


def traces(body: nn.Module) -> dict[str, Any]:
    """All that a criterion must not change."""
    return {
        "state": {name: t.numpy().tobytes() for name, t in body.state_dict().items()},
        "modes": [module.training for module in body.modules()],
        "trained": [p.requires_grad for p in body.parameters()],
        "gradients": [p.grad for p in body.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in body.modules()],
        "random": torch.get_rng_state().numpy().tobytes(),
    }


@pytest.fixture(scope="module", params=product(criteria.names(), NETWORKS), ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    """No scores where the criterion refuses the network."""
    name, network = request.param
    torch.set_num_threads(1)
    dcp.CHOICES = 2  # fewer handfuls, the same laws
    subject, criterion = built(network), criteria.get(name)
    if criterion.reads == "weights":
        subject = replace(subject, batches=forbidden)
    before = traces(subject.body)
    try:
        scores = criterion.score(subject)
    except MismatchError:
        assert network != "lbmbnet32_r6", "it has gates, norms and all"
        scores = {}
    return Case(criterion, subject, before, scores)


def forbidden() -> Iterator[tuple[Tensor, Tensor]]:
    raise AssertionError("this criterion said that it reads weights only")


def test_every_channel_of_a_scored_layer_has_one_finite_number(case: Case) -> None:
    for path, scores in case.scores.items():
        assert scores.dtype == np.float64
        assert scores.shape == case.subject.dependencies.writes[path].shape
        assert np.isfinite(scores).all()
        assert case.subject.dependencies.group_of(path) is not None
        assert len(np.unique(scores)) > 1, path


def test_the_network_is_left_as_it_was(case: Case) -> None:
    assert traces(case.subject.body) == case.before


def test_the_same_seed_gives_the_same_scores(case: Case) -> None:
    if case.scores:
        again = case.criterion.score(case.subject)
        assert again.keys() == case.scores.keys()
        assert all(np.array_equal(again[path], scores) for path, scores in case.scores.items())


def test_a_dead_channel_is_worth_least(case: Case) -> None:
    if case.criterion.name in ("random", "csgd", "autoslim") or not case.scores:
        return
    subject = replace(case.subject, body=copy.deepcopy(case.subject.body))
    dead = [
        int(channel_group.coupled[len(channel_group.coupled) // 2])
        for channel_group in subject.dependencies.channel_groups
    ]
    kill(subject, dead)
    for path, scores in case.criterion.score(subject).items():
        silent = np.isin(subject.dependencies.writes[path], dead)
        assert scores[silent].max() <= scores[~silent].min(), path


@torch.no_grad()
def kill(subject: Subject, coupled: list[int]) -> None:
    """Zero filters, scales, shifts and whatever reads them; gates shut."""
    gates = [p for p, m in subject.body.named_modules() if isinstance(m, SqueezeExcite)]
    for path, row in subject.dependencies.writes.items():
        module, dead = subject.body.get_submodule(path), torch.from_numpy(np.isin(row, coupled))
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.weight[dead] = 0
            if module.bias is not None:
                module.bias[dead] = -20 if path.removesuffix(".expand") in gates else 0
    for path, row in subject.dependencies.reads.items():
        module = subject.body.get_submodule(path)
        groups = getattr(module, "groups", 1)
        dead = torch.from_numpy(np.isin(row, coupled)).view(groups, -1)
        for weight, silent in zip(module.weight.chunk(groups), dead, strict=True):
            weight[:, silent] = 0


@pytest.mark.parametrize("name", criteria.names())
def test_a_network_that_cannot_be_scored_is_told_who_can(name: str) -> None:
    subject = small()
    try:
        assert criteria.get(name).score(subject)
    except MismatchError as error:
        named = [other for other in criteria.names() if other in str(error).split("; ")[-1]]
        assert named
        assert all(criteria.get(other).score(subject) for other in named)


def test_the_page_has_a_row_for_every_criterion() -> None:
    page = (Path(__file__).parent.parent / "docs" / "criteria.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    rows = {row[1].strip("`"): row[3] for row in cells if row[1:] and row[1].startswith("`")}
    assert rows == {name: criteria.get(name).reads for name in criteria.names()}


# each by hand


def test_l1_sums_absolute_weights() -> None:
    subject = small()
    weight = subject.body.get_submodule("second").weight.detach()
    found = criteria.get("l1").score(subject)
    assert found["first"].shape == (8,)
    np.testing.assert_allclose(found["second"], weight.abs().sum((1, 2, 3)), rtol=1e-6)


def test_se_gate_is_the_mean_over_all_images() -> None:
    subject = built("lbmbnet32_r6")
    gate = subject.body.get_submodule("blocks.1.gate")
    found: list[Tensor] = []
    handle = gate.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    with torch.no_grad():
        for images, _ in subject.batches():
            subject.body(images)
        handle.remove()
        squeezed = torch.cat(found).mean((2, 3))
        expected = gate.gate(gate.expand(gate.act(gate.reduce(squeezed)))).mean(0)
    scores = se_gate.score(subject)
    np.testing.assert_allclose(scores["blocks.1.gate.gate"], expected, rtol=1e-5)
    assert subject.observed["gates"] == se_gate.distribution(subject)
    shown = json.loads(json.dumps(se_gate.distribution(subject, bins=10)))
    assert list(shown) == [f"{path}.gate.gate" for path in ("stage0", *block_paths(subject))]
    np.testing.assert_array_equal(shown["blocks.1.gate.gate"]["mean"], scores["blocks.1.gate.gate"])
    for values in shown.values():
        assert sum(values["counts"]) == 5 * len(values["mean"])
        assert len(values["edges"]) == len(values["counts"]) + 1 == 11


def block_paths(subject: Subject) -> list[str]:
    return [f"blocks.{index}" for index in range(len(subject.body.get_submodule("blocks")))]


def test_bn_scale_is_the_size_of_gamma() -> None:
    subject = small(norm=True)
    norm = subject.body.get_submodule("norm")
    nn.init.normal_(norm.weight)
    found = criteria.get("bn_scale").score(subject)
    assert list(found) == ["norm"]
    np.testing.assert_allclose(found["norm"], norm.weight.detach().abs(), rtol=1e-6)


def test_fpgm_sums_distances() -> None:
    subject = built("resnet8")
    found = criteria.get("fpgm").score(subject)
    for path, scores in found.items():
        filters = subject.body.get_submodule(path).weight.detach().flatten(1)
        np.testing.assert_allclose(scores, cdist(filters, filters).sum(1), rtol=1e-5)


def test_taylor_is_activation_times_gradient() -> None:
    subject = small(norm=True)
    body, sums = subject.body, np.zeros(8)
    for images, labels in subject.batches():
        for image, label in zip(images, labels, strict=True):
            z = F.relu(body.norm(body.first(image[None])))
            logits = body.fc(F.relu(body.second(z)).mean((2, 3)))
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, label[None]), z)
            sums += (slope * z).mean((0, 2, 3)).abs().detach().numpy()
    found = criteria.get("taylor").score(subject)
    np.testing.assert_allclose(found["first"], sums / np.linalg.norm(sums), rtol=1e-4)
    assert list(found) == ["first", "second"]


def test_nisp_hands_importance_back_through_absolute_weights() -> None:
    subject = small()
    weights = {path: m.weight.detach().double() for path, m in parts(subject.body).items()}
    second = weights["fc"].abs().T @ torch.ones(2, dtype=torch.float64)
    first = weights["second"].abs().sum((2, 3)).T @ second
    found = criteria.get("nisp").score(subject)
    np.testing.assert_allclose(found["second"], second / second.mean())
    np.testing.assert_allclose(found["first"], first / first.mean())


def parts(body: nn.Module) -> dict[str, nn.Module]:
    return {path: m for path, m in body.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def test_gate_decorator_is_the_factor_times_its_gradient() -> None:
    subject = small(norm=True, images=3)  # one batch: the factors have not moved yet
    body = subject.body
    ((images, labels),) = subject.batches()
    z = body.norm(body.first(images))
    logits = body.fc(F.relu(body.second(F.relu(z))).mean((2, 3)))
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, labels), z)
    found = criteria.get("gate_decorator").score(subject)
    expected = (slope * z).sum((0, 2, 3)).abs().detach()
    np.testing.assert_allclose(found["norm"], expected, rtol=1e-4, atol=1e-7)


def test_gate_decorator_lets_the_classifier_learn_whatever_it_is_called() -> None:
    class Named(Small):
        """Small, with another name for its last layer."""

        def __init__(self) -> None:
            super().__init__(norm=True)
            self.head = self.fc
            del self.fc

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.relu(self.norm(self.first(x))))
            return self.head(self.pool(self.relu2(x)).flatten(1))

    torch.manual_seed(4)
    named = subject_of(Named(), 3, images=40)  # several batches: the classifier has moved
    score = criteria.get("gate_decorator").score
    assert np.array_equal(score(named)["norm"], score(small(norm=True, images=40))["norm"])


def test_gate_decorator_lets_norms_of_a_shortcut_share_a_factor() -> None:
    subject = built("resnet8")
    found = criteria.get("gate_decorator").score(subject)
    writes = subject.dependencies.writes
    tied = [path for path in found if np.array_equal(writes[path], writes["bn1"])]
    assert tied == ["bn1", "blocks.0.bn2"]
    np.testing.assert_array_equal(found["bn1"], found["blocks.0.bn2"])


def test_thinet_takes_out_what_changes_the_next_layer_least() -> None:
    subject = small(kernel=3)  # one output pixel: every sample is the whole answer
    body, images = subject.body, torch.cat([images for images, _ in subject.batches()])
    with torch.no_grad():
        maps = F.relu(body.first(images))

        def change(out: list[int]) -> float:
            kept = maps.clone()
            kept[:, out] = 0
            return float((body.second(maps) - body.second(kept)).square().sum())

        order: list[int] = []
        while len(order) < 8:
            left = [channel for channel in range(8) if channel not in order]
            order.append(min(left, key=lambda channel: change([*order, channel])))
    found = reconstruction.score(subject)["first"]
    assert np.argsort(found).tolist() == order
    assert sorted(found) == [place / 8 for place in range(1, 9)]


@pytest.mark.parametrize("groups", [1, 2])
def test_reconstruction_is_the_least_squares_fit(groups: int) -> None:
    subject = small(kernel=3, groups=groups, images=300)
    keep = np.ones(subject.dependencies.coupled_count, bool)
    keep[subject.dependencies.writes["first"][[0, 5]]] = False
    body = subject.body
    reconstructed = reconstruction.reconstruct(subject, keep)
    assert list(reconstructed) == ["second"]
    assert reconstructed["second"].shape == body.second.weight.shape
    with torch.no_grad():
        maps = F.relu(body.first(torch.cat([images for images, _ in subject.batches()])))
        kept = maps.clone()
        kept[:, [0, 5]] = 0
        whole, cut = body.second(maps), body.second(kept)
        body.second.weight.copy_(reconstructed["second"])
        again = body.second(kept)
    patches = kept.flatten(1).double().chunk(groups, 1)
    aims = (whole - body.second.bias[:, None, None]).detach().flatten(1).double().chunk(groups, 1)
    best = sum(
        (p @ torch.linalg.lstsq(p, y, driver="gelsd").solution - y).square().sum()
        for p, y in zip(patches, aims, strict=True)
    )
    error = (whole - again).square().sum()
    assert error < 0.7 * (whole - cut).square().sum()
    assert error == pytest.approx(float(best), rel=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_reconstructed_weights_are_zero_where_inputs_go_and_only_there(name: str) -> None:
    subject = built(name)
    keep = np.ones(subject.dependencies.coupled_count, bool)
    keep[[group.coupled[0] for group in subject.dependencies.channel_groups]] = False
    fitted = reconstruction.reconstruct(subject, keep)
    assert fitted
    for path, weight in fitted.items():
        module = subject.body.get_submodule(path)
        assert weight.shape == module.weight.shape
        groups = getattr(module, "groups", 1)
        stay = torch.from_numpy(keep[subject.dependencies.reads[path]]).view(groups, -1)
        for rows, kept in zip(weight.chunk(groups), stay, strict=True):
            assert not rows[:, ~kept].any()
            assert rows[:, kept].any() == kept.any()
    assert not any(isinstance(subject.body.get_submodule(p), LocalBinaryConv2d) for p in fitted)


def test_little_memory_costs_passes_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = built("resnet8")
    whole = reconstruction.score(subject)
    monkeypatch.setattr(reconstruction, "BYTES", 1)
    small_steps = reconstruction.score(subject)
    assert all(np.array_equal(whole[path], small_steps[path]) for path in whole)


def test_nisp_reads_through_a_flattening() -> None:
    body = nn.Sequential()
    body.add_module("conv", nn.Conv2d(3, 4, 3))
    body.add_module("flat", nn.Flatten())
    body.add_module("fc", nn.Linear(4 * 36, 2))
    found = criteria.get("nisp").score(subject_of(body, 8))["conv"]
    per_channel = body.fc.weight.detach().double().abs().view(2, 4, 36).sum((0, 2))
    assert np.allclose(found, (per_channel / per_channel.mean()).numpy())
