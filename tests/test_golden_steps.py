"""Each rule of training, a step at a time, against sums that are written out here in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leancnn import losses
from leancnn.data import Dataset, Split
from leancnn.data._augment import HOLE_COLUMN, HOLE_ROW, balanced_order, below, draw, mix_share
from leancnn.distributed import World
from leancnn.preprocess import Preprocessing
from leancnn.recipes import Recipe
from leancnn.train.history import Counters
from leancnn.train.loop import Loop
from leancnn.train.plan import TrainingPlan
from leancnn.train.state import SGD, Features, TrainState, class_weights
from leancnn.train.validation import VALIDATION_BATCH, validate
from leancnn.weights import Network

pytestmark = pytest.mark.usefixtures("one_thread")

Floats = NDArray[np.float64]
MEAN, STD, CLASSES = 0.4, 0.25, 3
PLAIN: dict[str, Any] = {
    "name": "golden",
    "source": "none: for tests",
    "network": "tiny",
    "epochs": 4,
    "batch": 4,
    "lr": 0.5,
    "schedule": "constant",
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "backend": "torch",
    "precision": "fp32",
}


class Linear(nn.Module):
    """(N, 1, 2, 2) → (N, 3): a network whose gradient fits into a line."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.flatten(1))
        return out


class Golden:
    """A training of `Linear` on four images that fit into one batch, and the same in numpy."""

    def __init__(self, folder: Path, images: int = 4, **changes: Any) -> None:
        self.recipe = Recipe(**{**PLAIN, **changes})
        random = np.random.default_rng(3)
        self.pixels = random.integers(0, 256, (images, 2, 2, 1), dtype=np.uint8)
        self.labels = np.arange(images, dtype=np.int64) % CLASSES
        split = Split(self.pixels, self.labels, [f"{row}.png" for row in range(images)])
        names = tuple(f"class {label}" for label in range(CLASSES))
        preprocessing = Preprocessing(size=(2, 2), channels=1)
        body = Linear()
        self.w = random.normal(0, 0.3, (CLASSES, 4))
        self.b = random.normal(0, 0.3, CLASSES)
        with torch.no_grad():
            body.fc.weight.copy_(torch.from_numpy(self.w))
            body.fc.bias.copy_(torch.from_numpy(self.b))
        network = Network(
            body,
            name="tiny",
            arguments={},
            classes=names,
            preprocessing=preprocessing,
            mean=(MEAN,),
            std=(STD,),
        )
        counts = tuple(np.bincount(self.labels).tolist())
        plan = TrainingPlan(
            counts=counts, data="none", data_sha256={}, val_share=0.1, classes=names,
            images=images, model="tiny",
            arguments={}, recipe=self.recipe, preprocessing=preprocessing,
            mean=(MEAN,), std=(STD,), seed=1,
            backend="torch", precision="fp32", threads=1, processes=1, machine={},
            save_every_s=60, save_every_steps=None,
        )  # fmt: skip
        loss = losses.create(
            self.recipe.loss,
            classes=CLASSES,
            features=4,
            label_smoothing=self.recipe.label_smoothing,
            class_weights=class_weights(counts) if "class_weights" in changes else None,
            **self.recipe.loss_arguments,
        )
        average = None
        if self.recipe.ema:
            average = Linear()
            average.load_state_dict(body.state_dict())
        train_state = TrainState(
            network, SGD(body, self.recipe), loss, Features(body, loss), average
        )
        world = World(0, 1, torch.device("cpu"))
        data = Dataset(name="golden", classes=names, train=split)
        self.body, self.average, self.plan = body, average, plan
        self.loop = Loop(plan, data, train_state, Counters(), folder, world)

    def rows(self, step: int) -> NDArray[np.int64]:
        return self.loop.batches.rows(step)

    def inputs(self, step: int) -> Floats:
        """(N, 4): what the network is given, without augmentation."""
        return (self.pixels[self.rows(step)].reshape(-1, 4) / 255 - MEAN) / STD

    def close(self, w: Floats, b: Floats, body: nn.Module | None = None) -> None:
        fc = (body or self.body).get_submodule("fc")
        np.testing.assert_allclose(fc.weight.detach().numpy(), w, atol=2e-6)
        np.testing.assert_allclose(fc.bias.detach().numpy(), b, atol=2e-6)


def gradient(
    w: Floats, b: Floats, x: Floats, labels: NDArray[np.int64], smoothing: float = 0.0
) -> tuple[Floats, Floats, float]:
    """Of the mean cross-entropy of softmax(x·wᵀ + b), by weight and bias, and the loss itself."""
    logits = x @ w.T + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = np.full(p.shape, smoothing / CLASSES)
    target[np.arange(len(labels)), labels] += 1 - smoothing
    error = (p - target) / len(labels)
    return error.T @ x, error.sum(0), float(-(target * np.log(p)).sum(1).mean())


def test_a_plain_step_goes_down_the_gradient_by_the_rate(tmp_path: Path) -> None:
    golden = Golden(tmp_path)
    x, labels = golden.inputs(0), golden.labels[golden.rows(0)]
    gw, gb, loss = gradient(golden.w, golden.b, x, labels)
    assert golden.loop.step(0) is False
    golden.close(golden.w - 0.5 * gw, golden.b - 0.5 * gb)
    counters = golden.loop.counters
    correct = int(((x @ golden.w.T + golden.b).argmax(1) == labels).sum())
    assert (counters.step, counters.seen, counters.correct) == (1, 4, correct)
    assert counters.loss == pytest.approx(4 * loss, abs=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_decay_and_their_groups(nesterov: bool, tmp_path: Path) -> None:
    """Weights decay, biases do not; m ← 0.9·m + g; w ← w − rate·(m or g + 0.9·m)."""
    golden = Golden(tmp_path, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    w, b = golden.w, golden.b
    mw, mb = np.zeros_like(w), np.zeros_like(b)
    for step in range(3):
        gw, gb, _ = gradient(w, b, golden.inputs(step), golden.labels[golden.rows(step)])
        gw = gw + 0.1 * w
        mw, mb = 0.9 * mw + gw, 0.9 * mb + gb
        w = w - 0.5 * (gw + 0.9 * mw if nesterov else mw)
        b = b - 0.5 * (gb + 0.9 * mb if nesterov else mb)
        golden.loop.step(step)
        golden.close(w, b)


def test_caffe_lets_the_last_bias_learn_twice_as_fast_and_not_decay(tmp_path: Path) -> None:
    golden = Golden(tmp_path, decay_on="caffe", weight_decay=0.1)
    gw, gb, _ = gradient(golden.w, golden.b, golden.inputs(0), golden.labels[golden.rows(0)])
    golden.loop.step(0)
    golden.close(golden.w - 0.5 * (gw + 0.1 * golden.w), golden.b - 2 * 0.5 * gb)


def test_smoothing_gives_every_class_its_share(tmp_path: Path) -> None:
    golden = Golden(tmp_path, label_smoothing=0.3)
    labels = golden.labels[golden.rows(0)]
    gw, gb, loss = gradient(golden.w, golden.b, golden.inputs(0), labels, smoothing=0.3)
    golden.loop.step(0)
    golden.close(golden.w - 0.5 * gw, golden.b - 0.5 * gb)
    assert golden.loop.counters.loss == pytest.approx(4 * loss, abs=1e-5)


@pytest.mark.parametrize(("clip", "bites"), [(0.05, True), (50.0, False)])
def test_clipping_shortens_the_whole_gradient_and_leaves_short_ones(
    clip: float, bites: bool, tmp_path: Path
) -> None:
    golden = Golden(tmp_path, clip=clip)
    gw, gb, _ = gradient(golden.w, golden.b, golden.inputs(0), golden.labels[golden.rows(0)])
    norm = np.sqrt((gw**2).sum() + (gb**2).sum())
    assert bool(norm > clip) is bites
    share = min(1.0, clip / (norm + 1e-6))
    golden.loop.step(0)
    golden.close(golden.w - 0.5 * share * gw, golden.b - 0.5 * share * gb)


def test_mixup_weighs_pixels_and_labels_by_the_same_share(tmp_path: Path) -> None:
    golden = Golden(tmp_path, mixup=1.0)
    for step in range(3):
        share = mix_share(1, step, step, 1.0)
        w = golden.body.fc.weight.detach().numpy().astype(float)
        b = golden.body.fc.bias.detach().numpy().astype(float)
        x, labels, other = golden.inputs(step), golden.labels[golden.rows(step)], [1, 0, 3, 2]
        mixed = share * x + (1 - share) * x[other]
        own, partner = (gradient(w, b, mixed, one) for one in (labels, labels[other]))
        assert 0.5 < share < 1
        gw, gb, loss = (share * a + (1 - share) * b for a, b in zip(own, partner, strict=True))
        before = golden.loop.counters.loss
        golden.loop.step(step)
        golden.close(w - 0.5 * gw, b - 0.5 * gb)
        assert golden.loop.counters.loss - before == pytest.approx(4 * loss, abs=1e-5)


def test_cutout_makes_a_square_black_where_the_draws_say(tmp_path: Path) -> None:
    golden = Golden(tmp_path, cutout=1)
    for step in range(3):
        rows = golden.rows(step)
        top, left = (below(draw(1, step, way, rows), 2) for way in (HOLE_ROW, HOLE_COLUMN))
        pixels = golden.pixels[rows].astype(float)[..., 0]
        pixels[np.arange(4), top, left] = 0
        expected = (pixels.reshape(4, 4) / 255 - MEAN) / STD
        given = golden.loop.batches.of(step).images.flatten(1).numpy()
        np.testing.assert_allclose(given, expected, atol=1e-6)


@pytest.mark.parametrize("ema", [0.9, 0.15])
def test_the_average_warms_up_and_then_decays_as_the_recipe_says(
    ema: float, tmp_path: Path
) -> None:
    """The decay of step s is the lesser of the recipe's and (1 + s) / (10 + s)."""
    golden = Golden(tmp_path, ema=ema)
    w, b = golden.w, golden.b
    for step, warm in enumerate((1 / 10, 2 / 11, 3 / 12, 4 / 13)):
        golden.loop.step(step)
        decay = min(ema, warm)
        fc = golden.body.fc
        w = decay * w + (1 - decay) * fc.weight.detach().numpy()
        b = decay * b + (1 - decay) * fc.bias.detach().numpy()
        golden.close(w, b, golden.average)
    assert golden.loop.train_state.tested.body is golden.average


def test_the_rate_of_a_step_is_that_of_the_share_of_the_run_before_it(tmp_path: Path) -> None:
    """One-cycle over four steps with half of them to warm up: 1 % of the peak, then ½, 1, ½."""
    golden = Golden(tmp_path, schedule="one-cycle", warmup=0.5)
    for step, rate in enumerate((0.005, 0.25, 0.5, 0.25)):
        w = golden.body.fc.weight.detach().numpy().astype(float)
        b = golden.body.fc.bias.detach().numpy().astype(float)
        gw, gb, _ = gradient(w, b, golden.inputs(step), golden.labels[golden.rows(step)])
        golden.loop.step(step)
        golden.close(w - rate * gw, b - rate * gb)


def test_the_validation_loss_is_the_mean_over_all_images(tmp_path: Path) -> None:
    """More than one batch, and the last one smaller: a mean of means would be another number."""
    golden = Golden(tmp_path, images=VALIDATION_BATCH + 37)
    split = golden.loop.dataset.of_train
    golden.body.train()
    network = golden.loop.train_state.network
    found = validate(network, golden.body, split, golden.loop.world, lambda: False)
    assert found is not None
    x = (golden.pixels.reshape(-1, 4) / 255 - MEAN) / STD
    _, _, loss = gradient(golden.w, golden.b, x, golden.labels)
    correct = ((x @ golden.w.T + golden.b).argmax(1) == golden.labels).mean()
    assert found[0] == pytest.approx(correct)
    assert found[1] == pytest.approx(loss, rel=1e-6)
    assert golden.body.training  # given back as it was
    assert validate(network, golden.body, split, golden.loop.world, lambda: True) is None
    assert validate(network, golden.body, None, golden.loop.world, lambda: False) is None


def test_an_epoch_holds_whole_batches_in_an_order_of_its_own(tmp_path: Path) -> None:
    golden = Golden(tmp_path, images=11)
    assert (golden.plan.steps_per_epoch, golden.plan.steps) == (2, 8)
    epochs = [np.concatenate([golden.rows(2 * e), golden.rows(2 * e + 1)]) for e in range(4)]
    assert all(len(set(rows.tolist())) == 8 for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 4
    assert set(np.concatenate(epochs).tolist()) == set(range(11))


def test_balanced_weights_count_an_image_by_the_rarity_of_its_class(tmp_path: Path) -> None:
    """Classes of 2, 1 and 1 images: weights of 4/6, 4/3 and 4/3, and a plain mean over images."""
    golden = Golden(tmp_path, class_weights="balanced", label_smoothing=0.1)
    assert class_weights(golden.plan.counts) == pytest.approx([2 / 3, 4 / 3, 4 / 3])
    x, labels = golden.inputs(0), golden.labels[golden.rows(0)]
    shares = np.array([2 / 3, 4 / 3, 4 / 3])[labels]
    total_w, total_b, total = np.zeros_like(golden.w), np.zeros_like(golden.b), 0.0
    for row in range(4):
        one = slice(row, row + 1)
        gw, gb, loss = gradient(golden.w, golden.b, x[one], labels[one], smoothing=0.1)
        total_w, total_b = total_w + shares[row] / 4 * gw, total_b + shares[row] / 4 * gb
        total += shares[row] * loss
    golden.loop.step(0)
    golden.close(golden.w - 0.5 * total_w, golden.b - 0.5 * total_b)
    assert golden.loop.counters.loss == pytest.approx(total, abs=1e-5)


def test_focal_loss_takes_class_weights_as_cross_entropy_does() -> None:
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 3, generator=random), torch.arange(9) % 3
    given = {"classes": 3, "features": 4, "class_weights": [0.5, 1.0, 2.0]}
    focal = losses.create("focal", **given, gamma=0.0, alpha=1.0)(logits, labels)
    plain = losses.create("cross_entropy", **given)(logits, labels)
    torch.testing.assert_close(focal, plain)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(plain, (each * torch.tensor([0.5, 1.0, 2.0])[labels]).mean())


def test_balanced_sampling_shows_each_class_as_often_and_each_coming_otherwise(
    tmp_path: Path,
) -> None:
    labels = np.array([0] * 20 + [1] * 3 + [2] * 6)
    for epoch in range(3):
        drawn = balanced_order(5, epoch, labels)
        rows = drawn % len(labels)
        assert len(set(drawn.tolist())) == len(drawn) == len(labels)
        counts = np.bincount(labels[rows])
        assert counts.max() - counts.min() <= 1
        for row in np.flatnonzero(labels == 1):
            assert abs(int((rows == row).sum()) - counts[1] / 3) < 1
    assert (balanced_order(5, 0, labels) != balanced_order(5, 1, labels)).any()
    golden = Golden(tmp_path, images=11, sampling="balanced", shift=1)
    seen = np.concatenate([golden.rows(step) for step in range(8)])
    assert np.bincount(golden.labels[seen]).min() >= 8
    assert golden.loop.batches.of(0).images.shape[0] == 4
