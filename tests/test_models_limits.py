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


@pytest.mark.parametrize("changes", [{"classes": 10**13}, {"channels": 10**13}])
def test_one_layer_beyond_all_memory_is_refused(changes):
    with pytest.raises(MismatchError, match=r"henet_r3 .*(too large|more memory than there is)"):
        models.create_model("henet_r3", **changes)


def test_what_torch_refuses_is_a_line_that_names_the_argument():
    with pytest.raises(MismatchError, match=r"alexnet cannot be built with dropout=3: dropout"):
        models.create_model("alexnet", dropout=3)


def test_every_network_is_far_below_the_limits():
    largest = max(models.card(name).trainable + models.card(name).frozen for name in models.names())
    assert 1.5 * largest < _limits.MOST_WEIGHTS
