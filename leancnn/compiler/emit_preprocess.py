"""C for the way from a picture of any size to the network's pixels, as training went it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

WORDS = {
    "cover": "scaled until the shorter side fits, the centre kept",
    "contain": "scaled until the longer side fits, on the background",
    "stretch": "scaled to the size, whatever its shape",
}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Templates for the C file and its header, and what their names stand for; or nothing."""

    source: str
    header: str
    values: dict[str, object]
    about: dict[str, object] | None = None
    """What somebody who writes this function again must know, as JSON values."""


def emit_preprocess(preprocessing: Mapping[str, Any] | None) -> Preprocess:
    """The function of a network whose preprocessing is known, as `Preprocessing.to_json` has it.

    It does to decoded pixels what `Preprocessing.of_array` does, bit for bit.
    """
    if (
        not isinstance(preprocessing, Mapping) or "fit" not in preprocessing
    ):  # a foreign file's, or of signals
        return Preprocess("", "", {})
    (high, wide), (height, width) = preprocessing["scale"], preprocessing["size"]
    values: dict[str, object] = {
        "HIGH": high,
        "WIDE": wide,
        "TOP": (high - height) // 2,
        "LEFT": (wide - width) // 2,
        "BACKGROUND": ", ".join(map(str, preprocessing["background"])),
        "FIT": preprocessing["fit"].upper(),
        "FITS": WORDS[preprocessing["fit"]],
    }
    folder = files("leancnn.compiler")
    source = (folder / "preprocess.c").read_text(encoding="utf-8")
    header = (folder / "preprocess.h").read_text(encoding="utf-8")
    about: dict[str, object] = {
        "fit": preprocessing["fit"],
        "filter": "triangle, antialiased: BILINEAR of Pillow, along rows, then down columns",
        "scale": [high, wide],
        "window": [values["TOP"], values["LEFT"], height, width],
        "background": list(preprocessing["background"]),
    }
    return Preprocess(source, header, values, about)
