"""Registries: names bound once, with help for a misspelt one."""

import pytest

from leancnn.errors import ArgumentError, UnknownNameError
from leancnn.registry import Registry, check_file_name


def filled():
    made = Registry("engine")
    made.register("steam", 1)
    made.register("diesel", 2)
    return made


def test_a_name_is_bound_once():
    with pytest.raises(ValueError, match="two engines are named 'steam'"):
        filled().register("steam", 3)
    assert filled()["steam"] == 1


@pytest.mark.parametrize(
    ("name", "help"),
    [
        ("staem", "no engine named 'staem'; did you mean 'steam'?"),
        ("x", "there are: diesel, steam"),
    ],
)
def test_a_name_that_is_not_there_gets_the_nearest_or_all(name, help):
    with pytest.raises(UnknownNameError) as raised:
        filled()[name]
    assert help in str(raised.value)


@pytest.mark.parametrize("name", ["", "1a", "_a", "a-b", "a/b", "ä", "a" * 61, "a\n"])
def test_a_name_that_no_file_or_symbol_can_begin_with_is_refused(name):
    with pytest.raises(ArgumentError, match="a letter and up to 59 more"):
        check_file_name(name)


def test_a_name_that_files_and_symbols_can_begin_with_is_taken_as_it_is():
    assert check_file_name("henet_r3") == "henet_r3"
