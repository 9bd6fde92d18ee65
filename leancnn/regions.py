"""Where R-MAC looks: the windows of a map, by its size alone."""

from functools import lru_cache

Window = tuple[int, int, int, int]  # first row, first column, rows, columns


@lru_cache
def rmac_windows(height: int, width: int, mode: str) -> tuple[Window, ...]:
    """The windows of one mode on one map; a window that stands twice counts twice.

    At scale l the windows are squares of side ⌊2·min(H, W)/(l+1)⌋, spread evenly from edge to edge.
    * rule: l along the short side and l + k along the long one for l = 1, 2, 3, where k makes
      neighbours at l = 1 overlap by about 40 % and is 0 for square maps; then the whole map, unless
      it is among them. 14 on a square.
    * paper21: l × (l + 1) windows for l = 1, 2, 3 on any map, then the whole map: 21, 19 of them
      distinct on a square.
    * pyramid21: l × l windows for l = 1, 2, 4, with sides in the proportion of the map: 21.
    """
    whole = (0, 0, height, width)
    short, long = min(height, width), max(height, width)
    if mode == "pyramid21":
        return tuple(
            (top, left, rows, columns)
            for level in (1, 2, 4)
            for rows, columns in [(_side(height, level), _side(width, level))]
            for top in _spread(height, rows, level)
            for left in _spread(width, columns, level)
        )
    extra = 1 if mode == "paper21" else _extra_along(short, long)
    found = [
        (top, left, side, side)
        for level in (1, 2, 3)
        for side in [_side(short, level)]
        for top in _spread(height, side, level + (extra if height > width else 0))
        for left in _spread(width, side, level + (extra if height <= width else 0))
    ]
    return tuple(found if mode == "rule" and whole in found else [*found, whole])


def _side(length: int, level: int) -> int:
    return max(1, 2 * length // (level + 1))


def _spread(length: int, side: int, windows: int) -> list[int]:
    if windows == 1:
        return [0]
    return [i * (length - side) // (windows - 1) for i in range(windows)]


def _extra_along(short: int, long: int) -> int:
    """How many more windows the long side gets: 1..6, or none on a square."""
    if short == long:
        return 0
    return min(range(1, 7), key=lambda k: abs(1 - (long - short) / (k * short) - 0.4))
