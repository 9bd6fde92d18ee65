"""Programs timed on a machine of another kind, by a command that the user names.

The command is given the path of a C file with a `main`. It builds and runs it wherever that is,
alone on a core, and passes on what it prints: the seconds of one image, a line for each turn.
"""

import hashlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from leancnn.errors import RunError
from leancnn.workspaces import workspace

TURNS = 9
TURN_S = 0.05
LONGEST_S = 900  # that building and running one program may take
MOST_KEPT = 2**16  # bytes of what a command prints: its seconds are some hundred
MAIN = """
#include <stdio.h>
#include <time.h>
static double leancnn_now(void) {{
    struct timespec t;
#ifdef CLOCK_MONOTONIC /* that of the day may be set meanwhile */
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}}
int main(void) {{
    static uint8_t image[{bytes}];
    static float answer[{classes}];
    unsigned draw = 1;
    for (int i = 0; i < {bytes}; i++)
        image[i] = (uint8_t)((draw = draw * 1103515245u + 12345u) >> 16);
    {prefix}_run(image, answer, NULL);
    for (int turn = 0; turn < {turns}; turn++) {{
        double began = leancnn_now(), took;
        long calls = 0;
        do {{
            {prefix}_run(image, answer, NULL);
            calls++;
        }} while ((took = leancnn_now() - began) < {seconds});
        printf("%.9e\\n", took / (double)calls);
    }}
    return 0;
}}
"""


class Sized(Protocol):
    """What takes images of one size, and answers so many classes."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def channels(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RemoteTimer:
    """A command that times a C file."""

    command: str

    @property
    def key(self) -> str:
        """What its times hang on: the command, the folder it runs in, and the files it names."""
        digest = hashlib.sha256(f"{Path.cwd()}\0{self.command}".encode())
        with suppress(ValueError):  # a quote that is not closed: refused when it is to run
            for word in shlex.split(self.command):
                if Path(word).is_file():
                    digest.update(Path(word).read_bytes())
        return f"by {self.command} {digest.hexdigest()}"

    def seconds(self, source: str, prefix: str, image: Sized, classes: int) -> list[float]:
        """Seconds of one image, turn by turn. Raises `RunError` with what the command said."""
        height, width = image.size
        main = MAIN.format(
            prefix=prefix,
            bytes=height * width * image.channels,
            classes=classes,
            turns=TURNS,
            seconds=TURN_S,
        )
        with workspace() as folder:
            path = folder / "timed.c"
            path.write_text(source + main, encoding="utf-8")
            return self._answer(path)

    def _answer(self, path: Path) -> list[float]:
        try:
            words = [*shlex.split(self.command), str(path)]
            done = _run(words)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise RunError(self._refused(" ".join(str(error).split()))) from error
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
            raise RunError(self._refused(f"it ended with status {done.returncode}: {last[-1]}"))
        try:
            found = [float(word) for word in done.stdout.split()]
        except ValueError:
            found = []
        if not found or not all(0 < each < LONGEST_S for each in found):
            raise RunError(self._refused(f"it printed {done.stdout.strip()[:60]!r}"))
        return found

    def _refused(self, why: str) -> str:
        return (
            f"--clock-on '{self.command}': {why[:200]}; the command is given a C file, is to build "
            "it and run it on one core of the machine that counts, and to pass on the seconds that "
            "it prints"
        )


def _run(words: list[str]) -> "subprocess.CompletedProcess[str]":
    """The answer of a command, which is ended with all that it began when it takes too long or
    prints too much."""
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            out, err = _heard(process)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _heard(process: "subprocess.Popen[bytes]") -> tuple[str, str]:
    """What a command prints until it ends: its whole answer, and the end of its complaints.

    Raises `ValueError` for an answer that is longer than seconds are, `TimeoutExpired`.
    """
    until = time.monotonic() + LONGEST_S
    answer, complaints = bytearray(), bytearray()
    with selectors.DefaultSelector() as pipes:
        pipes.register(process.stdout or -1, selectors.EVENT_READ, answer)
        pipes.register(process.stderr or -1, selectors.EVENT_READ, complaints)
        while pipes.get_map():
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(process.args, LONGEST_S)
            for ready, _ in pipes.select(max(0.0, until - time.monotonic())):
                chunk = os.read(ready.fd, MOST_KEPT)
                ready.data.extend(chunk)
                if not chunk:
                    pipes.unregister(ready.fileobj)
            if len(answer) > MOST_KEPT:
                raise ValueError(f"it printed more than {MOST_KEPT:,} bytes")
            del complaints[:-MOST_KEPT]
    process.wait(max(0.0, until - time.monotonic()))
    return answer.decode(errors="replace"), complaints.decode(errors="replace")
