"""Errors: one tree, one line, and a status for each."""

import inspect
import pickle

import pytest

from leancnn import errors
from leancnn.errors import LeanCNNError, UnknownOperatorError

ALL = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if each.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_ours_and_has_a_place_in_the_tree_that_the_module_draws(error):
    assert issubclass(error, LeanCNNError)
    assert error.exit_status in (1, 2, 3, 130)
    assert f" {error.__name__} " in errors.__doc__
    drawn = [line for line in errors.__doc__.splitlines() if f" {error.__name__} " in line]
    depth = drawn[0].index(error.__name__) // 2
    assert depth == len([each for each in error.__mro__ if each.__module__ == errors.__name__])


@pytest.mark.parametrize("error", [each for each in ALL if each is not UnknownOperatorError])
def test_an_error_crosses_to_another_process_with_its_words(error):
    sent = pickle.loads(pickle.dumps(error("what, where, what to do")))
    assert (type(sent), str(sent)) == (error, "what, where, what to do")
