"""Held-out scores that were computed before: a table of an hour goes on where it was stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn import cache
from leancnn.errors import LeanCNNError
from leancnn.safe_files import load_pair, save_pair
from leancnn.version import __version__


def cached(make: Callable[[], NDArray[Any]], *arrays: NDArray[Any], **facts: Any) -> NDArray[Any]:
    """What `make()` returned for these arrays and facts, from the cache where it is there.

    `facts` are all that the answer depends on beside the arrays; they must be JSON.
    """
    sha = hashlib.sha256(json.dumps([__version__, np.__version__, facts], sort_keys=True).encode())
    for array in arrays:
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    place = cache.folder() / "scores" / sha.hexdigest()[:32]
    manifest, tensors = place / "scores.json", place / "scores.safetensors"
    with contextlib.suppress(LeanCNNError, OSError):  # none yet, or damaged: compute again
        found = load_pair(manifest, tensors)[1]["scores"]
        cache.mark_used(manifest)
        return found
    made = make()
    with contextlib.suppress(LeanCNNError):  # a cache that cannot be written keeps nothing
        save_pair(manifest, tensors, {"facts": facts}, {"scores": made})
        cache.trim()
    return made
