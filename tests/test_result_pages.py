"""Result files as tables of a page."""

import json

from leancnn.result_pages import table, tables, written

RESULT = {
    "title": "T",
    "command": "leancnn models",
    "machine": {"processor": "P", "cores": 2},
    "rows": [{"name": "a|b", "n": 1234}],
}


def test_only_the_section_of_a_page_changes_and_a_second_time_nothing(tmp_path):
    for name in ("eeg-a", "other"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**RESULT, "title": name}))
    page = "before\n<!-- tables eeg -->\nold\n<!-- /tables -->\nafter <!-- of it -->\n"
    made = written(page, tmp_path)
    assert made.startswith("before\n<!-- tables eeg -->\n**eeg-a**")
    assert made.endswith("<!-- /tables -->\nafter <!-- of it -->\n")
    assert "old" not in made
    assert "**other**" not in made
    assert written(made, tmp_path) == made


def test_a_family_without_a_page_stands_in_the_table_of_all_others(tmp_path):
    (tmp_path / "eeg-a.json").write_text(json.dumps({**RESULT, "title": "has a page"}))
    (tmp_path / "b.json").write_text(json.dumps(RESULT))
    text = tables(tmp_path)
    assert "has a page" not in text
    assert "| a\\|b | 1,234 |" in text
    assert "P, cores 2" in text
    assert tables(tmp_path, of="none") == "Nothing yet.\n"


def test_what_was_not_measured_is_a_dash_among_numbers():
    rows = [{"network": "a", "lost": 0.5}, {"network": "b", "lost": None}]
    text = table({"title": "t", "command": "c", "machine": {}, "rows": rows})
    assert "| b | – |" in text
    assert "| --- | --: |" in text
