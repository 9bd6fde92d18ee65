"""C source to a shared library with the compiler at hand, cached by what went into it."""

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from leancnn import cache as kept
from leancnn.errors import CompileError, DamagedError, MissingDependencyError, WriteError
from leancnn.safe_files import TAIL, atomic_write, check_library, sign_library
from leancnn.workspaces import workspace

CANDIDATES = ("cc", "gcc", "clang")
PORTABLE_FLAGS = ("-std=c11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
"""Not -ffast-math: with it gcc before 13 switches subnormals off in the whole process."""
FAST_FLAGS = (*PORTABLE_FLAGS, "-march=native")


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler that answered: the words that start it and what it calls itself."""

    command: tuple[str, ...]
    version: str


@cache
def find_compiler() -> Compiler:
    """The compiler named by $CC, else cc, gcc or clang on the path, else the ziglang package.

    Raises `MissingDependencyError` when there is none.
    """
    named = os.environ.get("CC")
    commands = [tuple(shlex.split(named))] if named else []
    commands += [(path,) for name in CANDIDATES if (path := shutil.which(name))]
    if find_spec("ziglang"):
        commands.append((sys.executable, "-P", "-m", "ziglang", "cc"))
    for command in commands:
        try:
            answer = subprocess.run(
                [*command, "--version"], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return Compiler(command, (answer.stdout.splitlines() or ["unknown"])[0])
    raise MissingDependencyError(
        "no C compiler found; install gcc or clang, or: pip install ziglang"
    )


@cache
def processor() -> str:
    """The name and instruction sets of this machine's processor, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "isa")
    return (
        "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
        or platform.machine()
    )


def compile_library(source: str, *, name: str, flags: Sequence[str] = FAST_FLAGS) -> Path:
    """Compile C text into a shared library and return its path; an equal call only finds it.

    `name` begins the file's name, with 60 letters at most; the rest is a hash of source, flags,
    compiler and processor. Its digest stands at its end: one that is damaged is thrown away and
    built again. Two processes may build the same library at once: each writes a file of its own and
    renames it into place. Raises `MissingDependencyError` without a compiler,
    `CompileError` with the first complaint of one that refuses the source, `WriteError` when the
    cache cannot be written.
    """
    built = [*flags, "-shared", "-fPIC"]
    return _cached(source, name, ".so", built, find_compiler(), processor(), "-lm")


def _cached(
    source: str,
    name: str,
    suffix: str,
    flags: Sequence[str],
    compiler: Compiler,
    machine: str,
    *libraries: str,
) -> Path:
    parts = (source, *flags, *compiler.command, compiler.version, machine)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    name = name[:60]
    target = kept.folder() / "native" / f"{name}-{key}{suffix}"
    with contextlib.suppress(DamagedError, FileNotFoundError):
        check_library(target, signed=True)
        kept.mark_used(target)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with workspace(target.parent) as work:
            text, built = work / f"{name}.c", work / f"{name}{suffix}"
            text.write_text(source, encoding="utf-8")
            run_compiler([*flags, "-o", str(built), str(text), *libraries], compiler)
            library = built.read_bytes()
    except OSError as error:
        raise WriteError(
            f"{target}: {error.strerror or error}; set LEANCNN_CACHE to a writable folder"
        ) from error
    _keep(target, sign_library(library))
    return target


def _keep(target: Path, library: bytes) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)  # whatever it is, it is in our way
    try:
        atomic_write(target, library)
    except WriteError as error:
        raise WriteError(f"{error}; LEANCNN_CACHE names the folder") from error
    kept.trim()


@cache
def find_cross_compiler() -> Compiler:
    """Clang for other machines: the ziglang package, which brings their C libraries along.

    Raises `MissingDependencyError` without it.
    """
    if not find_spec("ziglang"):
        raise MissingDependencyError(
            "building for other machines needs ziglang; pip install 'leancnn[web]'"
        )
    command = (sys.executable, "-P", "-m", "ziglang", "cc")
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    return Compiler(command, (done.stdout.splitlines() or ["unknown"])[0])


def cross_compile(source: str, *, name: str, suffix: str, flags: Sequence[str]) -> bytes:
    """Compile C text for another machine, such as `-target wasm32-wasi`, once; what was built.

    `flags` say the target and what becomes of it. Raises `MissingDependencyError` without ziglang,
    `CompileError`, `WriteError`.
    """
    path = _cached(source, name, suffix, flags, find_cross_compiler(), "")
    return check_library(path, signed=True)[0][:-TAIL]


def run_compiler(arguments: Sequence[str], compiler: Compiler | None = None) -> None:
    """Run the compiler once. Raises `CompileError` with the first error it prints."""
    command = (compiler or find_compiler()).command
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        first = next(
            (line for line in lines if "error" in line), lines[0] if lines else "no message"
        )
        raise CompileError(f"{Path(command[0]).name} failed: {first.strip()}")
