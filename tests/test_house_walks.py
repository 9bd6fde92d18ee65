"""The walks of docs/design.md: through how many rooms one reads to know what a verb does.

A walk is read by names: from the verb's function into each function that it names, in the rooms of
the verb's own part of the house. A class that is named is read as a whole; what is called on an
object, or found in a registry, is not followed, for the caller does not know who will answer.
"""

import ast
import re
from fnmatch import filter as filter_names
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
MOST = {"train(data)": 6, "predict(paths)": 1, "prune(path)": 18, "compile(network)": 9}
"""Rooms that a walk may pass."""
MODULES = sorted((ROOT / "leancnn").rglob("*.py"))
DEFINITIONS = ast.FunctionDef | ast.ClassDef


def listed(title):
    """The lines `verb: rooms` under a title of the walks, as lists of rooms."""
    block = re.search(rf"^{title}\n\n```\n(.*?)```", DESIGN, re.S | re.M).group(1)
    pairs = [line.split(":") for line in re.sub(r"\n +", " ", block).splitlines()]
    return {verb: [name for name in rooms.split() if name != "→"] for verb, rooms in pairs}


PASSED, ENDS, OTHERS, WORDS = map(
    listed, ("Passed:", "Ended at:", "Other ways, not taken:", "Words, not rooms to pass:")
)


def is_module(name):
    place = ROOT / "leancnn" / name
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


@cache
def tree(module):
    place = ROOT / "leancnn" / module
    file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imported(module):
    """What a name means in a module: (module, name there), or (module, "") for a whole one."""
    found = {}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leancnn"):
            source = node.module.removeprefix("leancnn").lstrip(".").replace(".", "/")
            for alias in node.names:
                whole = f"{source}/{alias.name}".lstrip("/")
                place = (whole, "") if is_module(whole) else (source, alias.name)
                found[alias.asname or alias.name] = place
    return found


@cache
def defined(module):
    """What stands at the top of a module, by name: functions, classes, and values."""
    found = {node.name: node for node in tree(module).body if isinstance(node, DEFINITIONS)}
    for node in tree(module).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id: node.value for each in targets if isinstance(each, ast.Name)}
    return found


def means(module, name):
    """Where the definition behind a name stands: (module, name), or nothing outside leancnn."""
    while name not in defined(module):
        if name not in imported(module):
            return None
        module, name = imported(module)[name]
        if not name:
            return module, ""
    return module, name


@cache
def named(module, name):
    """The definitions that one definition names where it runs, annotations left out."""
    found = set()
    for node in ast.walk(defined(module)[name]):
        there = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            there = means(module, node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whole = means(module, node.value.id)
            there = means(whole[0], node.attr) if whole and not whole[1] else None
        if there and there[1] and runs(module, there, node, defined(module)[name]):
            found.add(there)
    return found


def runs(module, there, node, within):
    """Whether naming it leads into it: a function always does, a value of another room is a word,
    and a class where it is called, it or one of its own methods."""
    definition = defined(there[0])[there[1]]
    if isinstance(definition, ast.FunctionDef):
        return True
    if not isinstance(definition, ast.ClassDef):
        return module == there[0]
    for call in ast.walk(within):
        if isinstance(call, ast.Call):
            if call.func is node:
                return module == there[0] or not is_value(definition)
            if isinstance(call.func, ast.Attribute) and call.func.value is node:
                return True
    return False


def is_value(definition):
    return any("dataclass" in ast.dump(each) for each in definition.decorator_list)


def walk(verb):
    """The rooms that a verb's walk enters, and those of them that lead on into another."""
    door = PASSED[verb][0], verb.split("(")[0]
    own = set(PASSED[verb] + ENDS.get(verb, []))
    parts = {name.split("/")[0] for name in own}
    shut = OTHERS.get(verb, []) + WORDS.get(verb, [])
    seen, entered, passed = [door], {door[0]}, set()
    for at in seen:
        for there in sorted(named(*at)):
            if there[0].split("/")[0] not in parts or any(fnmatch(there[0], way) for way in shut):
                continue
            entered.add(there[0])
            if there[0] != at[0]:
                passed.add(at[0])
            if there not in seen:
                seen.append(there)
    return entered, passed or {door[0]}


@pytest.mark.parametrize("verb", MOST)
def test_a_walk_passes_the_rooms_that_the_page_names_and_no_others(verb):
    entered, passed = walk(verb)
    assert sorted(passed) == sorted(PASSED[verb])
    assert sorted(entered - passed) == sorted(ENDS.get(verb, []))
    assert len(passed) <= MOST[verb]


def test_every_room_that_a_walk_names_is_there():
    names = {
        name for block in (PASSED, ENDS, OTHERS, WORDS) for each in block.values() for name in each
    }
    rooms = [path.relative_to(ROOT / "leancnn").with_suffix("").as_posix() for path in MODULES]
    assert not [name for name in sorted(names) if not filter_names(rooms, name)]


def test_words_are_fewer_than_rooms():
    assert all(len(words) < len(PASSED[verb]) for verb, words in WORDS.items())
