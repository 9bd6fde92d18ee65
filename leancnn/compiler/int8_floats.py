"""The float layers of a network of integers: a float program of their own, in the same C file.

It has an arena behind that of the integers and is scheduled like any float program; its borders
with the integers are kernels of both. Calls of the two stand in the C file in the order of the
network: when a border's turn comes among the integers, all floats up to it are computed.
"""

import re
from dataclasses import dataclass, field

from leancnn.compiler.arena import round_up
from leancnn.compiler.borders import FromBytes, ToBytes
from leancnn.compiler.c_text import File
from leancnn.compiler.frame import template
from leancnn.compiler.graph import Graph, empty
from leancnn.compiler.int8_layout import ChannelView, Plane
from leancnn.compiler.integers import QDequantize, QFloat, QQuantize, Quantized
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.tiles import tile_macros
from leancnn.compiler.values import Buffer
from leancnn.compiler.verify import verify

ROOM = 64  # floats behind the last buffer
DEFINED = re.compile(
    r"^#define (\w+)|^typedef \w+ (\w+)|^(?:HELPER|CALLED) [\w ]+[ *](\w+)\(|^LAYER (\w+)\(",
    re.MULTILINE,
)  # by a prelude
MATH = {"INFINITY", "NAN"}  # of C's library, where there is one
FIRST = """#ifdef LANES /* of floats and of integers */
#define FLANES LANES
#endif
#ifdef REGISTERS
#define FREGISTERS REGISTERS
#endif
"""
OPEN = """/* Layers that stay in float32, their helpers with an f before their names. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#endif
"""
CLOSE = """#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
"""


class FloatPart:
    """The graph of the float layers so far, and what its values are called there."""

    def __init__(self, network: Quantized) -> None:
        image = network.values[network.image]
        self.graph = empty(image.shape if image.real else (1, 1, 1))
        self.names = {network.image: self.graph.input} if image.real else {}

    def real(self, node: QDequantize, network: Quantized, view: ChannelView) -> FromBytes:
        """The border at which bytes or sums, which lie so, become floats."""
        pixels = node.x == network.image and network.step is None
        shift = network.shift if pixels else None
        op = FromBytes(view, network.values[node.x], shift)
        self.names[node.out] = self.graph.add(op, self.graph.input, name=node.out)
        return op

    def layer(self, node: QFloat) -> None:
        """One operator."""
        inputs = [self.names[name] for name in node.xs]
        self.names[node.out] = self.graph.add(node.op, *inputs, name=node.out)

    def rounded(self, node: QQuantize, network: Quantized, out: Plane) -> ToBytes:
        """The border at which floats become bytes of a plane."""
        op = ToBytes(out, network.values[node.out])
        last = self.graph.add(op, self.names[node.x], name=f"{node.out}_border")
        self.graph.output = last  # one number, if nothing else is the answer
        return op

    def finished(self, answer: str) -> Graph:
        """All of it; the network's answer is its own where that is among floats."""
        self.graph.output = self.names.get(answer, self.graph.output)
        return self.graph


@dataclass(slots=True)
class Floats:
    """The C of the float layers: `calls` between which that of the integers stands."""

    image: Buffer
    logits: list[int]
    words: int
    """Of its arena."""
    file: File
    ends: dict[object, int]
    """How many calls a border needs, itself included."""
    done: int = 0
    asked: int = 0
    segments: list[str] = field(default_factory=list)

    def ask(self, border: object) -> None:
        """Have everything up to a border computed before the next kernel of integers."""
        self.asked = max(self.asked, self.ends[border])

    def call(self, file: File) -> None:
        """Call what was asked for and is not done yet."""
        if self.asked == self.done:
            return
        name = self.file.fresh(f"{file.name}_floats")
        calls = "\n".join(f"    {call}" for call in self.file.calls[self.done : self.asked])
        head = f"static void {name}(float *s, uint32_t *bytes)\n{{\n    (void)bytes;\n"
        self.segments.append(f"{head}{calls}\n}}\n")
        file.calls.append(f"{name}(floats(s), s);")
        self.done = self.asked

    def call_rest(self, file: File) -> None:
        """Call all that is left."""
        self.asked = len(self.file.calls)
        self.call(file)

    def source(self) -> str:
        """Helpers, tables and functions, their names apart from those of the integers."""
        prelude, file = template("prelude.h"), self.file
        text = "\n".join(
            [prelude, tile_macros(file.tiles), *file.arrays, *file.functions, *self.segments]
        )
        return OPEN + rename_identifiers(text, prelude) + CLOSE


def float_program(graph: Graph, file: File) -> Floats:
    """The float layers scheduled and written, in a file that shares its names with another."""
    planned = schedule(lower(graph))
    verify(planned)
    program = planned.program
    widest = max((buffer.stride for buffer in program.buffers), default=0)
    part = File(file.name, dump=program.arena, used=file.used)
    part.used.update({f"f{name}": 1 for name in names_of(template("prelude.h"))})
    ends: dict[object, int] = {}
    for kernel in program.kernels:
        kernel.c(part, planned.plans[kernel])
        ends[kernel.op] = len(part.calls)
    words = program.arena + widest + ROOM
    return Floats(program.image, program.logits.places(), words, part, ends)


def names_of(prelude: str) -> set[str]:
    """What a prelude defines: macros, types, helpers."""
    return {name for found in DEFINED.findall(prelude) for name in found if name} - MATH


def rename_identifiers(text: str, prelude: str) -> str:
    """C in which what the prelude defines has an f before its name."""
    named = re.compile(rf"\b({'|'.join(sorted(names_of(prelude)))})\b")
    return named.sub(lambda match: ("F" if match[1].isupper() else "f") + match[1], text)


def place_of_floats(words: int) -> str:
    """C that finds the arena of the floats behind so many words of integers."""
    return (
        "static inline float *floats(uint32_t *s)\n"
        f"{{\n    return (float *)(void *)(s + {round_up(words)});\n}}\n"
    )


def image_clear(image: Buffer) -> str:
    """C that sets the zeros around the planes of an image of floats."""
    if not image.masked:
        return ""
    return f"    memset(to + {image.origin - image.below}, 0, {4 * image.size});\n"
