"""Class names: compared in one Unicode form, ordered as people count, never taken by position."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

Key = tuple[tuple[int, int, str], ...]


def nfc(name: str) -> str:
    """The composed form: "é" is one character, whichever system wrote the folder."""
    return unicodedata.normalize("NFC", name)


def natural(name: str) -> tuple[Key, str]:
    """Sort key: s2 before s10, a before B."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(
        (0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in parts if p
    ), name


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """All names once, composed, in natural order."""
    return tuple(sorted({nfc(name) for name in names}, key=natural))


def disagreements(folders: Mapping[str, Iterable[str]]) -> list[str]:
    """What is wrong between the class folders of the parts, one sentence each; [] when all agree.

    `folders` maps a part to its folder names as they stand on disk. The first part is the measure.
    """
    found: list[str] = []
    names: dict[str, set[str]] = {}
    for part, raw in folders.items():
        twins: dict[str, int] = {}
        for name in raw:
            twins[nfc(name)] = twins.get(nfc(name), 0) + 1
        found += [
            f"{part}: {count} folders are named '{name}', in different Unicode forms; merge them"
            for name, count in twins.items()
            if count > 1
        ]
        names[part] = set(twins)
    if not names:
        return found
    first, *others = names
    for part in others:
        missing, extra = names[first] - names[part], names[part] - names[first]
        for name in sorted(extra, key=natural):
            twin = next((m for m in missing if m.casefold() == name.casefold()), None)
            if twin is not None:
                found.append(f"{part} has class '{name}' where {first} has '{twin}'; rename one")
                missing -= {twin}
            else:
                found.append(f"{part} has class '{name}', which {first} does not have")
        found += [
            f"{part} lacks class '{name}' of {first}" for name in sorted(missing, key=natural)
        ]
    return found
