"""A trained network in 8-bit integers, measured before and after; trained for them first if asked.

Ranges are measured on images of the train part, accuracy on the validation part; the test part is
never opened.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn import weights
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.graph import Conv, Graph
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.integers import QFloat, Quantized
from leancnn.compiler.quantize import quantize as to_integers
from leancnn.compiler.ranges import CLIPPED, Range, layer_noise, measure, weight_noise
from leancnn.compiler.reference import IntegerNetwork, errors, furthest
from leancnn.compiler.simplify import simplify
from leancnn.data import Dataset, Split
from leancnn.errors import DataError, LeanCNNError, MismatchError, RunError
from leancnn.plots import error_by_layer
from leancnn.predict import probabilities
from leancnn.progress import Progress
from leancnn.quantization_figures import Finetuning, Quantization
from leancnn.recipes import Recipe
from leancnn.runs import check_writable, write_checked
from leancnn.safe_files import atomic_write
from leancnn.targets._c_text import to_c
from leancnn.timing import in_turns, medians
from leancnn.toolchain import compile_library
from leancnn.train.finetune import finetuned
from leancnn.training_data import FEWEST, check_place, images_for, kept_cut, places
from leancnn.version import __version__
from leancnn.weights import Network

FIGURES = "quantization.json"  # beside the network: what it cost and brought
PICTURE = "error_by_layer.png"
IMAGES = 512  # of the train part, for the ranges
BATCH = 64
PROBED = 64  # images on which the error of each layer is measured
TEN_BIT = 4  # times as many steps of a weight as 8 bits have
FINETUNE = "finetune"  # the run in fake quantization, in the folder of what comes of it
TURNS = 15  # of each program on the clock


def quantize(
    path: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    images: int = IMAGES,
    seed: int = 0,
    budget: float | None = None,
    which: Literal["best", "last"] | None = None,
    finetune: str | Path | Recipe | None = None,
    overrides: Mapping[str, Any] | None = None,
    timed: bool = True,
) -> Quantization:
    """Write the network of a run, or a saved one, as one of 8-bit integers into the folder `out`.

    `images` of the train part set the ranges, at least one of each class, chosen by `seed`. With a
    `budget`, in percentage points of validation accuracy, convolutions that rounding moves most get
    weights of 10 bits until it holds, then stay in float32; where it never does, nothing is
    written. By the recipe `finetune` the network is trained in fake quantization first, for a tenth
    of its epochs from a hundredth of its rate unless `overrides` of its fields say otherwise, in a
    run of its own, `out`/finetune, which the same call goes on with; where the validation part is
    not answered better for it, that training is not kept. An operator without an integer form stays
    in float32. Without `timed` nothing is compiled or drawn.
    Raises `DataError` for images that cannot set ranges, `MismatchError`, `WriteError`.

    >>> found = leancnn.quantize("runs/a", "runs/a8", images=24)
    >>> found.bytes_int8 < found.bytes / 3
    True
    """
    network = weights.load(path, which)
    network.check_floats("quantizing it")
    network.pictures()
    check_writable(Path(out) / weights.MANIFEST)
    where = network.known_data if data is None else str(data)
    if where is None:
        raise RunError(f"{path} does not know its data; name it with --data")
    check_place(Path(out), where)
    share, cut_by = kept_cut(network, None, None)
    dataset = images_for(where, network.pictures(), val_share=share, split_seed=cut_by or 0)
    network.check_classes(dataset.classes, where)
    chosen = calibration(dataset, images, seed)
    calibrated = _calibrated(network, network, dataset, where, chosen, seed, timed)
    tuning = None
    if finetune is not None:
        calibrated, tuning = calibrated.tuned_by(finetune, overrides or {}, Path(out))
    made, found = calibrated.measured((), Path(out))
    if budget is not None and _over(found, budget):
        assert found.accuracy is not None
        made, found = calibrated.within(found.accuracy - budget / 100, Path(out))
        _check_budget(found, budget)
    tuned = None if tuning is None or not tuning.kept else tuning.recipe
    found = replace(found, finetuned=tuned, finetuning=tuning)
    made.made["val_accuracy"] = found.accuracy_int8
    weights.save(made, out)
    write_checked(Path(out) / FIGURES, found.to_json())
    if timed:
        drawn = error_by_layer(found.errors, network.name, found.floats)
        atomic_write(Path(out) / PICTURE, drawn)
    return found


@dataclass(frozen=True, slots=True)
class _Calibrated:
    """A network whose ranges are known, from which networks of integers are made."""

    network: Network
    tuned: Network  # the same, or what finetuning made of it
    dataset: Dataset
    where: str
    chosen: NDArray[np.intp]  # rows of the train part for the ranges
    seed: int
    graph: Graph
    batches: list[torch.Tensor]
    ranges: dict[str, Range]
    timed: bool

    def integers(self, ten_bit: Sequence[str], floats: Sequence[str] = ()) -> Network:
        """The network of integers; the weights of the convolutions in `ten_bit` have 10 bits, those
        in `floats` stay in float32."""
        times = dict.fromkeys(ten_bit, TEN_BIT)
        network = self.network
        integers = to_integers(self.graph, self.ranges, network.mean, network.std, times, floats)
        return _network(self.tuned, integers, self.dataset, self.where, self.chosen, self.seed)

    def tuned_by(
        self, recipe: str | Path | Recipe, overrides: Mapping[str, Any], out: Path
    ) -> tuple["_Calibrated", Finetuning]:
        """The network trained on in fake quantization, where its integers are right more often on
        the validation part; else this one. And how that training went."""
        folder = out / FINETUNE
        tuned, by = finetuned(self.network, self.where, folder, recipe, overrides, self.seed)
        after = _calibrated(
            self.network, tuned, self.dataset, self.where, self.chosen, self.seed, self.timed
        )
        val = self.dataset.val
        found = Finetuning(
            recipe=by.name,
            epochs=by.epochs,
            lr=by.lr,
            accuracy_int8=None if val is None else accuracy(after.integers(()), val),
            accuracy_int8_without=None if val is None else accuracy(self.integers(()), val),
        )
        return after if found.kept else self, found

    def within(self, least: float, out: Path) -> tuple[Network, Quantization]:
        """One of at least this accuracy by weights of 10 bits, else floats; the nearest if none."""
        ten_bit = self.fewest_ten_bit(least)
        made, found = self.measured(ten_bit, out)
        val = self.dataset.val
        if val is not None and (found.accuracy_int8 or 0.0) < least:
            floats = self.fewest_floats(ten_bit, least, val)
            ten_bit = [name for name in ten_bit if name not in floats]
            made, found = self.measured(ten_bit, out, floats)
        return made, found

    def measured(
        self, ten_bit: Sequence[str], out: Path, floats: Sequence[str] = ()
    ) -> tuple[Network, Quantization]:
        """It, and what it costs and brings."""
        network, made, val = self.network, self.integers(ten_bit, floats), self.dataset.val
        body = made.body
        assert isinstance(body, IntegerNetwork)
        image = self.dataset.of_train.images[:1]
        clocks = clock([network, made], image) if self.timed else []
        layer_errors = errors(self.graph, body, self.batches[0][:PROBED])
        clipped = [(name, r.clipped) for name, r in self.ranges.items() if r.clipped > CLIPPED]
        return made, Quantization(
            network=network.name,
            out=str(out),
            images=sum(map(len, self.batches)),
            seed=self.seed,
            accuracy=None if val is None else accuracy(network, val),
            accuracy_int8=None if val is None else accuracy(made, val),
            val_images=0 if val is None else len(val.labels),
            bytes=sum(4 * p.numel() for p in network.body.state_dict().values()),
            bytes_int8=body.network.weights(),
            us=clocks[0] if clocks else None,
            us_int8=clocks[1] if clocks else None,
            layers=furthest(layer_errors),
            errors=tuple(layer_errors),
            clipped=tuple(clipped),
            ten_bit=tuple(ten_bit),
            floats=tuple(node.out for node in body.network.nodes if isinstance(node, QFloat)),
        )

    def fewest_ten_bit(self, least: float) -> list[str]:
        """Convolutions that need 10 bits for this accuracy, those that rounding moves most first.

        All of them where even that is not enough.
        """
        val = self.dataset.val
        assert val is not None
        order = [name for name, _ in weight_noise(self.graph, self.batches[0][:FEWEST])]
        holds = lambda n: accuracy(self.integers(order[:n]), val) >= least  # noqa: E731
        return order[: _fewest(len(order), holds)]

    def fewest_floats(self, ten_bit: Sequence[str], least: float, val: Split) -> list[str]:
        """Convolutions that have to stay in float32 for it, the others with weights of 10 bits."""
        order = [n for n, _ in layer_noise(self.graph, self.ranges, self.batches[0][:FEWEST])]
        holds = lambda n: accuracy(self.integers(ten_bit, order[:n]), val) >= least  # noqa: E731
        return order[: _fewest(len(order), holds)]


def _calibrated(
    network: Network,
    tuned: Network,
    dataset: Dataset,
    where: str,
    chosen: NDArray[np.intp],
    seed: int,
    timed: bool,
) -> _Calibrated:
    """Measure the ranges of every value on some images."""
    preprocessing = network.pictures()
    graph = simplify(import_torch(tuned.body, (preprocessing.channels, *preprocessing.size)))
    check_weights(graph, network.name)
    batches = list(_batches(network, dataset.of_train.images, chosen))
    with Progress("ranges", total=1) as bar:
        ranges = measure(graph, batches)
        bar.to(1)
    return _Calibrated(network, tuned, dataset, where, chosen, seed, graph, batches, ranges, timed)


def _fewest(most: int, holds: Callable[[int], bool]) -> int:
    """A number for which it holds, and not for that tried before, by halving; `most` if none."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _network(
    network: Network,
    integers: Quantized,
    dataset: Dataset,
    where: str,
    chosen: NDArray[np.intp],
    seed: int,
) -> Network:
    """The network of integers, which says what it was made from."""
    made = {
        "quantized": {
            "images": len(chosen),
            "seed": seed,
            "which": [int(place) for place in chosen],
            "data_sha256": dict(dataset.manifest["sha256"]),
            "leancnn": __version__,
        },
        "data": where,
        "cut from": dict(network.made),
    }
    return network.with_body(IntegerNetwork(integers), made=made)


def calibration(dataset: Dataset, images: int, seed: int) -> NDArray[np.intp]:
    """Places of calibration images in the train part: one of every class, then any, by `seed`.

    Raises `MismatchError` for too few, `DataError` for images that are all alike.
    """
    train = dataset.of_train
    chosen = places(train.labels, dataset.classes, images, seed, dataset.name)
    seen = train.images[chosen]
    if (seen == seen[:1]).all() or seen.min() == seen.max():
        raise DataError(f"{dataset.name}: the calibration images are all alike")
    return chosen


def check_weights(graph: Graph, name: str) -> None:
    """Raises `MismatchError` for a network whose weights are not all numbers."""
    for node in graph.nodes:
        if isinstance(node.op, Conv) and not (
            np.isfinite(node.op.weight).all() and np.isfinite(node.op.bias).all()
        ):
            raise MismatchError(f"{name}: {node.output} has weights that are no numbers")


def _batches(
    network: Network, images: NDArray[np.uint8], chosen: NDArray[np.intp]
) -> Iterator[torch.Tensor]:
    for start in range(0, len(chosen), BATCH):
        seen = np.array(network.pictures().window(images[chosen[start : start + BATCH]]))
        yield network.normalise(torch.from_numpy(seen))


def accuracy(network: Network, split: Split) -> float:
    """Share of a part's images that a network gets right."""
    answers = probabilities(network, split.images)
    return float((answers.argmax(1) == split.labels).mean())


def clock(networks: Sequence[Network], image: NDArray[Any]) -> list[float]:
    """Median µs of one image for each network, compiled, in turns; empty without a C compiler."""
    try:
        natives = [
            CompiledNetwork(compile_library(written.source, name=written.prefix))
            for written in map(to_c, networks)
        ]
    except LeanCNNError:
        return []
    seen = np.array(networks[0].preprocessing.window(image))
    runs = [native.bare(seen) for native in natives]
    turns = in_turns(dict(enumerate(runs)), TURNS, 0, warm_up=1)
    return [1e6 * statistics.median(medians(of_run)) for of_run in turns.values()]


def _over(found: Quantization, budget: float) -> bool:
    """Whether more is lost. Raises `MismatchError` without a validation part."""
    if found.points_lost is None:
        raise MismatchError("a budget needs a validation part, and the run has none")
    return found.points_lost > budget


def _check_budget(found: Quantization, budget: float) -> None:
    if found.points_lost is not None and _over(found, budget):
        worst = ", ".join(name for name, _ in found.layers[:3])
        raise MismatchError(
            f"{found.points_lost:.2f} points of validation accuracy would go, more than the budget "
            f"of {budget:g} (most is lost in {worst}), even with convolutions in float32; "
            "nothing was written. --finetune RECIPE trains it for integers; more calibration "
            "images may help too: --images"
        )
