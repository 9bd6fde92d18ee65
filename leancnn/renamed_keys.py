"""Keys that earlier versions wrote into JSON files, and what they are called now."""

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "against": "baselines",
    "engine": "backend",
    "engine_why": "backend_why",
    "finer": "ten_bit",
    "mended": "reconstructed",
    "notes": "warnings",
    "opened": "uses",
    "openings": "all_uses",
    "right": "correct",
    "told": "observed",
    "verdict": "conclusion",
    "verdicts": "summaries",
}
"""Of whatever file: no two kinds call different things by one of these words."""


def renamed(value: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version wrote by the words of today; the backend lanes was SIMD batches.

    >>> renamed({"engine": "lanes", "notes": ["one"], "warnings": ["two"]})
    {'backend': 'simd', 'warnings': ['one', 'two']}
    """
    found: dict[str, Any] = {}
    for key in sorted(value, key=lambda key: key not in RENAMED):  # the older first
        new = RENAMED.get(key, key)
        both = isinstance(found.get(new), list) and isinstance(value[key], list)
        found[new] = [*found[new], *value[key]] if both else value[key]
    return {**found, "backend": "simd"} if found.get("backend") == "lanes" else found


def with_preprocessing(value: Any) -> Any:
    """An object and its plan with the key of today for what 0.1 called road."""
    if not isinstance(value, dict) or not ("road" in value or "plan" in value):
        return value
    found = {"preprocessing" if key == "road" else key: item for key, item in value.items()}
    return {**found, "plan": with_preprocessing(found["plan"])} if "plan" in found else found
