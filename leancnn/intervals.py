"""How sure a measured share is, from the number of images behind it."""

import math

Z95 = 1.959964  # standard normal: 95 % lie within ± this


def wilson(correct: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): honest near 0 and 1, and for few images.

    >>> low, high = wilson(90, 100)
    >>> f"{low:.3f} to {high:.3f}"
    '0.826 to 0.945'
    """
    if images == 0:
        return 0.0, 1.0
    share, z2 = correct / images, Z95 * Z95
    middle = share + z2 / (2 * images)
    spread = Z95 * math.sqrt(share * (1 - share) / images + z2 / (4 * images * images))
    scale = 1 + z2 / images
    low = (middle - spread) / scale if correct else 0.0  # exactly there, whatever the rounding
    high = (middle + spread) / scale if correct < images else 1.0
    return low, high
