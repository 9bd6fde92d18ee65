"""The frame of a C file: all that stands around the layers, of floats and of integers alike."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from leancnn.compiler.c_text import File, identifier
from leancnn.compiler.emit_preprocess import Preprocess
from leancnn.compiler.graph import Shape

ENTRIES = ("run", "run_float", "class_names", "scratch_bytes", "preprocess", "preprocess_from")
"""What users call, each behind the network's name."""
PLAIN = "#define LANES 1 /* its memory is planned for plain loops */\n#define LEANCNN_NO_ARENA\n"
OWN_ARENA = """\
NULL takes an array of the file's own, and then only one thread may run; -DLEANCNN_NO_ARENA
   leaves that array out of the program."""
SOFTMAX = """
    float most = probabilities[0], sum = 0.0f;
    for (int i = 1; i < CLASSES; i++)
        if (probabilities[i] > most) most = probabilities[i];
    for (int i = 0; i < CLASSES; i++) sum += probabilities[i] = expf(probabilities[i] - most);
    for (int i = 0; i < CLASSES; i++) probabilities[i] /= sum;"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the file says about the network beside its arithmetic."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, where 0 is black and 1 is white
    std: tuple[float, ...]
    source: str = ""  # the network this was made from, in words
    version: str = ""
    about: str = ""  # JSON for whoever loads the library
    full_scale: float = 255.0  # of the input of `run`: bytes for 255, floats for 1
    logits: bool = True  # softmax makes probabilities of the answers; else they are what is wanted

    @property
    def parsed(self) -> Any:
        """`about` as JSON values; None where there is nothing."""
        return json.loads(self.about or "null")

    @property
    def preprocessing(self) -> Any:
        """From pictures to its pixels, as `Preprocessing.to_json` has it, where that is known."""
        return (self.parsed or {}).get("preprocessing")


@dataclass(frozen=True, slots=True)
class GeneratedC:
    """The two texts, and what a caller of the library must know."""

    source: str
    header: str
    prefix: str
    scratch_bytes: int
    constant_bytes: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The frame of one network, and the words in it that both kinds of program have."""

    metadata: Metadata
    file: File
    preprocess: Preprocess
    image: Shape
    """(C, H, W)."""
    pixel: str = "uint8_t"
    """The type of what `run` takes."""
    macs: int
    kind: str = ""
    """What the first line of the file says of its arithmetic."""
    about: dict[str, Any] = field(default_factory=dict)
    """More that loaders read."""
    plain: bool = False
    """Whether it is C without vectors, in an arena that the caller always gives."""

    def values(self, scratch: int, own: dict[str, object]) -> dict[str, object]:
        """What stands for the words of the templates, a program's own ones included."""
        metadata, (c, h, w) = self.metadata, self.image
        values: dict[str, object] = {
            "NAME": self.file.name,
            "CHANNELS": c,
            "HEIGHT": h,
            "WIDTH": w,
            "PIXEL": self.pixel,
            "CLASSES": len(metadata.classes),
            "SCRATCH": scratch,
            "NULL": "It is never NULL." if self.plain else OWN_ARENA,
            "ABOUT": escaped(json.dumps(self._about(scratch))),
            "NAMES": "\n".join(f'    "{escaped(name)}",' for name in metadata.classes),
            "SOFTMAX": SOFTMAX if metadata.logits else "",
            "CALLS": "\n".join(f"    {call}" for call in self.file.calls),
            **self.preprocess.values,
            **own,
        }
        values["DECLARED"] = filled(self.preprocess.header, values)
        values["PREPROCESS"] = filled(self.preprocess.source, values)
        return values

    def _about(self, scratch: int) -> dict[str, Any]:
        """What a loader of the library reads, as JSON values."""
        return {
            "name": self.metadata.name,
            "prefix": self.file.name,
            "classes": len(self.metadata.classes),
            "image": list(self.image),
            "dtype": "uint8" if self.pixel == "uint8_t" else "float32",
            "macs": self.macs,
            "scratch_bytes": scratch,
            "class_names": self.metadata.classes,
            "preprocess": self.preprocess.about,
            **self.about,
            "about": self.metadata.parsed,
        }

    def comment(self, scratch: int) -> str:
        """The comment at the top of both files."""
        metadata, (c, h, w) = self.metadata, self.image
        about = [
            f"{metadata.name}: {c}x{h}x{w} image -> {len(metadata.classes)} classes{self.kind}",
            metadata.source,
            f"{self.macs:,} multiply-accumulates, {self.file.constants:,} bytes of constants, "
            f"{scratch:,} bytes of scratch",
            f"Written by leancnn {metadata.version}; do not edit.",
        ]
        return "/* " + "\n   ".join(commented(line) for line in about if line) + "\n*/\n"

    def written(self, scratch: int, values: dict[str, object], parts: Sequence[str]) -> GeneratedC:
        """The two texts: `parts` of the source behind the comment, and the header."""
        comment, header = self.comment(scratch), filled(template("frame.h"), values)
        source = (PLAIN if self.plain else "") + comment + "\n".join(parts)
        return GeneratedC(
            source, comment + header, self.file.name, scratch, self.file.constants, self.macs
        )


def open_file(metadata: Metadata, dump: int = 0) -> File:
    """An empty file of a network, in which the names of its entries are taken."""
    prefix = identifier(metadata.name[:99])  # files are called by it
    file = File(prefix, dump=dump)
    entries = [prefix, "leancnn_about", *(f"{prefix}_{entry}" for entry in ENTRIES)]
    file.used.update(dict.fromkeys(entries, 1))
    return file


def template(name: str) -> str:
    """The text of one of the compiler's C files, with what it has from others in their places."""
    text = (files("leancnn.compiler") / name).read_text(encoding="utf-8")
    return re.sub(r"/\*@ (\w+\.h) @\*/\n", lambda match: template(match[1]), text)


def filled(text: str, values: dict[str, object]) -> str:
    """C from a template in which `@WORD@` stands for a value."""
    return re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text)


def escaped(text: str) -> str:
    """Any text inside a C string: bytes that are not plain letters as octal escapes."""
    plain = (
        set(b" !#$%&'()*+,-./:;<=>@[]^_`{|}~")
        | set(range(48, 58))
        | set(range(65, 91))
        | set(range(97, 123))
    )
    return "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode())


def commented(text: str) -> str:
    """Any text inside a C comment."""
    plain = "".join(c if c.isprintable() and c != "\\" else " " for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")
