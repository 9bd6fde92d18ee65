"""Arguments beyond use are refused in one line, before the memory is full."""

import pytest

from leancnn import models
from leancnn.errors import MismatchError
from leancnn.models import _limits


def test_a_network_without_end_is_refused_while_it_grows(monkeypatch):
    monkeypatch.setattr(_limits, "MOST_TENSORS", 200)
    models.create_model("henet_r3")
    with pytest.raises(MismatchError, match="henet_r3 with repeat=99999999999 is too large"):
        models.create_model("henet_r3", repeat=99_999_999_999)
    models.create_model("henet_r3")  # nothing is left of the count


@pytest.mark.parametrize(
    "changes", [{"classes": 10**13}, {"channels": 10**13}, {"classes": 10**25}]
)
def test_one_layer_beyond_all_memory_is_refused(changes):
    with pytest.raises(MismatchError, match=r"henet_r3 .*(too large|more memory than there is)"):
        models.create_model("henet_r3", **changes)


def test_what_torch_refuses_is_a_line_that_names_the_argument():
    with pytest.raises(MismatchError, match=r"alexnet cannot be built with dropout=3: dropout"):
        models.create_model("alexnet", dropout=3)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("alexnet", {"dropout": float("nan")}, "dropout is a finite number, not nan"),
        ("lbmbnet32_r6", {"density": 1e-9}, r"0\.01\.\.1, not 1e-09"),
        ("rsenet", {"mid_ratio": 0.001}, "1 or more channels, not 64 → 0"),
        ("rsenet", {"widths": (64, 0)}, "above 0"),
        ("resnet20", {"repeats": 0}, "repeats of 1 or more, not 0"),
        ("resnet8", {"classes": "3"}, "classes is a whole number, not '3'"),
        ("resnet8", {"channels": 1.0}, "channels is a whole number, not 1.0"),
        ("nvmnet_g4", {"groups": 4.0}, "groups is a whole number, not 4.0"),
        ("nvmnet_g4", {"groups": True}, "groups is a whole number, not True"),
        ("rsenet", {"reduction": 100}, "64 channels needs 1 or more hidden ones, not 0"),
    ],
)
def test_arguments_that_make_no_network_are_refused(name, arguments, text):
    text = text.replace(text.split()[0], "`?" + text.split()[0] + "`?", 1)
    with pytest.raises(MismatchError, match=text):
        models.create_model(name, **arguments)


def test_every_network_is_far_below_the_limits():
    largest = max(models.card(name).trainable + models.card(name).frozen for name in models.names())
    assert 1.5 * largest < _limits.MOST_WEIGHTS
