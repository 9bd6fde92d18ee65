"""`leancnn compile runs/a --out build/`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, add_checkpoint, register, size
from leancnn.errors import UsageError
from leancnn.progress import Waiting
from leancnn.tables import printable


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, a saved network, or an ONNX file")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the files go")
    parser.add_argument("--name", help="of files and C symbols; default: the network's")
    add_checkpoint(parser)
    parser.add_argument(
        "--tune", type=float, metavar="SECONDS", help="time register tiles here for so long"
    )
    parser.add_argument(
        "--size", type=size, metavar="HxW", help="of the image, if an ONNX file leaves it open"
    )
    parser.add_argument("--input", metavar="NAME", help="which input, if an ONNX file has several")
    parser.add_argument("--output", metavar="NAME", help="which output, if it has several")


def run(args: Namespace) -> Answer:
    """A C file, its header, and the library built from them on this machine."""
    from leancnn.compile import compile
    from leancnn.weights import load

    if args.which is not None and args.network.lower().endswith(".onnx"):
        raise UsageError("an ONNX file is one network; leave out --checkpoint")
    with Waiting("compile"):
        native = compile(
            args.network if args.which is None else load(args.network, args.which),
            out=args.out,
            tune=args.tune,
            size=args.size,
            input=args.input,
            output=args.output,
            name=args.name,
        )
    value = {
        "network": native.name,
        "library": str(native.path),
        "source": str(native.path.with_suffix(".c")),
        "macs": native.metadata["macs"],
        "scratch_bytes": native.scratch_bytes,
        "library_bytes": native.path.stat().st_size,
    }
    text = (
        f"{printable(native.path)}: {value['library_bytes']:,} bytes\n"
        f"{native.metadata['macs']:,} multiply-accumulates, "
        f"{native.scratch_bytes:,} bytes of scratch"
    )
    return Answer(value, text)


register(Command("compile", "turn a network or an ONNX file into machine code", arguments, run))
