"""Latency at batch 1 on one pinned core: engines side by side, measured honestly.

Each engine runs in a process of its own, with one thread; the engines take turns in rounds, so that
what disturbs the machine disturbs all, and only turns of one round are set in proportion. Outputs
are compared with PyTorch's before anything is timed, and a fixed loop of multiply-adds in registers
has a turn in each round: speed as a share of it means the same on another day.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn import models
from leancnn.bench_figures import Missing, Row, rivals, summary, to_json, winner
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
    TRIALS,
    WITHIN,
    check_answers,
    difference,
    logits_of,
    made_images,
    tolerance,
    trial_images,
)
from leancnn.precisions import precisions
from leancnn.preprocess import Preprocessing
from leancnn.progress import Waiting
from leancnn.signal_window import SignalWindow
from leancnn.targets import made_of, session_of
from leancnn.timed_worker import Worker
from leancnn.timing import medians
from leancnn.toolchain import compile_library
from leancnn.training_data import images_for, kept_cut
from leancnn.weights import Input, Network
from leancnn.workspaces import workspace

__all__ = ["ENGINES", "Missing", "Row", "bench", "rivals", "summary", "to_json", "winner"]
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
OTHERS = {
    "onnxruntime": ("onnxruntime-int8",),
    "openvino": ("openvino-default", "openvino-int8"),
}
"""In other precisions than float32, each a target by its own name."""
SEEN = 256  # images on which other precisions are compared
ROUNDS = 12
SECONDS = 0.15  # of one engine's turn
IMAGES = 4  # on which the answers are compared
LONGEST_S = 3600  # of a turn


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
    return with_placeholders(body, name, card.classes, preprocessing)


def with_placeholders(
    body: torch.nn.Module,
    name: str,
    classes: int,
    preprocessing: Input,
    arguments: Mapping[str, Any] | None = None,
) -> Network:
    """A body that no images trained as a network: classes by number, the same mean and deviation
    for all channels."""
    return Network(
        body,
        name=name,
        arguments=arguments or {},
        classes=[f"class {number}" for number in range(classes)],
        preprocessing=preprocessing,
        mean=(0.5,) * preprocessing.channels,
        std=(0.25,) * preprocessing.channels,
    ).eval()


def bench(
    networks: Iterable[Classifier],
    *,
    engines: Sequence[str] = tuple(ENGINES),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    core: int | None = None,
    tune: float | None = None,
    precision: Literal["float32", "any"] = "float32",
    progress: bool = False,
) -> tuple[list[Row], list[Missing]]:
    """Time every network on every engine; the rows, and why an engine is missing from them.

    A torch network is written for each engine; a compiled library or a session of an exported file
    is timed as it stands, on its own engine, and its MACs are not known.
    With `precision` "any" engines also run in those that they offer beside float32: what OpenVINO
    takes by default (bfloat16 on some processors) and what NNCF and ONNX Runtime quantize with
    their own tools, on the network's training images where those are at hand. Beside
    each speed stand then how often its answers agree with PyTorch's, and their accuracy on the
    validation part.
    `tune` is for how many seconds the C program's register tiles may be timed before. Of networks
    that have one name the second is "name (2)" in the rows, and so on. `progress` shows on a
    terminal what is timed.

    Raises `UnknownNameError` for an engine that does not exist, `ArgumentError` for no rounds or no
    time, `MismatchError` for a core that this process may not use.

    >>> network = leancnn.load("runs/a")
    >>> rows, missing = leancnn.bench([network], engines=["c"], rounds=2, seconds=0.01)
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
    for engine in engines:
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
            turns = _Turns(network, label, folder, core, sign, compared=precision == "any")
            try:
                for engine in _engines(network, engines, precision):
                    turns.admit(engine, tune)
                turns.take(rounds, seconds)
                rows += turns.rows()
            finally:
                missing += turns.missing
                turns.close()
    return rows, missing


def _engines(network: Classifier, engines: Sequence[str], precision: str) -> list[str]:
    """What is timed of a network; of integers no engine makes integers again."""
    if not isinstance(network, Network):
        return [""]
    found = list(dict.fromkeys(engines))
    if precision == "any" and not network.quantized:
        found += [other for engine in found for other in OTHERS.get(engine, ())]
    return found


def _validation(network: Network) -> tuple[NDArray[Any], NDArray[np.intp]] | None:
    """Images of its validation part and their labels, where its data is at hand."""
    if network.known_data is None or isinstance(network.preprocessing, SignalWindow):
        return None
    share, cut_by = kept_cut(network, None, None)
    try:
        dataset = images_for(
            network.known_data, network.pictures(), val_share=share, split_seed=cut_by or 0
        )
    except LeanCNNError:
        return None
    if dataset.val is None:
        return None
    chosen = np.random.default_rng(0).permutation(len(dataset.val.labels))[:SEEN]
    images = np.array(network.pictures().window(dataset.val.images[chosen]))
    return images, dataset.val.labels[chosen]


@dataclass(frozen=True, slots=True)
class _Timed:
    """An engine that is ready: its process, and what is known of it before any turn."""

    worker: Worker
    artifact_bytes: int
    difference: float
    agreement: float | None = None
    accuracy: float | None = None


class _Turns:
    """The engines of one network, each in a process of its own, taking turns on one core."""

    def __init__(
        self,
        network: Classifier,
        label: str,
        folder: Path,
        core: int,
        sign: Waiting,
        *,
        compared: bool = False,
    ) -> None:
        self.network, self.label, self.folder, self.core = network, label, folder, core
        self.missing: list[Missing] = []
        self._sign = sign
        self._timed: dict[str, _Timed] = {}
        self._loop: Worker | None = None
        self._calls: dict[str, list[list[float]]] = {}
        self._loops: list[list[float]] = []
        self._stolen = 0.0
        self._compared, self._labels = compared, None
        if isinstance(network, Network):
            seen = _validation(network) if compared else None
            if seen is None:
                images = trial_images(network, TRIALS if compared else IMAGES)
            else:
                images, self._labels = seen
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
                target = ENGINES.get(engine, engine)
                loads, shipped = self._written(engine, tune)
            else:
                target, loads = made_of(self.network)
                engine, shipped = _engine_of(target), loads
            worker = Worker(target, loads, self.folder / "images.npy", self.core)
            try:
                difference = self._check(worker)
            except ParityError as error:
                worker.close()
                raise ParityError(f"its {error}") from None
            self._timed[engine] = _Timed(worker, _bytes(shipped), difference, *self._shares(worker))
        except LeanCNNError as error:
            lacks = isinstance(error, MissingDependencyError)
            self.missing.append(Missing(self.label, engine, str(error), not_installed=lacks))

    def _written(self, engine: str, tune: float | None) -> tuple[Path, Path]:
        """What an engine loads of a torch network, and what would be shipped."""
        assert isinstance(self.network, Network)
        place = self.folder / engine
        place.mkdir()
        if engine in precisions:
            return precisions[engine].write(self.network, place)[0], place
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
        if self._compared and entry is None:
            return difference(np.array(worker.logits), self._expected)
        return check_answers(self._expected, np.array(worker.logits), entry, within)

    def _shares(self, worker: Worker) -> tuple[float | None, float | None]:
        """How often it agrees with PyTorch, and is right."""
        if not self._compared:
            return None, None
        answers = np.array(worker.logits).argmax(1)
        agreement = float((answers == self._expected.argmax(1)).mean())
        if self._labels is None:
            return agreement, None
        return agreement, float((answers == self._labels).mean())

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
                    agreement=each.agreement,
                    accuracy=each.accuracy,
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
