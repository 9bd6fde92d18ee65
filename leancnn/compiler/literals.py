"""Constants as C text, exactly: small arrays as decimal numbers, large ones as strings of bytes.

A compiler keeps a string as it is, but makes an object of each number: three million numbers cost
gcc a gigabyte, the same as a string nothing. Both take about eleven characters a float.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leancnn.compiler.graph import Floats

LARGE = 16_384  # numbers from which on an array is a string
ROW = 32  # bytes a line of a string
ORDER = """#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the large arrays of this file are floats with the lowest byte first"
#endif
"""


def number(value: float) -> str:
    """A float as C writes it, exactly."""
    with np.errstate(over="ignore"):
        value = float(np.float32(value))
    if not np.isfinite(value):
        return _odd(value)
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _odd(value: float) -> str:
    return "NAN" if np.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"


def wrapped(words: Sequence[str], indent: str = "    ", width: int = 100) -> str:
    """Words with commas, in lines."""
    lines, line = [], indent
    for word in words:
        if len(line) + len(word) + 2 > width and line != indent:
            lines.append(line.rstrip())
            line = indent
        line += f"{word}, "
    return "\n".join([*lines, line.rstrip()])


def array(kind: str, name: str, words: Sequence[str], each: str = "1") -> str:
    """A constant array of numbers; floats begin a cache line, so that no vector lies in two. `each`
    is what C calls how many of them a word stands for."""
    align = "ALIGNED(64) " if kind == "float" else ""
    many = f"{len(words)} * {each}" if each != "1" else str(len(words))
    return f"static const {align}{kind} {name}[{many}] = {{\n{wrapped(words)}\n}};\n"


def decimals(values: Floats) -> list[str]:
    """Each float by the fewest digits from which C gets it back."""
    short: list[str] = values.astype(str).tolist()
    back = np.array(short, np.float64).astype(np.float32)  # as C reads them: to double, to float
    safe = ((back == values) & np.isfinite(values)).tolist()
    return [
        _trimmed(word) if same else f"{value:.9g}" if np.isfinite(value) else _odd(value)
        for word, same, value in zip(short, safe, values.tolist(), strict=True)
    ]


def _trimmed(word: str) -> str:
    if word.endswith(".0") and word != "-0.0":  # which is no integer
        return word[:-2]
    return word[1:] if word.startswith("0.") else word.replace("-0.", "-.")


def byte_array(name: str, values: Floats) -> str:
    """A constant array of floats as a string; the floats are `name.f`."""
    parts = [_quoted(values[start : start + 65_536]) for start in range(0, len(values), 65_536)]
    bytes_ = f"ALIGNED(64) char bytes[{4 * len(values) + 1}]"
    head = f"static const union {{ {bytes_}; float f[{len(values)}]; }}"
    return f"{head} {name} = {{\n{''.join(parts)}}};\n"


def _escapes() -> NDArray[np.uint8]:
    """The characters of each byte in a string, and for a following digit: (2, 256, 4), 0: none."""
    table = np.zeros((2, 256, 4), np.uint8)
    for value in range(256):
        plain = 32 <= value < 127 and chr(value) not in '"\\?'
        for digit in (0, 1):
            text = chr(value) if plain else f"\\{value:03o}" if digit else f"\\{value:o}"
            table[digit, value, : len(text)] = list(text.encode())
    return table


ESCAPES = _escapes()


def _quoted(values: Floats) -> str:
    """Lines of strings with the bytes of floats, the lowest first."""
    data = values.astype("<f4").view(np.uint8)
    rows = -(-len(data) // ROW)
    whole = np.zeros(rows * ROW, np.uint8)
    whole[: len(data)] = data
    lines = whole.reshape(rows, ROW)
    after = np.zeros_like(lines)
    after[:, :-1] = lines[:, 1:]
    digit = ((after >= ord("0")) & (after <= ord("7"))).astype(np.intp)
    text = np.zeros((rows, 4 * ROW + 3), np.uint8)
    text[:, 1 : 4 * ROW + 1] = ESCAPES[digit, lines].reshape(rows, 4 * ROW)
    text[-1, 4 * (len(data) - (rows - 1) * ROW) + 1 :] = 0
    text[:, 0] = text[:, -2] = ord('"')
    text[:, -1] = ord("\n")
    return bytes(text[text != 0]).decode("ascii")
