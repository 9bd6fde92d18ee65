"""The C file as it grows: arrays and functions written once, however many layers use them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from string import Template

import numpy as np

from leancnn.compiler.graph import Floats
from leancnn.compiler.literals import LARGE, ORDER, array, byte_array, decimals
from leancnn.compiler.values import Buffer


def identifier(name: str) -> str:
    """A name as a C identifier."""
    word = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return word if word and not word[0].isdigit() else f"_{word}"


def own(name: str) -> str:
    """A name as an identifier that neither C, its library nor our helpers have.

    Theirs are single words (`div`, `load`, `s`), capitals (`LANES`), types (`size_t`) or begin with
    an underscore; but for a few, none ends in one.
    """
    word = identifier(identifier(name)[-60:])
    word = f"n{word}" if word.startswith("_") else word
    plain = "_" in word[:-1] and not word.isupper() and not word.endswith("_t")
    return word if plain and word not in HELPERS else f"{word}_"


ALONE = re.compile(r"(\s*)\$(\w+)")


def fill(template: str, **values: object) -> str:
    """C from a template: each `$name` is its value.

    The text of a `$name` that has a line of its own is indented as the name is, but for what is of
    the preprocessor; without text the line is left out.
    """
    lines = []
    for line in template.strip("\n").splitlines():
        alone = ALONE.fullmatch(line)
        if alone is None:
            lines.append(Template(line).substitute(values))
        else:
            rows = str(values[alone[2]]).splitlines()
            lines += [row if row.startswith("#") else f"{alone[1]}{row}" for row in rows]
    return "\n".join(lines).replace("+ -", "- ")


HELPERS = {"clear_gaps", "error_function", "vf_anywhere", "vi_anywhere"}
"""What prelude.h calls its own with an underscore inside."""


@dataclass(slots=True)
class File:
    """What has been written: `calls` is the network itself, one call a kernel."""

    name: str
    arrays: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    tiles: set[tuple[str, int, int]] = field(default_factory=set)
    known: dict[object, str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    constants: int = 0  # bytes of weights and tables
    dump: int = 0  # a place in the arena for planes that nobody reads

    def fresh(self, name: str) -> str:
        """`name` as an identifier nobody has."""
        base = word = own(name)
        while word in self.used:
            count = self.used[base] = self.used[base] + 1
            word = f"{base}_n{count}"
        self.used[word] = 1
        return word

    def floats(self, name: str, values: Floats) -> str:
        """A constant array of floats, as an expression."""
        flat = np.ascontiguousarray(values, np.float32).ravel()
        key = ("f", sha256(flat.tobytes()).digest())
        if key not in self.known:
            word = self.fresh(f"{name}_weights")
            self.constants += flat.nbytes
            if len(flat) < LARGE:
                self.arrays.append(array("float", word, decimals(flat)))
            else:
                if ORDER not in self.arrays:
                    self.arrays.append(ORDER)
                self.arrays.append(byte_array(word, flat))
                word += ".f"
            self.known[key] = word
        return self.known[key]

    def integers(self, name: str, values: Sequence[int]) -> str:
        """The name of a constant array of 32-bit integers."""
        key = ("i", tuple(values))
        if key not in self.known:
            word = self.known[key] = self.fresh(name)
            self.constants += 4 * len(values)
            self.arrays.append(array("int32_t", word, [str(value) for value in values]))
        return self.known[key]

    def listed(
        self,
        kind: str,
        name: str,
        words: Sequence[str],
        size: int,
        each: str = "1",
        *,
        when: str = "",
    ) -> str:
        """The name of a constant array of so many bytes of any type, of texts; each may stand for
        `each` numbers. `when`: the line of the preprocessor under which it is there.
        """
        key = (kind, each, when, sha256("\0".join(words).encode()).digest())
        if key not in self.known:
            word = self.known[key] = self.fresh(name)
            self.constants += size
            text = array(kind, word, words, each)
            self.arrays.append(f"{when}\n{text}#endif\n" if when else text)
        return self.known[key]

    def tile(self, word: str, outputs: int, vectors: int) -> str:
        """The name of a macro of register tiles, which the file then has; see tiles.py."""
        self.tiles.add((word, outputs, vectors))
        return f"{word}_{outputs}X{vectors}"

    def clear(self, buffer: Buffer) -> None:
        """Have all of a buffer set to zero, where there are zeros around its planes."""
        if buffer.masked:
            self.calls.append(
                f"memset(s + {buffer.origin - buffer.below}, 0, {4 * buffer.size}); "
                "/* zeros around planes */"
            )

    def mask(self, height: int, width: int, pitch: int) -> str:
        """The name of a table that keeps the pixels of a line and drops the gaps."""
        length = -(-height * pitch // 16) * 16
        row = [-1] * width + [0] * (pitch - width)
        values = (row * height + [0] * length)[:length]
        return self.integers(f"keep_{height}x{width}_in_{pitch}", values)

    def function(self, name: str, comment: str, body: str) -> str:
        """The name of a function; an equal body is written once.

        `@` in it stands for the name, also at the beginning of others: `@_x1`.
        """
        if body not in self.known:
            others = set(re.findall(r"@(_\w+)", body))
            word = self.fresh(name)
            while any(word + other in self.used for other in others):
                word = self.fresh(name)
            self.known[body] = word
            self.used.update({word + other: 1 for other in others})
            self.functions.append(f"/* {comment} */\n{body.replace('@', word)}\n")
        return self.known[body]


class Places:
    """Places in the arena that a function gets, so that kernels which differ in them share it."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def at(self, place: int) -> str:
        """The parameter that stands for a place."""
        if place not in self.found:
            self.found.append(place)
        return f"at{self.found.index(place)}"

    @property
    def parameters(self) -> str:
        """What follows the others in the function's head."""
        return "".join(f", int at{i}" for i in range(len(self.found)))

    @property
    def arguments(self) -> str:
        """What follows the others in a call."""
        return "".join(f", {place}" for place in self.found)
