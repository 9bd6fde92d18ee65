"""`leancnn export runs/a --to c --out build/`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, add_checkpoint, register
from leancnn.progress import Waiting
from leancnn.tables import table


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, or the folder of a saved network")
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        default="c",
        help="c (the default), onnx, openvino, ncnn, litert …",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the files go")
    parser.add_argument("--name", help="of files and C symbols; default: the network's")
    parser.add_argument(
        "--tune", type=float, metavar="SECONDS", help="time register tiles here for so long"
    )
    parser.add_argument("--small", action="store_true", help="c: plain loops, the least memory")
    parser.add_argument("--cmake", action="store_true", help="c: a CMake project, JNI and Swift")
    parser.add_argument("--single", action="store_true", help="web: one file, for a double click")
    add_checkpoint(parser)


def run(args: Namespace) -> Answer:
    """The files of a network in another format, after a comparison with PyTorch."""
    from leancnn.export import export
    from leancnn.targets import targets
    from leancnn.weights import load

    targets[args.to]  # a misspelt one ends here, whatever the network
    options = {key: getattr(args, key) for key in ("tune", "single", "small", "cmake", "name")}
    with Waiting("export") as sign:
        sign.to("reading the network")
        network = load(args.network, args.which)
        paths = export(network, to=args.to, out=args.out, **options)
    files = [{"file": str(path), "bytes": _bytes(path)} for path in paths]
    value = {"network": network.name, "to": args.to, "files": files}
    return Answer(value, f"{table(files)}\nits answers are PyTorch's")


def _bytes(path: object) -> int:
    from pathlib import Path

    place = Path(str(path))
    found = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in found)


register(Command("export", "write a network for another engine", arguments, run))
