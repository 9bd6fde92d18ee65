"""Options that were renamed: the old words work, are listed nowhere, and say what is said now."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leancnn import cli
from leancnn.commands import renew
from leancnn.commands._base import RENAMED

VERBS = cli.build_parser().verbs
TAKEN = [
    (verb, old) for verb in VERBS for old in RENAMED if RENAMED[old] in cli.options(VERBS[verb])
]


def test_each_old_word_belongs_to_a_command():
    assert {old for _, old in TAKEN} == RENAMED.keys()
    assert not RENAMED.keys() & set(RENAMED.values())


def test_no_command_lists_an_old_word():
    assert not {verb for verb in VERBS if RENAMED.keys() & set(cli.options(VERBS[verb]))}


@pytest.mark.parametrize(("verb", "old"), TAKEN)
def test_an_old_word_is_read_as_the_new_one_and_not_listed(verb, old):
    new = RENAMED[old]
    taken = cli.options(VERBS[verb])
    assert renew([old, "x"], taken) == ([new, "x"], {old: new})
    assert renew([f"{old}=x=y"], taken) == ([f"{new}=x=y"], {old: new})
    assert old not in taken
    assert f"{old} " not in VERBS[verb].format_help()


@given(st.lists(st.sampled_from([*RENAMED, *RENAMED.values(), "--", "x", "--x=1"])))
def test_nothing_but_renamed_options_changes_and_nothing_behind_two_dashes(words):
    taken = list(RENAMED.values())
    renewed, found = renew(words, taken)
    end = words.index("--") if "--" in words else len(words)
    assert renewed == [RENAMED.get(word, word) for word in words[:end]] + words[end:]
    assert found == {word: RENAMED[word] for word in words[:end] if word in RENAMED}


def test_a_word_that_another_command_took_stays_unknown(capsys):
    assert cli.main(["count", "henet_r3", "--keep", "0.5"]) == 2
    assert "'--keep' is one word too many" in capsys.readouterr().err


def test_the_answer_is_that_of_the_new_word_and_one_line_says_so(capsys):
    assert cli.main(["count", "henet_r3", "--model-arg", "repeat=5", "--json"]) == 0
    new = capsys.readouterr()
    assert cli.main(["count", "henet_r3", "--set", "repeat=5", "--json"]) == 0
    old = capsys.readouterr()
    assert json.loads(old.out) == json.loads(new.out)
    assert new.err == ""
    assert (
        old.err == "leancnn: --set is called --model-arg now; the old word goes with version 0.3\n"
    )
