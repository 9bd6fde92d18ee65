"""Text that is safe to print, and tables."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from leancnn import tables


@given(st.text(st.characters(codec=None)))
def test_printable_text_holds_nothing_a_terminal_obeys(text):
    safe = tables.printable(text)
    assert not {unicodedata.category(char) for char in safe} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    safe.encode()


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])))
def test_printable_leaves_ordinary_text_as_it_is(text):
    assert tables.printable(text) == text


@given(st.text(), st.integers(3, 40))
def test_a_short_name_is_never_longer_than_asked(text, longest):
    assert len(tables.short(text, longest)) <= longest


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.text(st.sampled_from("ab日é\n\x1b ")),
                "n": st.integers(),
                "share": st.floats(0, 1),
            }
        ),
        min_size=1,
    )
)
def test_a_table_has_one_line_for_each_row_and_its_numbers_end_together(rows):
    lines = tables.table(rows, ["name", "n", "share"]).split("\n")
    assert len(lines) == len(rows) + 2
    assert len({tables._width(line) for line in lines[1:]}) == 1


def test_a_table_shows_the_columns_asked_for_in_their_order():
    rows = [{"a": 1, "b": True, "c": "x"}]
    assert tables.table(rows, ["c", "b"]).split() == ["c", "b", "─", "───", "x", "yes"]
    assert tables.table([]) == ""
