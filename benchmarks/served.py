"""The servers that serve.py measures, the photos they are sent, and what they can do at most."""

import asyncio
import contextlib
import io
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from http_clients import Good, closing
from PIL import Image
from watched import Watched

CORES = sorted(os.sched_getaffinity(0))
SIDE, SIZE = 1280, "1280×960"  # of photos


@contextlib.contextmanager
def ours(library: Path, *options: str) -> Iterator[tuple[Watched, int]]:
    """`leancnn serve` and where it listens."""
    command = [sys.executable, "-m", "leancnn", "serve", str(library), "--port", "0"]
    server = Watched([*command, "--workers", "1", *options], CORES[0])
    assert server.process.stderr is not None
    line = server.process.stderr.readline()
    try:
        yield server, int(line.split(";")[0].rsplit(":", 1)[1])
    finally:
        server.end()


@contextlib.contextmanager
def careless(library: Path) -> Iterator[tuple[Watched, int]]:
    """The control and where it listens."""
    port = random.randrange(20_000, 30_000)
    script = Path(__file__).parent / "careless_server.py"
    server = Watched([sys.executable, str(script), str(library), str(port)], CORES[0])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                asyncio.run(closing(port, b"GET / HTTP/1.0\r\n\r\n"))
                break
            time.sleep(0.1)
        yield server, port
    finally:
        server.end()


def photo(seed: int, side: int = SIDE) -> bytes:
    """A JPEG as a camera makes them: smooth, with some noise."""
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + dice.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def share(values: list[float], of: float) -> float:
    """A quantile of seconds, as milliseconds; -1 of none."""
    return round(1000 * float(np.quantile(values, of)), 1) if values else -1.0


def capacity(port: int, seconds: float = 8.0) -> float:
    """Pictures a second that four clients get who ask as fast as they are answered."""
    done, data = 0, photo(3)

    async def ask(until: float) -> None:
        nonlocal done
        client = Good(port)
        while time.perf_counter() < until:
            seen = await client.ask(data)
            done += seen.status == 200
        client.close()

    async def several() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(ask(until) for _ in range(4)))

    asyncio.run(several())
    return done / seconds
