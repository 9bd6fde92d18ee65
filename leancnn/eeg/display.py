"""What a terminal shows of a decision: one big letter, bars, the state of the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.eeg.live import Decision
from leancnn.tables import printable

GLYPHS = {  # 5 × 5, a row a word
    "A": ".###. #...# ##### #...# #...#",
    "B": "####. #...# ####. #...# ####.",
    "C": ".#### #.... #.... #.... .####",
    "D": "####. #...# #...# #...# ####.",
    "E": "##### #.... ####. #.... #####",
    "F": "##### #.... ####. #.... #....",
    "G": ".#### #.... #..## #...# .####",
    "H": "#...# #...# ##### #...# #...#",
    "I": "##### ..#.. ..#.. ..#.. #####",
    "J": "..### ...#. ...#. #..#. .##..",
    "K": "#...# #..#. ###.. #..#. #...#",
    "L": "#.... #.... #.... #.... #####",
    "?": ".###. #...# ..##. ..... ..#..",
}
LETTERS = "ABCDEFGHIJKL"
BAR = 24  # characters of a probability of 1


def letter(choice: int | None) -> str:
    """The letter of a candidate; a question mark for no decision."""
    return "?" if choice is None else LETTERS[choice % len(LETTERS)]


def big(choice: int | None) -> list[str]:
    """The letter as five lines of blocks."""
    return [row.replace("#", "██").replace(".", "  ") for row in GLYPHS[letter(choice)].split()]


def panel(
    decision: Decision, frequencies: Sequence[float], channels: Sequence[str], lost: int
) -> str:
    """The letter, a bar for each candidate, and what is odd about the signal."""
    right = []
    for place, hz in enumerate(frequencies):
        share = 0.0 if decision.probabilities is None else float(decision.probabilities[place])
        bar = "█" * round(BAR * share)
        right.append(f"{letter(place)} {hz:6.2f} Hz {share:5.2f} {bar}")
    if decision.reason:
        right.append(f"no decision: {decision.reason}")
    right += quality(decision, channels, lost)
    left = big(decision.choice)
    height = max(len(left), len(right))
    left += [" " * 10] * (height - len(left))
    right += [""] * (height - len(right))
    return "\n".join(f"{a}   {b}".rstrip() for a, b in zip(left, right, strict=True))


def quality(decision: Decision, channels: Sequence[str], lost: int) -> list[str]:
    """What is odd about the signal, a line each; nothing of a good one."""
    warnings = []
    if decision.unused:
        names = ", ".join(printable(channels[place]) for place in decision.unused)
        warnings.append(f"left out: {names}")
    if lost:
        warnings.append(f"lost samples: {lost}")
    return warnings


def facts(value: Mapping[str, Any]) -> str:
    """An account for people, a line a fact.

    >>> print(facts({"lost": 0, "latency ms": {"p50": 2.5, "max": 9.0}, "no decision": {}}))
    lost: 0
    latency ms: p50 2.5, max 9.0
    no decision: none
    """
    return "\n".join(f"{key}: {_words(one)}" for key, one in value.items())


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "not known" if value is None else str(value)


def line(decision: Decision, frequencies: Sequence[float], fs: float) -> str:
    """A decision in one line, where there is no terminal."""
    at = f"{decision.sample / fs:9.2f} s"
    if decision.choice is None:
        return f"{at}  no decision: {decision.reason}"
    assert decision.probabilities is not None
    sure = float(decision.probabilities[decision.choice])
    text = f"{at}  {letter(decision.choice)} {frequencies[decision.choice]:g} Hz  {sure:.2f}"
    if decision.asked:
        text += f"  asked {decision.asked:g} Hz"
    return text
