"""What commands print as JSON: each kind of it is told from all others by its fields."""

import pytest

from leancnn.printed import KINDS
from leancnn.records import find
from tests.made_runs import made_bench, made_check, made_plan

NAMES = list(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_no_kind_that_is_asked_for_before_takes_all_of_another(name):
    own = KINDS[name].__required_keys__
    assert own
    before = NAMES[: NAMES.index(name)]
    assert not [other for other in before if KINDS[other].__required_keys__ <= own]


@pytest.mark.parametrize(
    ("make", "kind"), [(made_bench, "bench"), (made_check, "check"), (made_plan, "plan")]
)
def test_a_file_is_known_by_what_it_holds_and_not_by_its_name(make, kind, tmp_path):
    make(tmp_path / "x.json")
    (record,) = find(tmp_path / "x.json")
    assert record.kind == kind
