"""Figures 8, 9 and 10: what the server does under bombs, under abuse and under overload.

    python benchmarks/serve.py bombs
    python benchmarks/serve.py abuse --seconds 600
    python benchmarks/serve.py overload --seconds 300

The server is `leancnn serve` with one worker in a process on one core, its clients are here on
another, over loopback. Each figure has a control, a server that anyone would write
(`careless_server.py`) or our own without its limit, under the same clients; it must fail, else the
harness sees nothing. Memory, files and threads are read from /proc each half second.
"""

import argparse
import asyncio
import contextlib
import io
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from bombs import bombs
from figures import publish
from http_clients import BAD, SLOW_S, Good, Seen, closing, posted, same
from PIL import Image
from served import CORES, SIZE, capacity, careless, ours, photo, share
from watched import Watched

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import leancnn  # noqa: E402
from leancnn.bench import untrained  # noqa: E402

MB = 1 << 20
BARS = {"RSS MB": 50, "p99": 3.0, "bomb MB": 64, "bomb ms": 100, "goodput": 0.9, "refusal ms": 20}
GOOD, ABUSERS = 120, 80
PARTS = 4  # of an overload
ON_TIME_S = 1.0  # an answer that comes later is of no use to anybody


# figure 8


def bombed(server: Watched, port: int) -> dict[str, Any]:
    """Every bomb once, each alone, after a few pictures that are none."""
    for _ in range(20):
        asyncio.run(closing(port, posted(photo(1), connection="close")))
    before, slowest, largest = server.memory(), 0.0, 0
    statuses: Counter[str] = Counter()
    worst = {"slow": "", "large": ""}
    for name, data in bombs().items():
        if not server.alive:
            statuses["dead"] += 1
            continue
        with contextlib.suppress(OSError):
            server.forget()
        try:
            seen = asyncio.run(closing(port, posted(data, connection="close")))
        except OSError:
            statuses["dead"] += 1
            continue
        statuses[str(seen.status or "closed")] += 1
        extra = server.peak() - before if server.alive else 0
        worst["slow"] = name if seen.seconds > slowest else worst["slow"]
        worst["large"] = name if extra > largest else worst["large"]
        slowest, largest = max(slowest, seen.seconds), max(largest, extra)
        summary = f"{seen.status}, {1000 * seen.seconds:.0f} ms, {extra / MB:.0f} MB"
        print(f"{name}: {summary}, {seen.body[:90]!r}", file=sys.stderr)
    milliseconds, megabytes = round(1000 * slowest, 1), round(largest / MB, 1)
    return {
        "bombs": statuses.total(),
        "refused (4xx)": sum(n for s, n in statuses.items() if s.startswith("4")),
        "answered (200)": statuses["200"],
        "failed": sum(n for s, n in statuses.items() if s[0] not in "42"),
        "slowest ms": milliseconds,
        "most MB more": megabytes,
        "within the bars": "yes"
        if milliseconds <= BARS["bomb ms"] and megabytes <= BARS["bomb MB"]
        else f"no: {worst['slow']}; {worst['large']}",
    }


def figure8(library: Path) -> None:
    rows = []
    with ours(library) as (server, port):
        rows.append({"server": "leancnn serve", **bombed(server, port)})
        server.forget()
        before = server.memory()
        flat = io.BytesIO()
        Image.new("RGB", (4000, 4000), "teal").save(flat, "JPEG")
        seen = asyncio.run(closing(port, posted(flat.getvalue(), connection="close")))
        most = round((server.peak() - before) / MB, 1)
    took = f"{seen.status} after {1000 * seen.seconds:.0f} ms, {most} MB more"
    note = f"a picture of 4000×4000, the most that is taken: {took}; "
    with careless(library) as (server, port):
        rows.append({"server": "control: Pillow as it comes", **bombed(server, port)})
    note += f"bars: {BARS['bomb ms']} ms and {BARS['bomb MB']} MB; peak of the process's memory"
    publish(8, "small files that would become large or slow", rows, note=note, family="serve")


# figure 9


class Crowd:
    """Good and bad clients, each asking at its own pace, and what they saw."""

    def __init__(self, port: int, pace_s: float, library: Path, seed: int = 0) -> None:
        self.port, self.pace_s, self.dice = port, pace_s, random.Random(seed)
        self.photos = [photo(seed) for seed in range(12)]
        found = [leancnn.predict(library, data)[0].to_json() for data in self.photos]
        self.expected = [one["top"] for one in found]
        self.good: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.wrong = 0
        self.bad: Counter[str] = Counter()
        self.unfit: Counter[str] = Counter()
        self.longest: dict[str, float] = {}

    async def run(self, good: int, bad: int, seconds: float) -> None:
        """So many clients for so long."""
        until = time.perf_counter() + seconds
        kinds = [list(BAD)[at % len(BAD)] for at in range(bad)]
        each = [self._good(until) for _ in range(good)]
        await asyncio.gather(*each, *(self._bad(kind, until) for kind in kinds))

    async def _good(self, until: float) -> None:
        client, due = Good(self.port), time.perf_counter() + self.dice.random() * self.pace_s
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            which = self.dice.randrange(len(self.photos))
            seen = await client.ask(self.photos[which], since=due)
            self.statuses[str(seen.status or "closed")] += 1
            if seen.status == 200:
                self.good.append(seen.seconds)
                self.wrong += not same(seen, self.expected[which])
            due += self.pace_s * self.dice.uniform(0.5, 1.5)
        client.close()

    async def _bad(self, kind: str, until: float) -> None:
        right, does = BAD[kind]
        due = time.perf_counter() + self.dice.random() * self.pace_s
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                seen = await does(self.port, self.photos[0])
            except OSError:
                seen = Seen(None, b"", 0.0)
            self.bad[kind] += 1
            fine = seen.status in right or (seen.status == 503 and seen.retry)
            late = seen.held or seen.seconds > SLOW_S
            if not fine or late:
                self.unfit[f"{kind}: {'still open' if late else seen.status}"] += 1
            self.longest[kind] = max(self.longest.get(kind, 0.0), seen.seconds)
            due = max(due + self.pace_s, time.perf_counter())


def abused(
    server: Watched, port: int, library: Path, seconds: float, rate: float
) -> dict[str, Any]:
    """Good clients alone, then with the bad ones beside, then alone again."""
    pace = GOOD / rate
    alone = Crowd(port, pace, library)
    asyncio.run(alone.run(GOOD, 0, max(seconds / 10, 10)))
    asyncio.run(Crowd(port, pace, library, 5).run(GOOD, ABUSERS, max(seconds / 10, 20)))  # warm-up
    before, first = server.memory(), len(server.samples)
    crowd = Crowd(port, pace, library, 1)
    asyncio.run(crowd.run(GOOD, ABUSERS, seconds))
    after = server.samples[first:]
    asyncio.run(alone.run(GOOD, 0, max(seconds / 10, 10)))
    quiet, loud = share(alone.good, 0.99), share(crowd.good, 0.99)
    for kind, count in crowd.bad.items():
        print(f"{kind}: {count}, longest {crowd.longest[kind]:.1f} s", file=sys.stderr)
    print(crowd.statuses, crowd.unfit, f"fds {max(s[1] for s in after)}", file=sys.stderr)
    sound = sum(crowd.statuses[s] for s in ("200", "503"))
    return {
        "good": crowd.statuses.total(),
        "answered": crowd.statuses["200"],
        "wrong": crowd.wrong,
        "503": crowd.statuses["503"],
        "other": crowd.statuses.total() - sound,
        "bad": crowd.bad.total(),
        "not treated rightly": crowd.unfit.total(),
        "alive": "yes" if server.alive else "no",
        "RSS growth MB": round((max(s[0] for s in after) - before) / MB, 1),
        "p99 ms alone": quiet,
        "p99 ms": loud,
        "p99 ratio": round(loud / quiet, 2),
    }


def figure9(library: Path, seconds: float, rate: float, controls: float) -> None:
    rows = []
    with ours(library) as (server, port):
        able = capacity(port)
        print(f"{able:.0f} pictures a second", file=sys.stderr)
        rows.append(
            {"server": "leancnn serve", **abused(server, port, library, seconds, able * rate)}
        )
    with careless(library) as (server, port):
        found = abused(server, port, library, controls, able * rate)
        rows.append({"server": "control: stock uvicorn, no limits", **found})
    note = f"{GOOD} clients with photos of {SIZE} at {rate:.0%} of capacity ({able:.0f} a second) "
    note += (
        f"and {ABUSERS} of {len(BAD)} bad kinds at the same pace, {seconds:g} s ({controls:g} s "
    )
    note += (
        f"the control); bars: p99 {BARS['p99']}×, {BARS['RSS MB']} MB, closed within {SLOW_S:g} s"
    )
    publish(
        9,
        f"{seconds / 60:g} minutes of 200 clients, two in five bad",
        rows,
        note=note,
        family="serve",
    )


# figure 10


Offered = tuple[list[float], list[float], Counter[str]]
"""Seconds of the answers, of the refusals, and the statuses."""


async def offered(port: int, rate: float, seconds: float) -> Offered:
    """Requests at their time, whether or not earlier ones are answered."""
    answered: list[float] = []
    refused: list[float] = []
    statuses: Counter[str] = Counter()
    data, dice, running = photo(3), random.Random(7), set()

    async def one(due: float) -> None:
        began = time.perf_counter()
        client = Good(port)
        try:
            async with asyncio.timeout(30):
                seen = await client.ask(data)
        except (TimeoutError, OSError):
            seen = Seen(None, b"", 0.0)
        client.close()
        ended = time.perf_counter()
        statuses[str(seen.status or "lost")] += 1
        if seen.status == 200:
            answered.append(ended - due)
        elif seen.status == 503:
            refused.append(ended - began)

    due, until = time.perf_counter(), time.perf_counter() + seconds
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(one(due))
        running.add(task)
        task.add_done_callback(running.discard)
        due += dice.expovariate(rate)
    await asyncio.gather(*running)
    return answered, refused, statuses


def overloaded(
    server: Watched,
    port: int,
    times: float,
    seconds: float,
    parts: int = 1,
    of: float | None = None,
) -> tuple[dict[str, Any], float]:
    """Figures of so many times the capacity for so long, and the capacity.

    That is measured before and after each part, for the machine's speed is not the same for long.
    `of`: another server's, of which the share is then told.
    """
    able = [capacity(port)]
    asyncio.run(offered(port, times * able[0], max(seconds / 10, 5)))  # warm-up
    before, first = server.memory(), len(server.samples)
    answered, refused, statuses = list[float](), list[float](), Counter[str]()
    for _ in range(parts):
        part = asyncio.run(offered(port, times * able[-1], seconds / parts))
        answered, refused, statuses = answered + part[0], refused + part[1], statuses + part[2]
        able.append(capacity(port))
    mean = float(np.mean(able))
    print(f"{able} pictures a second, {statuses}", file=sys.stderr)
    goodput = sum(one <= ON_TIME_S for one in answered) / seconds
    return {
        "offered a second": round(statuses.total() / seconds, 1),
        "answered within 1 s, a second": round(goodput, 1),
        "of capacity": round(goodput / (of or mean), 3),
        "p99 ms answered": share(answered, 0.99),
        "refused (503)": statuses["503"],
        "refusal ms, median": share(refused, 0.5),
        "refusal ms, p99": share(refused, 0.99),
        "other": statuses.total() - statuses["200"] - statuses["503"],
        "RSS growth MB": round((max(s[0] for s in server.samples[first:]) - before) / MB, 1),
    }, mean


def figure10(library: Path, seconds: float, times: float, controls: float) -> None:
    rows = []
    with ours(library) as (server, port):
        found, able = overloaded(server, port, times, seconds, PARTS)
        rows.append({"server": "leancnn serve", **found})
    with ours(library, "--waiting", "1000000", "--max-wait", "1000000") as (server, port):
        found, _ = overloaded(server, port, times, controls, of=able)
        rows.append({"server": "control: a queue without end", **found})
    note = (
        f"open loop, {times:g} times the capacity of {able:.0f} photos of {SIZE} a second, which "
    )
    note += f"was measured before and after each of {PARTS} parts of {seconds:g} s in all "
    note += f"({controls:g} s the control); bars: {BARS['goodput']} of capacity, "
    note += f"refusals within {BARS['refusal ms']} ms"
    publish(10, f"{times:g} times more than the server can do", rows, note=note, family="serve")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("bombs", "abuse", "overload"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--control-seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=0.3, help="of capacity, by good clients")
    parser.add_argument("--times", type=float, default=3.0, help="the capacity, in an overload")
    args = parser.parse_args()
    os.sched_setaffinity(0, {CORES[-1]})
    with tempfile.TemporaryDirectory() as folder:
        library = leancnn.compile(untrained("henet_r3"), out=folder).path
        if args.what == "bombs":
            figure8(library)
        elif args.what == "abuse":
            figure9(library, args.seconds, args.rate, args.control_seconds)
        else:
            figure10(library, args.seconds, args.times, args.control_seconds)


if __name__ == "__main__":
    main()
