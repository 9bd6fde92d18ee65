"""The whole way from a graph to C text."""

from collections.abc import Sequence
from dataclasses import replace

from leancnn.compiler.emit import emit
from leancnn.compiler.frame import GeneratedC, Metadata
from leancnn.compiler.graph import Graph
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.narrow import narrow_tiles
from leancnn.compiler.patches import smallest
from leancnn.compiler.simplify import simplify
from leancnn.compiler.tune import tune as best_tiles
from leancnn.errors import MismatchError, UnsupportedError
from leancnn.version import __version__


def translate(
    graph: Graph,
    *,
    name: str,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    about: str = "",
    source: str = "",
    logits: bool = True,
    tune: float | None = None,
    small: bool = False,
    full_scale: float = 255.0,
    narrow: bool = False,
) -> GeneratedC:
    """A graph as C. `about` is JSON for whoever loads the library; `source` is for people;
    `logits` says that softmax makes probabilities of the answers; `tune` is for how many seconds
    tiles may be timed, None for the cost model alone; `small` asks for the least memory, in plain
    loops (the file sets LANES to 1), and for an arena that the caller always gives; `narrow` for
    tiles of four lanes and few registers.
    `full_scale` is what counts as 1 before the mean is taken off: 255 for pixels of bytes, 1 for
    features that come as floats.

    Raises `UnsupportedError` for a network that is no image classifier, `MismatchError` for class
    names or means that do not fit it.
    """
    graph = simplify(graph)
    metadata = Metadata(
        name=name,
        classes=tuple(classes),
        mean=tuple(mean),
        std=tuple(std),
        source=source,
        version=__version__,
        about=about,
        logits=logits,
        full_scale=full_scale,
    )
    _check(graph, metadata)
    tiles = {} if tune is None else best_tiles(graph, tune)
    tiles = narrow_tiles(graph) if narrow else tiles
    if small:
        graph, metadata = _in_strips(graph, metadata)
    return emit(schedule(lower(graph), tiles, small=small), metadata, plain=small)


def _check(graph: Graph, metadata: Metadata) -> None:
    """Refuse class names and means that do not fit a network. Raises as `translate`."""
    answers, channels = graph.shapes[graph.output][0], graph.shapes[graph.input][0]
    for word in metadata.classes:
        if any(c == "\0" or "\ud800" <= c < "\ue000" for c in word):
            raise UnsupportedError(f"the class {word!r} has a character that no text in C can hold")
    if len(metadata.classes) != answers:
        raise MismatchError(
            f"{len(metadata.classes)} class names for a network of {answers} answers"
        )
    if not len(metadata.mean) == len(metadata.std) == channels:
        raise MismatchError(f"{channels} channels need as many means and stds")


def _in_strips(graph: Graph, metadata: Metadata) -> tuple[Graph, Metadata]:
    """The graph with the least memory, its first layers in strips where that pays, and a note."""
    small = smallest(graph)
    more = small.macs() - graph.macs()
    if not more:
        return small, metadata
    share = f"first layers in strips, for {more / graph.macs():.1%} more multiply-accumulates"
    return small, replace(
        metadata, source=f"{metadata.source}, {share}" if metadata.source else share
    )
