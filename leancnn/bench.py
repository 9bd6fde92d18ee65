"""Latency at batch 1 on one pinned core: engines side by side, measured honestly.

Each engine runs in a process of its own, with one thread; the engines take turns in rounds, so that
what disturbs the machine disturbs all, and only turns of one round are set in proportion. Outputs
are compared with PyTorch's before anything is timed, and a fixed loop of multiply-adds in registers
has a turn in each round: speed as a share of it means the same on another day.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn import models
from leancnn.count import count
from leancnn.errors import (
    LeanCNNError,
    MismatchError,
    MissingDependencyError,
    UnknownNameError,
)
from leancnn.export import difference, probabilities_apart, trial_images, writer
from leancnn.preprocess import Road
from leancnn.process import Memory
from leancnn.targets import targets
from leancnn.toolchain import compile_library
from leancnn.weights import Network

ENGINES = {
    "torch": "torch",
    "torch-compile": "torch-compile",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "litert": "litert",
    "c": "c",
}
"""Engine to the target whose artifact it runs."""
ROUNDS = 12
SECONDS = 0.15  # of one engine's turn
LONGEST_S = 3600  # of a turn
WITHIN = 1e-3  # of the logits' scale: an engine further from PyTorch is not timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine on one network."""

    model: str
    engine: str
    rounds_us: tuple[float, ...]
    """The median of each turn, in the order of the rounds."""
    p95_us: float
    """Of all calls."""
    share_of_peak: float | None
    """Multiply-accumulates a second over those of the loop's turn beside it; the median round."""
    macs: int
    peak_mb: float | None
    """Most memory that the engine and its network took, in a process that held PyTorch before."""
    artifact_bytes: int
    startup_s: float
    """From nothing to the first answer, the interpreter's own start left out."""
    difference: float
    """Largest difference of logits from PyTorch's, relative to their scale."""

    @property
    def median_us(self) -> float:
        return float(np.median(self.rounds_us))

    @property
    def low_us(self) -> float:
        """The lower quartile of the rounds, as `high_us` the upper: overlap means no winner."""
        return float(np.percentile(self.rounds_us, 25))

    @property
    def high_us(self) -> float:
        return float(np.percentile(self.rounds_us, 75))

    def times_faster(self, other: "Row") -> tuple[float, float, float]:
        """How often this answers while `other`, of the same rounds, answers once.

        The median round and the quartiles around it. Raises `MismatchError` for other rounds.
        """
        if len(self.rounds_us) != len(other.rounds_us):
            raise MismatchError(
                f"{self.engine} has {len(self.rounds_us)} rounds, {other.engine} "
                f"{len(other.rounds_us)}: only turns of the same rounds are compared"
            )
        each = np.divide(other.rounds_us, self.rounds_us)
        low, middle, high = np.percentile(each, (25, 50, 75))
        return float(middle), float(low), float(high)


def untrained(name: str) -> Network:
    """A network of the zoo with random weights whose batch norms have seen random images."""
    card = models.card(name)
    channels, height, width = card.image
    body = models.create_model(name, seed=0)
    norms = [m for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        body.train()(torch.randn(4, *card.image, generator=generator))
    return Network(
        body.eval(),
        name=name,
        arguments={},
        classes=[f"class {number}" for number in range(card.classes)],
        road=Road(size=(height, width), channels=channels),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    ).eval()


def bench(
    networks: Iterable[Network],
    *,
    on: Sequence[str] = tuple(ENGINES),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    core: int | None = None,
    tune: float | None = None,
) -> tuple[list[Row], list[str]]:
    """Time every network on every engine; the rows, and why an engine is missing from them.

    `tune` is for how many seconds the C program's register tiles may be timed before. Of networks
    that have one name the second is "name (2)" in the rows, and so on.

    Raises `UnknownNameError` for an engine that does not exist, `MismatchError` for no rounds, no
    time or a core that is not ours.
    """
    cores = os.sched_getaffinity(0)
    if rounds < 1 or not 0 < seconds <= LONGEST_S:
        raise MismatchError(
            f"bench takes 1 round or more of up to {LONGEST_S} seconds, not {rounds} of {seconds}"
        )
    if core is not None and core not in cores:
        raise MismatchError(f"no core {core} for this process; it has {sorted(cores)}")
    for engine in on:
        if engine not in ENGINES:
            raise UnknownNameError(f"no engine named '{engine}'; there are: {', '.join(ENGINES)}")
    rows: list[Row] = []
    missing: list[str] = []
    named: Counter[str] = Counter()
    on = list(dict.fromkeys(on))
    for network in networks:
        named[network.name] += 1
        times = named[network.name]
        label = network.name if times == 1 else f"{network.name} ({times})"
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            found, reasons = _bench_one(network, label, on, rounds, seconds, core, tune, place)
            rows += found
            missing += reasons
    return rows, missing


def _bench_one(
    network: Network,
    label: str,
    on: Sequence[str],
    rounds: int,
    seconds: float,
    core: int | None,
    tune: float | None,
    folder: Path,
) -> tuple[list[Row], list[str]]:
    images = trial_images(network, 4)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images)).numpy()
    np.save(folder / "images.npy", images)
    missing: list[str] = []
    workers: dict[str, Worker] = {}
    sizes: dict[str, int] = {}
    apart: dict[str, float] = {}
    try:
        for engine in on:
            place = folder / engine
            place.mkdir()
            try:
                written = writer(ENGINES[engine], tune if engine == "c" else None)(network, place)
                loads, shipped = written[0], place
                if engine == "c":
                    text = loads.read_text(encoding="utf-8")
                    loads = shipped = compile_library(text, name=loads.stem)
                sizes[engine] = _bytes(shipped)
                worker = Worker(ENGINES[engine], loads, folder / "images.npy", core)
                apart[engine] = difference(np.array(worker.logits), expected)
                if worker.probabilities is not None:
                    entry = probabilities_apart(np.array(worker.probabilities), expected)
                    apart[engine] = float(np.max([apart[engine], entry]))  # nan where one is
                if not apart[engine] <= WITHIN:
                    worker.close()
                    raise LeanCNNError(f"its answers differ by {apart[engine]:.2g} of their scale")
                workers[engine] = worker
            except LeanCNNError as error:
                missing.append(f"{label} on {engine}: {error}")
        try:
            workers["peak"] = Worker("peak", folder, folder / "images.npy", core)
        except MissingDependencyError as error:
            missing.append(f"peak: {error}")
        times: dict[str, list[list[float]]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                times[name].append(worker.time(seconds))
        memory = {name: worker.close() for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    channels, (height, width) = network.road.channels, network.road.size
    macs = count(network.body, (channels, height, width)).macs
    loops = [min(turn) / workers["peak"].macs for turn in times.get("peak", [])]
    rows = []
    for name in workers:
        if name == "peak":
            continue
        turns = [float(np.median(turn)) for turn in times[name]]
        shares = [macs * loop / turn for loop, turn in zip(loops, turns, strict=bool(loops))]
        rows.append(
            Row(
                model=label,
                engine=name,
                rounds_us=tuple(1e6 * turn for turn in turns),
                p95_us=1e6 * float(np.percentile(np.concatenate(times[name]), 95)),
                share_of_peak=float(np.median(shares)) if shares else None,
                macs=macs,
                peak_mb=memory[name],
                artifact_bytes=sizes[name],
                startup_s=workers[name].startup,
                difference=apart[name],
            )
        )
    return rows, missing


def _bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def winner(rows: Sequence[Row]) -> str | None:
    """The fastest engine of one network, or None when its interval overlaps another's."""
    order = sorted(rows, key=lambda row: row.median_us)
    if not order or (len(order) > 1 and order[0].high_us >= order[1].low_us):
        return None
    return order[0].engine


class Worker:
    """A process that holds one engine. Raises what the engine raised while it was loaded."""

    def __init__(self, target: str, artifact: Path, images: Path, core: int | None) -> None:
        home = str(Path(__file__).parents[1])
        found = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = found
        chosen = min(os.sched_getaffinity(0)) if core is None else core
        self._process = subprocess.Popen(
            # -P: what lies in the current folder is not imported.
            [sys.executable, "-P", "-m", "leancnn.bench", target, artifact, images, str(chosen)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._memory: float | None = None
        answer = self._read()
        if "error" in answer:
            self.close()
            missing = answer.get("kind") == "MissingDependencyError"
            raise (MissingDependencyError if missing else LeanCNNError)(answer["error"])
        self.logits: list[list[float]] = answer["logits"]
        self.probabilities: list[list[float]] | None = answer["probabilities"]
        self.startup: float = answer["startup"]
        self.macs: int = answer["macs"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return {"error": f"its process ended with status {self._process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def time(self, seconds: float) -> list[float]:
        """Seconds of each call of one turn, after a short warm-up."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: what is read says how
            print(seconds, file=self._process.stdin, flush=True)
        answer = self._read()
        if "error" in answer:
            raise LeanCNNError(f"while it was timed, {answer['error']}")
        self._memory = answer["memory"]
        times: list[float] = answer["times"]
        return times

    def close(self) -> float | None:
        """End the process; the most memory its engine took, in MB."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        return self._memory


def _work(target: str, artifact: str, images: str, core: str) -> None:
    """What the process does: load, answer, then time as often as it is asked to."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines print what they like elsewhere
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    torch.set_num_threads(1)
    given = np.load(images)
    memory = Memory()
    start = time.perf_counter()
    try:
        if target == "peak":
            from leancnn.compiler.peak import Peak

            peak = Peak()
            run: Any = peak
            logits, macs, shares = [[0.0]], peak.macs, None
        else:
            loaded = targets[target].load(Path(artifact))
            run = loaded.prepare(given[1:2])
            run()
            logits, macs = loaded.logits(given).tolist(), 0
            entry = loaded.probabilities
            shares = None if entry is None else entry(given).tolist()
    except Exception as error:
        kind = type(error).__name__
        print(json.dumps({"error": f"{kind}: {error}", "kind": kind}), file=answers, flush=True)
        return
    startup = time.perf_counter() - start
    ready = {"logits": logits, "probabilities": shares, "startup": startup, "macs": macs}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        for _ in range(3):
            run()
        times: list[float] = []
        until = time.perf_counter() + float(line)
        while not times or (before := time.perf_counter()) < until:
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
        print(json.dumps({"times": times, "memory": memory.most_mb()}), file=answers, flush=True)


def to_json(rows: Sequence[Row], missing: Sequence[str]) -> dict[str, Any]:
    """All rows, the winner of each network or null, and what is missing."""
    names = list(dict.fromkeys(row.model for row in rows))
    return {
        "rows": [
            {
                "median_us": row.median_us,
                "low_us": row.low_us,
                "high_us": row.high_us,
                **asdict(row),
            }
            for row in rows
        ],
        "winners": {name: winner([r for r in rows if r.model == name]) for name in names},
        "missing": list(missing),
    }


if __name__ == "__main__":
    _work(*sys.argv[1:])
