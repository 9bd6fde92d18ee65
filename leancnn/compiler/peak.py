"""The most multiply-adds one core can do, measured: what a kernel's speed is a share of."""

import ctypes
from importlib.resources import files

from leancnn.compiled import open_library
from leancnn.toolchain import compile_library

SUMS = 24  # independent ones, enough to hide the latency of two units
STEPS = 4000


def _source() -> str:
    prelude = (files("leancnn.compiler") / "prelude.h").read_text(encoding="utf-8")
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
