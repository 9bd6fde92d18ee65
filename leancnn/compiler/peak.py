"""The most multiply-adds one core can do, measured: what a kernel's speed is a share of."""

import ctypes
from collections.abc import Sequence

from leancnn.compiled import open_library
from leancnn.compiler.frame import template
from leancnn.toolchain import FAST_FLAGS, compile_library

SUMS = 24  # independent ones, enough to hide the latency of two units
STEPS = 4000


def _source() -> str:
    prelude = template("prelude.h")
    names = [f"a{i}" for i in range(SUMS)]
    few = names[:12]
    lines = [
        "float peak(int steps, float start)\n{",
        "    vf x = splat(start), y = splat(start * 0.5f);",
        *(f"    vf {name} = splat(start + {i}.0f);" for i, name in enumerate(names)),
        "    for (int i = 0; i < steps; i++) {",
        "#if REGISTERS < 32",
        *(f"        {name} = {name} * x + y;" for name in few * 2),
        "#else",
        *(f"        {name} = {name} * x + y;" for name in names),
        "#endif",
        "    }",
        f"    return total({' + '.join(names)});",
        "}",
        "int lanes(void) { return LANES; }",
    ]
    return prelude + "\n".join(lines) + "\n"


ANEW = """
#if BYTES_WORDS == 2 && defined(__SSE2__) && defined(__GNUC__)
#define ANEW __asm__ volatile("" : "+x"(w.even), "+x"(w.odd))
#elif WORDS == 2 && defined(__SSE2__) && defined(__GNUC__)
#define ANEW __asm__ volatile("" : "+x"(w))
#elif WORDS == 2 && LANES > 1 && defined(__aarch64__)
#define ANEW __asm__ volatile("" : "+w"(w.even), "+w"(w.odd))
#else
#define ANEW
#endif
"""  # products of one pair of operands would be made once for all sums, and added alone


def _integer_source(independent: int) -> str:
    prelude = template("int8_prelude.h")
    sums = [f"a{i}" for i in range(independent)] * (SUMS // independent)
    lines = [
        ANEW,
        "int peak(int steps, const uint32_t *given, uint32_t *taken)\n{",
        "    const bytes_vx x = bytes_operand(words(given));",
        "    bytes_vw w = bytes_weights((const int32_t *)given);",
        *(f"    vi {name} = splat({i});" for i, name in enumerate(dict.fromkeys(sums))),
        "    for (int i = 0; i < steps; i++) {",
        "#if REGISTERS < 32 && WORDS == 2",
        *(f"        ANEW; {name} = bytes_dot({name}, x, w);" for name in sums[:8] * 3),
        "#elif REGISTERS < 32",
        *(f"        ANEW; {name} = bytes_dot({name}, x, w);" for name in sums[:12] * 2),
        "#else",
        *(f"        ANEW; {name} = bytes_dot({name}, x, w);" for name in sums),
        "#endif",
        "    }",
        *(f"    a0 = plus(a0, {name});" for name in list(dict.fromkeys(sums))[1:]),
        "    put(taken, quads(a0, a0, a0, a0, 0));",
        "    return (int)taken[0];",
        "}",
        "int lanes(void) { return LANES; }",
    ]
    return prelude + "\n".join(lines) + "\n"


class IntegerPeak:
    """A loop of products of bytes in registers, as int8 programs multiply them at best.

    `independent`: into how many sums, a divisor of 24; into one it is a chain, which takes as long
    as each product has to wait for the one before. Raises `MissingDependencyError` without a
    compiler.
    """

    def __init__(self, flags: Sequence[str] = FAST_FLAGS, *, independent: int = SUMS) -> None:
        source = _integer_source(independent)
        library = open_library(compile_library(source, name="int8_peak", flags=flags))
        self._run = library.peak
        self._run.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self._run.restype = ctypes.c_int
        self._words = (ctypes.c_uint32 * 64)(*range(1, 65))
        self._taken = (ctypes.c_uint32 * 64)()
        self.lanes: int = library.lanes()
        self.dots = STEPS * SUMS
        """Products of vectors of one call."""
        self.macs: int = self.dots * self.lanes * 4
        """Multiply-adds of one call."""

    def __call__(self) -> int:
        answer: int = self._run(STEPS, self._words, self._taken)
        return answer


class Peak:
    """A loop of multiply-adds in registers. Raises `MissingDependencyError` without a compiler."""

    def __init__(self) -> None:
        library = open_library(compile_library(_source(), name="peak"))
        self._run = library.peak
        self._run.argtypes = [ctypes.c_int, ctypes.c_float]
        self._run.restype = ctypes.c_float
        self.lanes: int = library.lanes()
        self.macs = STEPS * SUMS * self.lanes
        """Multiply-adds of one call."""

    def __call__(self) -> float:
        answer: float = self._run(STEPS, 0.5)
        return answer
