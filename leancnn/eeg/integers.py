"""A trained decoder in 8-bit integers, and what that costs on people it has not seen.

Only networks have integers; an ensemble keeps its logit. The ranges of a network's values come from
windows that it was trained on: in each fold from the people of its training, so that held-out
scores stay those of decoders, ranges included, which had not seen them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.compile import compile
from leancnn.compiler.graph import Graph
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.quantize import quantize as to_integers
from leancnn.compiler.ranges import measure
from leancnn.compiler.reference import IntegerNetwork, errors, furthest
from leancnn.compiler.simplify import simplify
from leancnn.eeg.decoders import Ensemble, Logit, TrainedDecoder, temperature_for
from leancnn.eeg.held_out import HeldOutScores, load_held_out, save_held_out
from leancnn.eeg.network import NetDecoder, decoder_of
from leancnn.eeg.provenance import copy_provenance
from leancnn.eeg.recording import Epochs
from leancnn.eeg.scoring import mcnemar
from leancnn.eeg.training import (
    DecoderConfig,
    as_trained,
    check_free,
    held_out_by_each,
    load,
    save,
    with_temperature,
)
from leancnn.errors import CompileError, MismatchError, MissingDependencyError, WriteError
from leancnn.normalisation import planes
from leancnn.quantize import BATCH, IMAGES, PROBED, check_weights, clock
from leancnn.runs import write_checked
from leancnn.training_data import places
from leancnn.version import __version__
from leancnn.weights import Network

FIGURES = "integers.json"  # in the run's folder: what it cost and brought
FEW = 50  # windows that the reference has answered before C of a network is built


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedDecoder:
    """What the integers of a decoder's networks cost and brought; shares are 0..1."""

    decoder: str
    out: str
    networks: int
    windows: int
    """Of training, for the ranges."""
    seed: int
    trials: int
    accuracy: float
    """Of the floats, on people or sessions not seen: of the trainings whose integers are scored."""
    accuracy_of_run: float
    """Of the floats that the run was trained as; torch rounds otherwise on other processors."""
    accuracy_int8: float
    agreement: float
    """Trials on which both say the same."""
    p: float
    """Exact McNemar between the two."""
    bytes: int
    """Of the weights as floats."""
    bytes_int8: int
    us: float | None
    """One network on one window's features, on this machine's clock; None without a C compiler."""
    us_int8: float | None
    layers: tuple[tuple[str, float], ...]
    """Those whose output is furthest from the floats', relative to how much that varies."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values, and the percentage points lost."""
        return {**asdict(self), "points_lost": 100 * (self.accuracy - self.accuracy_int8)}

    def text(self) -> str:
        """The figures for people."""
        from leancnn.tables import table

        def row(what: str, before: float, after: float, form: str) -> dict[str, object]:
            return {"": what, "float32": form.format(before), "int8": form.format(after)}

        rows = [
            row("accuracy, held out", self.accuracy, self.accuracy_int8, "{:.2%}"),
            row("bytes of weights", self.bytes, self.bytes_int8, "{:,}"),
        ]
        if self.us is not None and self.us_int8 is not None:
            rows.append(row("µs a network, compiled", self.us, self.us_int8, "{:,.2f}"))
        worst = ", ".join(f"{name} {error:.1%}" for name, error in self.layers)
        again = ""
        if self.accuracy != self.accuracy_of_run:
            again = f"; the floats when the run was trained: {self.accuracy_of_run:.2%}"
        return "\n".join(
            [
                f"{self.out}: {self.decoder}, {self.networks} networks in 8-bit integers, ranges "
                f"from {self.windows:,} windows of training, seed {self.seed}",
                table(rows),
                f"{self.agreement:.2%} of {self.trials:,} held-out trials are answered alike, "
                f"exact McNemar p {self.p:.2g}{again}",
                f"layers furthest from the floats: {worst}",
            ]
        )


def quantize(
    run: str | Path,
    out: str | Path,
    epochs: Epochs,
    *,
    windows: int = IMAGES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> QuantizedDecoder:
    """Write the decoder of a run into the folder `out` with its networks in 8-bit integers.

    `epochs` are the trials it was trained on; `windows` of them, one of each class at least and
    chosen by `seed`, set the ranges. Each fold is trained again, quantized by windows of its own
    training, and both are scored on what it holds out: torch rounds otherwise on other processors,
    so the run's old scores are not what its integers are compared with. What is written is a run
    like any other.

    Raises `MismatchError` for a decoder without networks, for one that is quantized already and for
    too few windows, `DataError` for other trials, `RunError` for a folder that is taken.
    """
    run, out = Path(run), check_free(out)
    decoder, about = load(run)
    held, _ = load_held_out(run)
    held.check_trials(epochs)
    nets = networks_of(decoder)
    if not nets:
        raise MismatchError(
            f"{run} is a {about['decoder']} without a network; its decoder.c is float, and small"
        )
    nets[0].check_floats("quantizing it")
    config = DecoderConfig(about["decoder"], about["seed"], about.get("keep_ratio"))

    def finish(
        made: TrainedDecoder, features: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> TrainedDecoder:
        chosen = places(labels, class_names(made), windows, seed, epochs.source)
        return in_integers(made, features[chosen])

    def finish_fold(
        made: TrainedDecoder, features: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> TrainedDecoder:
        ours = finish(made, features, labels)
        return ours if len(epochs) <= FEW else with_compiled_integers(ours)

    floats, ours = held_out_by_each(
        epochs, about["split"], about["window"], config, [as_trained, finish_fold], progress
    )
    looking = epochs.looking()
    features = config.features(looking, decoder.bank, about["window"])
    whole = finish(decoder, features, looking.labels)
    seen = ours.tested & (ours.labels >= 0)
    whole = with_temperature(whole, temperature_for(ours.scores[seen], ours.labels[seen]))
    chosen = places(looking.labels, class_names(decoder), windows, seed, epochs.source)
    found = _figures(decoder, whole, features[chosen], (floats, ours), held, out, seed)
    ranges = {"windows": len(chosen), "seed": seed, "leancnn": __version__}
    about = {**about, "quantized": ranges}
    save(whole, out, about)
    save_held_out(ours, out, about)
    copy_provenance(run, out)
    write_checked(out / FIGURES, found.to_json())
    return found


def class_names(decoder: TrainedDecoder) -> tuple[str, ...]:
    """The candidates as a network calls them."""
    return tuple(f"{hz:g} Hz" for hz in decoder.frequencies)


def networks_of(decoder: TrainedDecoder) -> tuple[Network, ...]:
    """All networks of a decoder; none of an untrained one or a logit."""
    parts = decoder.parts if isinstance(decoder, Ensemble) else (decoder,)
    return tuple(net for part in parts if isinstance(part, NetDecoder) for net in part.networks)


def in_integers(decoder: TrainedDecoder, features: NDArray[np.float32]) -> TrainedDecoder:
    """The same decoder, its networks in integers whose ranges are those on `features` (N, planes,
    H, W)."""
    if isinstance(decoder, Ensemble):
        return replace(decoder, parts=tuple(in_integers(p, features) for p in decoder.parts))
    if not isinstance(decoder, NetDecoder):
        assert isinstance(decoder, Logit)
        return decoder
    fed = torch.from_numpy(np.ascontiguousarray(features.transpose(0, 2, 3, 1)))
    networks = [network_in_integers(network, fed) for network in decoder.networks]
    return decoder_of(networks, decoder.frequencies, decoder.bank, decoder.temperature)


def network_in_integers(network: Network, fed: torch.Tensor) -> Network:
    """One network of signals in 8-bit integers, by its values on features `fed` (N, H, W, planes).

    It takes features as they come: mean and deviation are in the scale of its bytes.
    """
    graph = graph_of(network)
    ranges = measure(graph, normalised(network, fed), signals=True)
    planes = network.preprocessing.channels
    return network.with_body(
        IntegerNetwork(to_integers(graph, ranges, network.mean, network.std)),
        mean=[0.0] * planes,
        std=[1.0] * planes,
        made={
            "quantized": {"windows": len(fed), "leancnn": __version__},
            "cut from": dict(network.made),
        },
    )


def with_compiled_integers(decoder: TrainedDecoder) -> TrainedDecoder:
    """The same decoder, its integers answered by compiled C: the same bits, far sooner.

    Floats stay in torch, whose last digits C does not share. Where C cannot be built the reference
    answers, with a warning. Raises `ParityError` should C answer anything else.
    """
    if isinstance(decoder, Ensemble):
        return replace(decoder, parts=tuple(map(with_compiled_integers, decoder.parts)))
    if not (isinstance(decoder, NetDecoder) and any(net.quantized for net in decoder.networks)):
        return decoder
    try:
        return replace(decoder, answers=tuple(map(in_c, decoder.networks)))
    except (MissingDependencyError, CompileError, WriteError) as error:
        warnings.warn(
            f"{error}; meanwhile the reference of the integers answers, the same bits, a tenth of "
            "a second or more a network",
            stacklevel=2,
        )
        return decoder


def in_c(network: Network) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A network of integers as a function of features (N, H, W, planes), compiled."""
    native = compile(network)

    def answer(features: NDArray[np.float32]) -> NDArray[np.float32]:
        return native.logits(planes(features, network.mean, network.std, 1.0))

    return answer


def graph_of(network: Network) -> Graph:
    """Its simplified graph. Raises `MismatchError` for weights that are no numbers."""
    shape = (network.preprocessing.channels, *network.preprocessing.size)
    graph = simplify(import_torch(network.body, shape))
    check_weights(graph, network.name)
    return graph


def normalised(network: Network, fed: torch.Tensor) -> Sequence[torch.Tensor]:
    """Features (N, H, W, planes) as a network computes on them, in batches."""
    return [network.normalise(fed[start : start + BATCH]) for start in range(0, len(fed), BATCH)]


def _accuracy(held: HeldOutScores) -> float:
    """The share of held-out trials with a flicker that the scores classify correctly."""
    seen = held.tested & (held.labels >= 0)
    return float((held.scores.argmax(1) == held.labels)[seen].mean())


def _figures(
    before: TrainedDecoder,
    after: TrainedDecoder,
    features: NDArray[np.float32],
    scores: Sequence[HeldOutScores],
    of_run: HeldOutScores,
    out: Path,
    seed: int,
) -> QuantizedDecoder:
    """What both are worth on what they had not seen, `scores` of floats and of integers, and what
    the networks of `after` take."""
    floats, integers = networks_of(before), networks_of(after)
    seen = of_run.tested & (of_run.labels >= 0)
    answers = [one.scores[seen].argmax(1) for one in scores]
    correct = [answer == of_run.labels[seen] for answer in answers]
    fed = np.ascontiguousarray(features.transpose(0, 2, 3, 1))
    clocks = clock([floats[0], integers[0]], fed[:1])
    bodies = [net.body for net in integers if isinstance(net.body, IntegerNetwork)]
    few = torch.from_numpy(fed[:PROBED])
    layer_errors = errors(
        graph_of(floats[0]), bodies[0], floats[0].normalise(few), few.permute(0, 3, 1, 2)
    )
    return QuantizedDecoder(
        decoder=before.name,
        out=str(out),
        networks=len(floats),
        windows=len(features),
        seed=seed,
        trials=int(seen.sum()),
        accuracy=_accuracy(scores[0]),
        accuracy_of_run=_accuracy(of_run),
        accuracy_int8=_accuracy(scores[1]),
        agreement=float((answers[0] == answers[1]).mean()),
        p=mcnemar(correct[1], correct[0])[2],
        bytes=sum(4 * p.numel() for net in floats for p in net.body.state_dict().values()),
        bytes_int8=sum(body.network.weights() for body in bodies),
        us=clocks[0] if clocks else None,
        us_int8=clocks[1] if clocks else None,
        layers=furthest(layer_errors),
    )
