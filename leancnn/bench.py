"""Latency at batch 1 on one pinned core: engines side by side, measured honestly.

Each engine runs in a process of its own, with one thread; the engines take turns in rounds, so that
what disturbs the machine disturbs all, and only turns of one round are set in proportion. Outputs
are compared with PyTorch's before anything is timed, and a fixed loop of multiply-adds in registers
has a turn in each round: speed as a share of it means the same on another day.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn import models
from leancnn.classifier import Classifier
from leancnn.count import count
from leancnn.disturbance import disturbances, read_steal, stolen_share
from leancnn.errors import (
    ArgumentError,
    LeanCNNError,
    MismatchError,
    MissingDependencyError,
    ParityError,
    UnknownNameError,
)
from leancnn.export import writer
from leancnn.parity import (
    WITHIN,
    check_answers,
    logits_of,
    made_images,
    tolerance,
    trial_images,
)
from leancnn.preprocess import Preprocessing
from leancnn.progress import Waiting
from leancnn.signal_window import SignalWindow
from leancnn.targets import made_of, session_of
from leancnn.timed_worker import Worker
from leancnn.timing import Ratio, medians, times_faster
from leancnn.toolchain import compile_library
from leancnn.weights import Input, Network
from leancnn.workspaces import workspace

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
IMAGES = 4  # on which the answers are compared
LONGEST_S = 3600  # of a turn


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
    """0: not known."""
    peak_mb: float | None
    """Most memory that the engine and its network took, in a process that held PyTorch before."""
    artifact_bytes: int
    startup_s: float
    """From nothing to the first answer, the interpreter's own start left out."""
    difference: float
    """Largest difference of logits from PyTorch's, relative to their scale."""
    disturbed: tuple[str, ...] = ()
    """What shows that the core did other work while the network's engines were timed."""

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

    def times_faster(self, other: "Row") -> Ratio:
        """How often this answers while `other`, of the same rounds, answers once.

        The median round and the quartiles around it. Raises `MismatchError` for other rounds.
        """
        if len(self.rounds_us) != len(other.rounds_us):
            raise MismatchError(
                f"{self.engine} has {len(self.rounds_us)} rounds, {other.engine} "
                f"{len(other.rounds_us)}: only turns of the same rounds are compared"
            )
        return times_faster(self.rounds_us, other.rounds_us)


@dataclass(frozen=True, slots=True)
class Missing:
    """An engine that was not timed on a network, and why."""

    model: str
    engine: str
    reason: str
    not_installed: bool = False

    def __str__(self) -> str:
        return f"{self.model} on {self.engine}: {self.reason}"


def untrained(name: str) -> Network:
    """A network of the zoo with random weights whose batch norms have seen random images."""
    card = models.card(name)
    channels, height, width = card.image
    body = models.create_model(name, seed=0)
    picture = channels in (1, 3)
    preprocessing: Input = (Preprocessing if picture else SignalWindow)(
        size=(height, width), channels=channels
    )
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
        preprocessing=preprocessing,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    ).eval()


def bench(
    networks: Iterable[Classifier],
    *,
    on: Sequence[str] = tuple(ENGINES),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    core: int | None = None,
    tune: float | None = None,
    progress: bool = False,
) -> tuple[list[Row], list[Missing]]:
    """Time every network on every engine; the rows, and why an engine is missing from them.

    A torch network is written for each engine; a compiled library or a session of an exported file
    is timed as it stands, on its own engine, and its MACs are not known.
    `tune` is for how many seconds the C program's register tiles may be timed before. Of networks
    that have one name the second is "name (2)" in the rows, and so on. `progress` shows on a
    terminal what is going on.

    Raises `UnknownNameError` for an engine that does not exist, `ArgumentError` for no rounds or no
    time, `MismatchError` for a core that is not ours.

    >>> rows, missing = leancnn.bench([leancnn.load("runs/a")], on=["c"], rounds=2, seconds=0.01)
    >>> [(row.engine, row.median_us > 0) for row in rows]
    [('c', True)]
    """
    cores = os.sched_getaffinity(0)
    if rounds < 1:
        raise ArgumentError(f"`rounds` is 1 or more, not {rounds}")
    if not 0 < seconds <= LONGEST_S:
        raise ArgumentError(f"`seconds` is above 0 and at most {LONGEST_S}, not {seconds:g}")
    if core is not None and core not in cores:
        raise MismatchError(f"no core {core} for this process; it has {sorted(cores)}")
    for engine in on:
        if engine not in ENGINES:
            raise UnknownNameError(f"no engine named '{engine}'; there are: {', '.join(ENGINES)}")
    core = min(cores) if core is None else core
    rows: list[Row] = []
    missing: list[Missing] = []
    named: Counter[str] = Counter()
    for network in networks:
        named[network.name] += 1
        times = named[network.name]
        label = network.name if times == 1 else f"{network.name} ({times})"
        with workspace() as folder, Waiting(label, shown=progress) as sign:
            turns = _Turns(network, label, folder, core, sign)
            try:
                for engine in dict.fromkeys(on) if isinstance(network, Network) else [""]:
                    turns.admit(engine, tune)
                turns.take(rounds, seconds)
                rows += turns.rows()
            finally:
                missing += turns.missing
                turns.close()
    return rows, missing


@dataclass(frozen=True, slots=True)
class _Timed:
    """An engine that is ready: its process, and what is known of it before any turn."""

    worker: Worker
    artifact_bytes: int
    difference: float


class _Turns:
    """The engines of one network, each in a process of its own, taking turns on one core."""

    def __init__(
        self, network: Classifier, label: str, folder: Path, core: int, sign: Waiting
    ) -> None:
        self.network, self.label, self.folder, self.core = network, label, folder, core
        self.missing: list[Missing] = []
        self._sign = sign
        self._timed: dict[str, _Timed] = {}
        self._loop: Worker | None = None
        self._calls: dict[str, list[list[float]]] = {}
        self._loops: list[list[float]] = []
        self._stolen = 0.0
        if isinstance(network, Network):
            images = trial_images(network, IMAGES)
            self._expected = logits_of(network, images)
        else:
            pictures = network.pictures()
            images = made_images((*pictures.size, pictures.channels), IMAGES)
            self._expected = session_of(network).logits(images)
        np.save(folder / "images.npy", images)

    def admit(self, engine: str, tune: float | None) -> None:
        """Write, load and compare for an engine; why not, if it cannot be timed, is `missing`."""
        self._sign.to(f"{engine}: written, loaded and compared")
        try:
            if isinstance(self.network, Network):
                target, loads, shipped = ENGINES[engine], *self._written(engine, tune)
            else:
                target, loads = made_of(self.network)
                engine, shipped = _engine_of(target), loads
            worker = Worker(target, loads, self.folder / "images.npy", self.core)
            try:
                apart = self._check(worker)
            except ParityError as error:
                worker.close()
                raise ParityError(f"its {error}") from None
            self._timed[engine] = _Timed(worker, _bytes(shipped), apart)
        except LeanCNNError as error:
            lacks = isinstance(error, MissingDependencyError)
            self.missing.append(Missing(self.label, engine, str(error), not_installed=lacks))

    def _written(self, engine: str, tune: float | None) -> tuple[Path, Path]:
        """What an engine loads of a torch network, and what would be shipped."""
        assert isinstance(self.network, Network)
        place = self.folder / engine
        place.mkdir()
        write = writer(ENGINES[engine], tune=tune if engine == "c" else None)
        loads = write(self.network, place)[0]
        if engine != "c":
            return loads, place
        library = compile_library(loads.read_text(encoding="utf-8"), name=loads.stem)
        return library, library

    def _check(self, worker: Worker) -> float:
        """How far its answers are from PyTorch's. Raises `ParityError` where that is too far."""
        entry = None if worker.probabilities is None else np.array(worker.probabilities)
        within = WITHIN
        if isinstance(self.network, Network):
            within = tolerance(self.network, ours=entry is not None)
        return check_answers(self._expected, np.array(worker.logits), entry, within)

    def take(self, rounds: int, seconds: float) -> None:
        """So many turns of each engine, and of the loop that is its own measure."""
        if not self._timed:
            return
        try:
            self._loop = Worker("peak", self.folder, self.folder / "images.npy", self.core)
        except MissingDependencyError as error:
            self.missing.append(Missing(self.label, "peak", str(error), not_installed=True))
        self._calls = {name: [] for name in self._timed}
        before = read_steal(self.core)
        for number in range(rounds):
            self._sign.to(f"round {number + 1} of {rounds}")
            for name, each in self._timed.items():
                self._calls[name].append(each.worker.time(seconds))
            if self._loop is not None:
                self._loops.append(self._loop.time(seconds))
        self._stolen = stolen_share(before, read_steal(self.core))

    def rows(self) -> list[Row]:
        """The figures of each engine."""
        macs = 0
        if isinstance(self.network, Network):
            taken = self.network.preprocessing
            macs = count(self.network.body, (taken.channels, *taken.size)).macs
        signs = disturbances(self._calls, self._loops, self._stolen)
        loop_macs = 0 if self._loop is None else self._loop.macs
        best = [min(calls) / loop_macs for calls in self._loops]
        found = []
        for name, each in self._timed.items():
            turns = medians(self._calls[name])
            both = zip(best, turns, strict=bool(best)) if macs else ()
            shares = [macs * loop / turn for loop, turn in both]
            found.append(
                Row(
                    model=self.label,
                    engine=name,
                    rounds_us=tuple(1e6 * turn for turn in turns),
                    p95_us=1e6 * float(np.percentile(np.concatenate(self._calls[name]), 95)),
                    share_of_peak=float(np.median(shares)) if shares else None,
                    macs=macs,
                    peak_mb=each.worker.close(),
                    artifact_bytes=each.artifact_bytes,
                    startup_s=each.worker.startup,
                    difference=each.difference,
                    disturbed=signs,
                )
            )
        return found

    def close(self) -> None:
        """End all processes."""
        for each in self._timed.values():
            each.worker.close()
        if self._loop is not None:
            self._loop.close()


def _engine_of(target: str) -> str:
    """The engine that runs the artifacts of a target."""
    return next((name for name, of in ENGINES.items() if of == target), target)


def _bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def rivals(rows: Sequence[Row]) -> list[Row]:
    """Of one network: the row of the least median, and those whose interval overlaps its own."""
    if not rows:
        return []
    first, *others = sorted(rows, key=lambda row: row.median_us)
    return [first, *(row for row in others if row.low_us <= first.high_us)]


def winner(rows: Sequence[Row]) -> str | None:
    """The fastest engine of one network; None when its interval overlaps another's, or when the
    core was disturbed meanwhile.
    """
    found = rivals(rows)
    if len(found) != 1 or any(row.disturbed for row in rows):
        return None
    return found[0].engine


def verdict(rows: Sequence[Row]) -> str:
    """What `winner` finds of one network, as a sentence with the reason."""
    if signs := list(dict.fromkeys(sign for row in rows for sign in row.disturbed)):
        return f"no winner, the core was disturbed: {'; '.join(signs)}"
    if len(found := rivals(rows)) > 1:
        return f"no winner, intervals overlap: {', '.join(row.engine for row in found)}"
    return found[0].engine


def to_json(rows: Sequence[Row], missing: Sequence[Missing]) -> dict[str, Any]:
    """All rows, the winner of each network or null and why, and what is missing."""
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
        "verdicts": {name: verdict([r for r in rows if r.model == name]) for name in names},
        "missing": [asdict(each) for each in missing],
    }
