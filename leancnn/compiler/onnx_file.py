"""An ONNX file as a model in memory: weights from beside it, functions written out, one output."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from leancnn.errors import DamagedError, MissingDependencyError, RunError, UnsupportedError

NODES = 20_000  # operators, those of local functions counted at every call
DEEP = 64  # functions that call functions
BYTES = 2**31  # of a file, and of the weights beside it


def read_onnx(path: Path) -> Any:
    """The model in a file. Of other files only weights are read that lie in its own folder's tree.

    Raises `RunError` when there is none, `DamagedError` for what is no ONNX file,
    `UnsupportedError` for one that is too large or whose weights lie elsewhere,
    `MissingDependencyError` without onnx.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError as error:
        raise MissingDependencyError(
            "onnx is not installed; pip install 'leancnn[onnx]'"
        ) from error
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    try:
        if path.stat().st_size > BYTES:
            raise UnsupportedError(f"{path}: it is larger than {BYTES:,} bytes")
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("no operator in it")
        _fetch(_weights(model.graph), path)
        _check_size(model, path)
        if model.functions:
            model = inliner.inline_local_functions(model)
    except UnsupportedError:
        raise
    except Exception as error:  # protobuf's errors share no class of their own
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: not an ONNX file ({reason})") from error
    return model


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _weights(graph: Any) -> Iterator[Any]:
    """Those of a graph, of its constants and of its branches."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
        for branch in _subgraphs(node):
            yield from _weights(branch)


def _fetch(tensors: Iterable[Any], path: Path) -> None:
    """Put weights that lie in files of the model's folder into it. Raises `UnsupportedError`."""
    from onnx import external_data_helper as external

    left = BYTES
    for tensor in tensors:
        if not external.uses_external_data(tensor):
            continue
        about = {entry.key: entry.value for entry in tensor.external_data}
        place = about.get("location", ""), int(about.get("offset", 0)), about.get("length")
        data = _beside(path, *place, left)
        left -= len(data)
        tensor.raw_data = data
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _beside(path: Path, name: str, offset: int, length: Any, most: int) -> bytes:
    """Bytes of a file in the tree of the model's folder, or of that where the model itself lies
    when `path` is a link, as caches of downloads have it. Raises `UnsupportedError`."""

    def refused(why: str) -> UnsupportedError:
        return UnsupportedError(f"{path}: its weights are to be in the file {name!r}, {why}")

    if Path(name).is_absolute() or "\0" in name or not name:
        raise refused("which is no path relative to the model")
    place = Path(os.path.realpath(path.parent / name))
    homes = (Path(os.path.realpath(path.parent)), Path(os.path.realpath(path)).parent)
    if not any(place.is_relative_to(home) for home in homes):
        raise refused("which lies outside the model's folder")
    try:
        number = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(number, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise refused("which is no regular file")
            if about.st_nlink > 1:  # its other name may stand anywhere
                raise refused("which has other names (hard links); copy it")
            wanted = about.st_size - offset if length is None else int(length)
            if offset < 0 or wanted < 0 or offset + wanted > about.st_size:
                raise refused(f"which ends before byte {offset + max(wanted, 0):,}")
            if wanted > most:
                raise refused(f"which makes more than {BYTES:,} bytes of them")
            file.seek(offset)
            return file.read(wanted)
    except FileNotFoundError as error:
        raise refused("which is not there") from error
    except OSError as error:
        raise refused(f"which cannot be read ({error.strerror})") from error


def _check_size(model: Any, path: Path) -> None:
    """Raises `UnsupportedError` for more operators than the importer takes, once functions are
    written out; none is written out before."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    known: dict[tuple[str, str, str], int] = {}

    def count(nodes: Iterable[Any], deep: int) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += of_function(key, deep + 1) if key in functions else 1
            total += sum(count(branch.node, deep + 1) for branch in _subgraphs(node))
        return total

    def of_function(key: tuple[str, str, str], deep: int) -> int:
        if deep > DEEP:
            raise UnsupportedError(f"{path}: its functions call each other {DEEP} deep and more")
        if key not in known:
            known[key] = count(functions[key].node, deep)
        return known[key]

    total = count(model.graph.node, 0)
    if total > NODES:
        raise UnsupportedError(
            f"{path}: it has {total:,} operators, functions written out; at most {NODES:,}"
        )


def ends(model: Any, given: str | None, output: str | None) -> tuple[Any, Any]:
    """The input and the output that are meant; what the output does not need is taken out.

    Raises `UnsupportedError` where a choice is due, or something else is read.
    """
    graph = model.graph
    found = _chosen("output", list(graph.output), output)
    producers = {name: node for node in graph.node for name in node.output if name}
    needed, left = {found.name}, [found.name]
    while left:
        node = producers.get(left.pop())
        for name in () if node is None else _reads(node):
            if name not in needed:
                needed.add(name)
                left.append(name)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [v for v in graph.input if v.name not in weights]
    read = [value for value in inputs if value.name in needed]
    start = _chosen("input", read or inputs, given)
    if odd := [value.name for value in read if value.name != start.name]:
        raise UnsupportedError(
            f"its output '{found.name}' needs {len(odd) + 1} inputs, '{start.name}' and "
            f"'{odd[0]}'; the compiler takes one"
        )
    _keep(graph.node, [n for n in graph.node if needed.intersection(n.output)])
    _keep(graph.initializer, [t for t in graph.initializer if t.name in needed])
    _keep(graph.input, [v for v in graph.input if v.name in needed or v.name == start.name])
    _keep(graph.output, [found])
    return start, found


def _keep(field: Any, items: list[Any]) -> None:
    if len(items) < len(field):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(copies)


def _chosen(what: str, values: list[Any], name: str | None) -> Any:
    names = [value.name for value in values]
    listed = ", ".join(names[:8]) or "none"
    if name is not None:
        if name not in names:
            raise UnsupportedError(f"it has no {what} '{name}'; there are: {listed}")
        return values[names.index(name)]
    if len(values) != 1:
        hint = f"; choose one with --{what}" if values else ""
        raise UnsupportedError(f"it has {len(values)} {what}s ({listed}){hint}")
    return values[0]


def _reads(node: Any) -> list[str]:
    """The values that an operator and its branches read."""
    names = list(node.input)
    for branch in _subgraphs(node):
        names += [name for inner in branch.node for name in _reads(inner)]
        names += [value.name for value in branch.output]
    return names
