"""A state dict as arrays, and back: what is filled in is what was taken out, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn.errors import DamagedError
from leancnn.state_arrays import fill, to_arrays

KINDS = (torch.float32, torch.float64, torch.float16, torch.int64, torch.int8, torch.uint8)


@st.composite
def states(draw):
    names = draw(st.lists(st.sampled_from("abcde"), unique=True, max_size=4))
    torch.manual_seed(draw(st.integers(0, 99)))
    shapes = st.lists(st.integers(0, 3), max_size=3)
    return {
        name: (100 * torch.rand(draw(shapes))).to(draw(st.sampled_from(KINDS))) for name in names
    }


@given(states())
def test_what_is_filled_in_is_what_was_taken_out(state):
    arrays = to_arrays(state)
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    fill(other, arrays, Path("here"))
    assert all(torch.equal(other[name], state[name]) for name in state)


@given(states(), st.sampled_from(["more", "shape", "type"]))
def test_what_does_not_fit_is_refused_and_nothing_is_changed(state, kind):
    state["w"] = torch.ones(2, 3)
    arrays = to_arrays({name: tensor + 1 for name, tensor in state.items()})
    arrays |= {
        "more": {"another": np.ones(1)},
        "shape": {"w": np.ones((3, 2), np.float32)},
        "type": {"w": np.ones((2, 3), np.float64)},
    }[kind]
    before = {name: tensor.clone() for name, tensor in state.items()}
    with pytest.raises(DamagedError, match="does not fit"):
        fill(state, arrays, Path("here"))
    assert all(torch.equal(before[name], state[name]) for name in state)
