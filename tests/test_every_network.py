"""Laws that hold for every network on the shelf; a new file in models/ is covered without an edit.

Counts run on shapes alone (torch's meta device), for every network. The rest runs on small images,
for the lightest network of each builder; its siblings and the heavy carry the mark `slow`.
"""

import inspect
import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor, fx, nn

from leancnn import models
from leancnn.count import count
from leancnn.errors import MismatchError, UnknownNameError
from leancnn.layers import LocalBinaryConv2d
from leancnn.models import Card

NAMES = [n for n in models.names() if models.builder(n).__module__.startswith("leancnn.")]
CLASSES = 5
BATCH = 4
MUCH_WEIGHT = 12_000_000  # trainable; drawing and copying more takes seconds
MUCH_WORK = 60e6  # multiply-accumulates for one image of the test's size
BIGGEST = 16  # side of a test's image, where the network takes so small a one


def of_signals(card: Card) -> bool:
    """Whether it is fed features of signals, whose sizes its card fixes: a row a class."""
    return card.image[0] not in (1, 3)


def side(card: Card) -> int:
    """Of the images that run through real numbers."""
    return max(card.smallest, min(BIGGEST, card.image[1] // 2))


def heavy(card: Card) -> bool:
    mine = models.builder(card.name)
    if any(
        other.trainable < card.trainable and models.builder(other.name) is mine
        for other in map(models.card, NAMES)
    ):
        return True
    work = card.macs * side(card) ** 2 / (card.image[1] * card.image[2])
    return card.trainable > MUCH_WEIGHT or work > MUCH_WORK


def numbers() -> list[object]:
    return [
        pytest.param(name, marks=pytest.mark.slow) if heavy(models.card(name)) else name
        for name in NAMES
    ]


def sizes(card: Card) -> dict[str, int]:
    """Classes and channels of the networks under test."""
    if of_signals(card):
        return {"classes": card.classes, "channels": card.image[0]}
    return {"classes": CLASSES, "channels": 3}


def images(card: Card, *, batch: int = BATCH, channels: int = 3) -> Tensor:
    made = torch.Generator().manual_seed(0)
    if of_signals(card):
        return torch.randn(batch, *card.image, generator=made)
    return torch.randn(batch, channels, side(card), side(card), generator=made)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=NAMES)
def flat(request: pytest.FixtureRequest) -> tuple[Card, nn.Module]:
    """A network as its card describes it, of shapes without numbers."""
    with torch.device("meta"):
        return models.card(request.param), models.create_model(request.param).eval()


@pytest.fixture(scope="module", params=numbers())
def net(request: pytest.FixtureRequest) -> tuple[Card, nn.Module]:
    card = models.card(request.param)
    return card, models.create_model(card.name, **sizes(card), seed=0)


@pytest.fixture(scope="module")
def seasoned(net: tuple[Card, nn.Module]) -> tuple[Card, nn.Module]:
    """A network whose batch norms have seen images: without, a thousand layers overflow."""
    card, model = net
    model = deepcopy(model).train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # dropout draws
        model(images(card))
    return card, model.eval()


# ---- shapes alone, every network ----


def test_costs_what_its_card_says(flat: tuple[Card, nn.Module]) -> None:
    card, model = flat
    cost = count(model, card.image)
    assert cost.trainable == card.trainable
    assert cost.macs == card.macs
    assert cost.frozen == card.frozen
    assert cost.buffers == card.buffers
    assert cost.dense >= cost.trainable


def test_costs_what_a_count_by_layers_gives(
    flat: tuple[Card, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    card, model = flat
    macs = 0

    def add(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        macs += out.numel() * layer.weight[0].numel()  # kernel × kernel × inputs of one group

    counted = (nn.Conv2d, nn.Linear, LocalBinaryConv2d)
    hooks = [
        layer.register_forward_hook(add) for layer in model.modules() if isinstance(layer, counted)
    ]
    with monkeypatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "forward", lambda _, x: x)  # slow on shapes
        model(torch.empty(1, *card.image, device="meta"))
    for hook in hooks:
        hook.remove()
    assert macs == card.macs
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert sum(2 * norm.num_features for norm in norms) == card.buffers


def test_refuses_what_it_cannot_take_and_states_the_numbers(flat: tuple[Card, nn.Module]) -> None:
    card, model = flat
    channels, size = card.image[0], card.smallest
    with pytest.raises(MismatchError, match=f"{channels} channels, not {channels + 1}"):
        model(torch.empty(1, channels + 1, size, size, device="meta"))
    with pytest.raises(MismatchError, match=rf"\({channels}, {size}, {size}\)"):
        model(torch.empty(channels, size, size, device="meta"))
    if size > 1:
        with pytest.raises(MismatchError, match=f"{size}×{size} or more, not {size}×{size - 1}"):
            model(torch.empty(1, channels, size, size - 1, device="meta"))
    for key in ("classes", "channels"):
        wrong = {key: 0}
        with pytest.raises(MismatchError, match=f"`{key}` of 1 or more, not 0"):
            models.create_model(card.name, **wrong)


def test_its_file_opens_with_its_source_and_table(name: str) -> None:
    text = sys.modules[models.builder(name).__module__].__doc__ or ""
    assert "Source: " in text
    assert "(N, classes)" in text
    assert len(models.card(name).source) > 10


def test_every_argument_has_a_default_and_a_type(name: str) -> None:
    for parameter in inspect.signature(models.builder(name)).parameters.values():
        assert parameter.default is not inspect.Parameter.empty
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


# ---- real numbers ----


def test_takes_gray_and_colour_of_several_sizes(net: tuple[Card, nn.Module]) -> None:
    card, colour = net
    if of_signals(card):
        pytest.skip("its sizes are those of its card")
    gray = models.create_model(card.name, classes=CLASSES, channels=1).eval()
    size = card.smallest
    with torch.no_grad():
        for model, channels, height, width in (
            (gray, 1, size, size),
            (colour.eval(), 3, size + 1, size + 6),
            (colour, 3, size + 9, size),
        ):
            assert model(torch.rand(2, channels, height, width)).shape == (2, CLASSES)


def test_words_it_does_not_know_are_answered_with_those_it_knows(
    net: tuple[Card, nn.Module],
) -> None:
    card, _ = net
    misspelt = {"clases": 3}
    with pytest.raises(UnknownNameError, match="did you mean 'classes'"):
        models.create_model(card.name, **misspelt)
    for key, value in models.arguments(card.name).items():
        if isinstance(value, str):
            wrong = {key: "nonsense"}
            with pytest.raises(MismatchError, match=f"{value}.*not 'nonsense'"):
                models.create_model(card.name, **wrong)


def test_groups_that_do_not_fit_are_refused_with_their_number(net: tuple[Card, nn.Module]) -> None:
    card, _ = net
    if "groups" in models.arguments(card.name):
        wrong = {"groups": 7}
        with pytest.raises(MismatchError, match="7"):
            models.create_model(card.name, **wrong)


def test_the_same_seed_gives_the_same_network_and_another_seed_another(
    net: tuple[Card, nn.Module],
) -> None:
    card, model = net
    before = torch.random.get_rng_state()
    again = models.create_model(card.name, **sizes(card), seed=0).state_dict()
    other = models.create_model(card.name, **sizes(card), seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    for key, value in model.state_dict().items():
        assert torch.equal(again[key], value)
        if value.ndim > 1:
            assert not torch.equal(other[key], value)


def test_an_image_does_not_see_its_batch(seasoned: tuple[Card, nn.Module]) -> None:
    card, model = seasoned
    model, x = deepcopy(model).double(), images(card).double()  # 1001 layers: float32 errs by 1 %
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(one) for one in x.split(1)])
    assert together.isfinite().all()
    assert (together - alone).abs().max() <= 1e-9 * together.abs().max()


def test_logits_are_the_classifier_of_the_features(seasoned: tuple[Card, nn.Module]) -> None:
    card, model = seasoned
    x = images(card, batch=2)
    with torch.no_grad():
        features = model.features(x)
        assert torch.equal(model(x), model.fc(features))
    assert features.ndim in (2, 4)
    assert model.fc.in_features == features.shape[1]
    assert model.fc.out_features == sizes(card)["classes"]


def test_saving_and_loading_give_the_same_bits(seasoned: tuple[Card, nn.Module]) -> None:
    card, model = seasoned
    copy = models.create_model(card.name, **sizes(card), seed=1).eval()
    copy.load_state_dict(model.state_dict())
    x = images(card, batch=2)
    with torch.no_grad():
        assert torch.equal(model(x), copy(x))


def test_a_symbolic_trace_gives_the_same_numbers(seasoned: tuple[Card, nn.Module]) -> None:
    card, model = seasoned
    x = images(card, batch=2)
    traced = fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(model(x), traced(x))


def test_every_trainable_weight_gets_a_gradient_and_no_frozen_one(
    net: tuple[Card, nn.Module],
) -> None:
    card, model = net
    reached: set[str] = set()
    for seed in range(4):  # a ReLU may be silent at the start, a wrong wire is silent for ever
        drawn = models.create_model(card.name, **sizes(card), seed=seed).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            logits = drawn(images(card))
        nn.functional.cross_entropy(logits, torch.arange(BATCH) % sizes(card)["classes"]).backward()
        grads = {name: weight.grad for name, weight in drawn.named_parameters()}
        assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
        reached |= {name for name, grad in grads.items() if grad is not None and grad.any()}
        if len(reached) == len(grads):
            break
    assert reached == dict(model.named_parameters()).keys()
    assert not any(buffer.requires_grad for buffer in model.buffers())
    frozen = [buffer for buffer in model.buffers() if buffer.dtype == torch.int8]
    assert sum(buffer.numel() for buffer in frozen) == card.frozen


@pytest.mark.slow
def test_export_gives_the_same_numbers(seasoned: tuple[Card, nn.Module]) -> None:
    card, model = seasoned
    x = images(card, batch=2)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        assert torch.allclose(model(x), exported(x), atol=1e-5)
