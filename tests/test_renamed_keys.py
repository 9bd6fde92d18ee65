"""Keys of earlier versions are read as what they are called now."""

from hypothesis import given
from hypothesis import strategies as st

from leancnn.renamed_keys import RENAMED, renamed

KEYS = st.sampled_from([*RENAMED, *RENAMED.values(), "network", "images"])
VALUES = st.dictionaries(KEYS, st.integers() | st.lists(st.integers()), max_size=8)


@given(VALUES)
def test_no_older_key_is_left_and_what_has_todays_name_wins(value):
    found = renamed(value)
    assert not RENAMED.keys() & found.keys()
    assert found.keys() == {RENAMED.get(key, key) for key in value}
    for key in found.keys() & value.keys():  # lists of both names are joined
        whole = isinstance(found[key], list) and isinstance(value[key], list)
        assert (found[key][len(found[key]) - len(value[key]) :] if whole else found[key]) == value[
            key
        ]
    assert renamed(found) == found


def test_no_name_of_today_is_an_older_one_of_something_else():
    assert not RENAMED.keys() & set(RENAMED.values())
