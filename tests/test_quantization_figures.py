"""What is said of a quantization and of a fine-tuning before it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn.quantization_figures import Finetuning

ONE = Finetuning(recipe="a", epochs=2.0, lr=0.0015, accuracy_int8=0.62, accuracy_int8_without=0.61)
shares = st.none() | st.floats(0, 1)


@given(shares, shares)
def test_a_finetuning_is_dropped_exactly_where_validation_is_no_better_for_it(after, without):
    one = dataclasses.replace(ONE, accuracy_int8=after, accuracy_int8_without=without)
    assert one.kept == (after is None or without is None or after > without)
    assert one.to_json()["kept"] == one.kept
    assert ("is not kept" in one.text()) != one.kept


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "trained in fake quantization by a, 2 epochs from a rate of 0.0015: 62.00% of the "
            "validation part right, without it 61.00%",
        ),
        (
            {"epochs": 1.0, "accuracy_int8": 0.6},
            "the training in fake quantization by a, 1 epoch from a rate of 0.0015, is not kept: "
            "60.00% of the validation part right, without it 61.00%",
        ),
        (
            {"accuracy_int8": None},
            "trained in fake quantization by a, 2 epochs from a rate of 0.0015; no validation part "
            "says whether it helped",
        ),
    ],
)
def test_one_sentence_says_by_what_it_was_trained_and_whether_that_is_kept(changes, sentence):
    assert dataclasses.replace(ONE, **changes).text() == sentence
