"""Widths as the authors of MobileNets round them."""


def eights(width: float) -> int:
    """The multiple of 8 nearest to `width`, at least 8 and not more than 10 % below it.

    >>> eights(0.75 * 24)
    24
    """
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near
