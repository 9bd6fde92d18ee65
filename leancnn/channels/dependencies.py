"""Which channels of a network hang together: what leaves with a channel when it is cut.

A network is walked once, symbolically. A tensor is a row of numbers, one for each of its channels:
which *coupled channel* it belongs to. A convolution that mixes channels writes new ones; norms,
activations, pools and depthwise convolutions hand theirs on; a concatenation puts rows in line; a
sum or a gate's product makes the coupled channels of its two rows one. A coupled channel is thus
the least that can be cut: in a residual network the same channel of a whole stage, in a shuffle one
place of every group.

Groups want more than that: each block of a grouped convolution must keep as many channels as the
others, and so must the halves of a split. Those are equal splits; what an equal split or a common
convolution ties is a channel group, which is cut to a number that all its equal splits allow.
"""

import operator
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from leancnn.errors import LeanCNNError, UnsupportedError
from leancnn.layers import RMAC, ChannelShuffle, LocalBinaryConv2d, PadChannels, SqueezeExcite

Row = NDArray[np.int64]
"""Of each channel of a tensor, the number of its coupled channel."""
OURS = (ChannelShuffle, LocalBinaryConv2d, PadChannels, RMAC)
ALONE = (  # modules whose channels see nothing of each other
    *(LocalBinaryConv2d, RMAC, nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Tanhshrink, nn.Softplus, nn.Softsign, nn.Threshold),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample),
    *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
)
ALONE_TOO: frozenset[Any] = frozenset(  # functions of which the same holds
    (
        *("relu", "sigmoid", "tanh", "contiguous", torch.relu, torch.sigmoid, torch.tanh),
        *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish),
        *(F.hardsigmoid, F.hardtanh, F.sigmoid, F.tanh, F.dropout, F.dropout2d, F.interpolate),
        *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    )
)


@dataclass(frozen=True, slots=True)
class EqualSplit:
    """Blocks of one tensor that must keep as many channels as each other."""

    path: str
    """Of the module that asks for it."""
    blocks: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Coupled channels whose number is one decision."""

    name: str
    """Path of the first layer that writes them."""
    coupled: Row
    """Ascending."""
    layers: tuple[str, ...]
    """Paths of the convolutions and linear layers that write them."""
    equal_splits: tuple[EqualSplit, ...]


@dataclass(slots=True)
class Dependencies:
    """The walk's result."""

    graph: fx.Graph
    rows: dict[str, Row] = field(default_factory=dict)
    """By the name of the graph's node; nodes that put out several tensors are left out."""
    reads: dict[str, Row] = field(default_factory=dict)
    """By module path, what a layer with channels of its own reads; flattened maps pixel by pixel.
    """
    writes: dict[str, Row] = field(default_factory=dict)
    """By module path, of every module that ran."""
    channel_groups: list[ChannelGroup] = field(default_factory=list)
    """Those that may be cut, in the order of the network."""
    coupled_count: int = 0

    def group_of(self, path: str) -> ChannelGroup | None:
        """The first group that a module's output has channels of; None where none may go."""
        row = self.writes[path]
        return next((f for f in self.channel_groups if np.isin(row, f.coupled).any()), None)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, OURS) or super().is_leaf_module(m, module_qualified_name)


def find_dependencies(body: nn.Module, channels: int) -> Dependencies:
    """Walk a network that reads `channels` channels, (N, channels, H, W).

    Raises `UnsupportedError` for an operation whose channels cannot be followed.
    """
    return _Walk(body, channels).dependencies


class _Walk:
    """Coupled channels before they have their final numbers: a union-find forest."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        self.modules = dict(body.named_modules())
        self.hidden = {
            f"{path}.reduce" for path, m in self.modules.items() if isinstance(m, SqueezeExcite)
        }
        self.parent: list[int] = []
        self.equal_splits: list[EqualSplit] = []
        self.writers: dict[str, Row] = {}
        self.fixed: list[Row] = []
        self.flat: set[fx.Node] = set()
        """Maps that were flattened: a number for each pixel."""
        self.mixed: set[fx.Node] = set()
        """Concatenations of such, whose channels may have different numbers of pixels."""
        self.channels = channels
        self.dependencies = Dependencies(_traced(body))
        rows: dict[fx.Node, Any] = {}
        for node in self.dependencies.graph.nodes:
            rows[node] = self.run(node, rows)
        self.number(rows)

    # coupled channels

    def new(self, count: int) -> Row:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number

    def join(self, one: Row, other: Row) -> Row:
        """The two rows become one."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            a, b = sorted((self.root(a), self.root(b)))
            self.parent[b] = a
        return one

    def equal_split(self, path: str, row: Row, blocks: int) -> None:
        self.equal_splits.append(EqualSplit(path, tuple(np.split(row, blocks))))

    # steps

    def run(self, node: fx.Node, rows: dict[fx.Node, Any]) -> Any:
        given: Any = fx.node.map_arg(node.args, lambda n: rows[n])
        named: Any = fx.node.map_arg(node.kwargs, lambda n: rows[n])
        if node.op == "placeholder":
            row = self.new(self.channels)
            self.fixed.append(row)
            return row
        if node.op == "output":
            self.fixed.append(given[0])
            return given[0]
        if node.op == "get_attr":
            return None
        if node.op == "call_module":
            path = str(node.target)
            module = self.modules[path]
            if len(given) != 1 or not isinstance(given[0], np.ndarray):
                raise _unknown(node, f"called with {node.args} and {node.kwargs}")
            sized = bool(module.state_dict()) or isinstance(module, PadChannels)
            if sized and path in self.dependencies.writes:
                raise _unknown(node, "runs twice")
            out = self.module(node, path, module, given[0])
            self.dependencies.writes[path] = out
            anew = path in self.writers
        else:
            out, anew = self.function(node, given, named), False
        if not anew:
            for such in (self.flat, self.mixed):
                such.update([node] if such.intersection(node.all_input_nodes) else [])
        return out

    def function(self, node: fx.Node, given: Any, named: Any) -> Any:
        if node.target in (operator.add, operator.mul, torch.add, torch.mul, operator.iadd):
            both = [row for row in given if isinstance(row, np.ndarray)]  # the rest are numbers
            if len(both) == 1:
                if any(one is None for one in given):  # a parameter, which a cut would not fit
                    self.fixed.append(both[0])
                return both[0]
            if len(both) == 2 and len(both[0]) == len(both[1]):
                return self.join(*both)
        if node.target is torch.cat and _dim(node, 1) == 1:
            if (self.flat | self.mixed).intersection(node.all_input_nodes):
                self.mixed.add(node)
            return np.concatenate(given[0] if given else named["tensors"])
        if node.target is operator.getitem and isinstance(given[0], tuple):
            return given[0][given[1]]
        if node.target is operator.getitem and _all_channels(node.args[1]):
            return given[0]
        if node.target in ALONE_TOO:
            if named.get("training") and not self.modules[""].training:
                raise _unknown(node, "it drops when the network is at rest, too")
            return given[0]
        if node.target in ("mean", torch.mean) and _dims(node) in ((2, 3), (-2, -1)):
            return given[0]
        if node.target in ("flatten", torch.flatten) and _dims(node) == (1,):
            self.flat.add(node)
            return given[0]
        if node.target == "chunk" and _dim(node, 2) == 1:
            count = given[1] if len(given) > 1 else named["chunks"]
            if len(given[0]) % count == 0:
                self.equal_split(node.name, given[0], count)
                return tuple(np.split(given[0], count))
        raise _unknown(node, f"{node.op} {node.target}")

    def module(self, node: fx.Node, path: str, module: nn.Module, row: Row) -> Row:
        if parametrize.is_parametrized(module):
            raise _unknown(node, "its weights are computed from others")
        match module:
            case nn.Conv2d():
                return self.conv(path, module, row)
            case nn.Linear():
                return self.linear(node, path, module, row)
            case ChannelShuffle():
                places = row.reshape(module.groups, -1)
                for group in places[1:]:
                    self.join(places[0], group)
                return places.T.reshape(-1)
            case PadChannels():
                return np.concatenate([self.new(module.before), row, self.new(module.after)])
            case nn.Flatten() if module.start_dim == 1 and module.end_dim == -1:
                self.flat.add(node)
                return row
            case nn.BatchNorm1d() | nn.BatchNorm2d() if module.num_features == len(row):
                return row
            case nn.PReLU() if module.num_parameters == 1:
                return row
            case nn.InstanceNorm2d() if not (module.affine or module.track_running_stats):
                return row
        if isinstance(module, ALONE):
            return row
        raise _unknown(node, type(module).__name__)

    def conv(self, path: str, module: nn.Conv2d, row: Row) -> Row:
        self.dependencies.reads[path] = row
        c_in, c_out, groups = module.in_channels, module.out_channels, module.groups
        if groups == c_in == c_out > 1:
            return row
        out = self.writers[path] = self.new(c_out)
        if groups > 1:
            self.equal_split(path, row, groups)
            self.equal_split(path, out, groups)
        return out

    def linear(self, node: fx.Node, path: str, module: nn.Linear, row: Row) -> Row:
        pixels, more = divmod(module.in_features, len(row))
        if more or (pixels > 1 and self.mixed.intersection(node.all_input_nodes)):
            raise _unknown(node, f"{module.in_features} inputs of {len(row)} channels")
        self.dependencies.reads[path] = np.repeat(row, pixels)
        out = self.writers[path] = self.new(module.out_features)
        if path in self.hidden:
            self.fixed.append(out)
        return out

    # the end

    def number(self, rows: dict[fx.Node, Any]) -> None:
        """Roots become 0, 1, 2 …, and channel groups are made of them."""
        roots = sorted({self.root(number) for number in range(len(self.parent))})
        place = {root: index for index, root in enumerate(roots)}
        final = np.array([place[self.root(number)] for number in range(len(self.parent))])
        dependencies = self.dependencies
        dependencies.coupled_count = len(roots)
        dependencies.rows = {
            n.name: final[row] for n, row in rows.items() if isinstance(row, np.ndarray)
        }
        dependencies.reads = {path: final[row] for path, row in dependencies.reads.items()}
        dependencies.writes = {path: final[row] for path, row in dependencies.writes.items()}
        writers = {path: final[row] for path, row in self.writers.items()}
        equal_splits = [
            EqualSplit(b.path, tuple(final[block] for block in b.blocks)) for b in self.equal_splits
        ]
        fixed = set(np.concatenate([final[row] for row in self.fixed]).tolist())
        dependencies.channel_groups = _channel_groups(writers, equal_splits, fixed, len(roots))


def _channel_groups(
    writers: dict[str, Row], equal_splits: list[EqualSplit], fixed: set[int], coupled: int
) -> list[ChannelGroup]:
    """Coupled channels that a writer or an equal split ties, unless one of them may not be cut."""
    forest = list(range(coupled))

    def root(number: int) -> int:
        while forest[number] != number:
            forest[number] = forest[forest[number]]
            number = forest[number]
        return number

    ties = [*writers.values(), *(np.concatenate(b.blocks) for b in equal_splits)]
    for tie in ties:
        first, *others = np.unique(tie).tolist()
        for number in others:
            forest[root(number)] = root(first)
    barred = {root(number) for number in fixed}
    paths: dict[int, list[str]] = defaultdict(list)
    for path, row in writers.items():
        paths[root(int(row[0]))].append(path)
    asked: dict[int, list[EqualSplit]] = defaultdict(list)
    for equal_split in equal_splits:
        asked[root(int(equal_split.blocks[0][0]))].append(equal_split)
    members: dict[int, list[int]] = defaultdict(list)
    for number in range(coupled):
        members[root(number)].append(number)
    return [
        ChannelGroup(layers[0], np.array(members[key]), tuple(layers), tuple(asked[key]))
        for key, layers in paths.items()
        if key not in barred
    ]


def _traced(body: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(body)
    except LeanCNNError:
        raise
    except Exception as error:  # whatever a network does with what is not there yet
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(f"pruning cannot follow this network: {reason}") from error


def _unknown(node: fx.Node, why: str) -> UnsupportedError:
    return UnsupportedError(f"pruning cannot follow channels through '{node.name}' ({why})")


def _all_channels(index: object) -> bool:
    """Whether x[index] has every image and channel of x, whatever of their pixels."""
    return isinstance(index, tuple) and index[:2] == (slice(None), slice(None))


def _dims(node: fx.Node) -> tuple[Any, ...]:
    """Over which axes a mean goes, or from which a flattening."""
    named = node.kwargs.get("dim", node.kwargs.get("start_dim"))
    found = node.args[1] if len(node.args) > 1 else named
    return tuple(found) if isinstance(found, list | tuple) else (found,)


def _dim(node: fx.Node, place: int) -> int:
    value = node.kwargs.get("dim", node.args[place] if len(node.args) > place else 0)
    return value if isinstance(value, int) else -1
