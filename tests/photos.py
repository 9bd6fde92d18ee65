"""Folders of small pictures for tests."""

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, seed: int, size: tuple[int, int] = (6, 8)) -> Path:
    """A picture of noise, other for every seed; (h, w)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


def photos(root: Path, parts: tuple[str, ...] = ("train", "test"), each: int = 5) -> Path:
    """`root/<part>/<class>/<n>.png` for the classes s2 and s10; `parts` of ("",) is unsplit."""
    for place, part in enumerate(parts):
        for label, name in enumerate(("s2", "s10")):
            for number in range(each):
                seed = 10_000 * place + 1000 * label + number
                draw(root / part / name / f"{number}.png", seed)
    return root


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)
