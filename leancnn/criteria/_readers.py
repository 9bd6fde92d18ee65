"""The layers that read channels which may be cut, and which of those they read where."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from leancnn.criteria._base import Subject
from leancnn.criteria._layers import gate_layers

Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads channels which may be cut."""

    path: str
    layer: Layer
    coupled: NDArray[np.int64]
    """(groups, C): of each channel of each group."""

    @property
    def weight(self) -> Tensor:
        """(groups, filters, C, pixels) in double."""
        groups, channels = self.coupled.shape
        weight = self.layer.weight.detach().double()
        return weight.reshape(groups, len(weight) // groups, channels, -1)

    @property
    def room(self) -> int:
        """Bytes of its patch products."""
        groups, _, channels, pixels = self.weight.shape
        return 8 * groups * (channels * pixels) ** 2


def readers(subject: Subject) -> list[Reader]:
    """Convolutions and linear layers that mix cuttable channels, gates aside."""
    gates = tuple(f"{path}." for path, _ in gate_layers(subject))
    cuttable = [
        number
        for channel_group in subject.dependencies.channel_groups
        for number in channel_group.coupled
    ]
    found = []
    for path, row in subject.dependencies.reads.items():
        layer = subject.body.get_submodule(path)
        assert isinstance(layer, Layer)
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        # `reads` has a linear layer's inputs pixel by pixel, channels first
        channels = row[:: len(row) // _width(subject, path)] if groups == 1 else row
        alone = groups > 1 and groups == len(row)
        if not alone and not path.startswith(gates) and np.isin(row, cuttable).any():
            found.append(Reader(path, layer, channels.reshape(groups, -1)))
    return found


def _width(subject: Subject, path: str) -> int:
    """Channels of what a layer reads, flattened or not."""
    node = next(n for n in subject.dependencies.graph.nodes if n.target == path)
    return len(subject.dependencies.rows[node.all_input_nodes[0].name])
