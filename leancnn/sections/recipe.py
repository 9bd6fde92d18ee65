"""The recipes: every number of the trainings, those that differ from the defaults first."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from leancnn.recipes import Recipe
from leancnn.records import Record
from leancnn.sections._base import Block, Details, Options, Text, section, side_by_side

DEFAULTS = {
    one.name: list(one.default) if isinstance(one.default, tuple) else one.default
    for one in fields(Recipe)
    if one.default is not MISSING
} | {"loss_arguments": {}}


@section("recipe", "The recipe", place=80)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """A column for each run."""
    runs = [record for record in records if record.kind == "run"]
    if not runs:
        return []
    recipes = [_recipe(run) for run in runs]
    sources = dict.fromkeys(str(one.get("source", "")) for one in recipes)
    chosen = [
        key
        for key in dict.fromkeys(key for one in recipes for key in one)
        if key != "source" and any(one.get(key) != DEFAULTS.get(key, MISSING) for one in recipes)
    ]
    names = [run.name for run in runs]
    short = [{key: one[key] for key in chosen if key in one} for one in recipes]
    whole = [{key: value for key, value in one.items() if key != "source"} for one in recipes]
    rest = side_by_side("All fields", names, whole, what="field")
    return [
        *(Text(f"Source: {source}") for source in sources if source),
        side_by_side("What differs from the defaults", names, short, what="field"),
        Details("All fields", [rest]),
    ]


def _recipe(run: Record) -> Mapping[str, Any]:
    recipe: Mapping[str, Any] = run.value["plan"]["recipe"]
    return recipe
