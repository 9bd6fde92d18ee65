"""`leancnn serve runs/a --port 8000`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, add_checkpoint, register
from leancnn.progress import tell


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, a saved network, or a compiled library")
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one; default: 8000")
    parser.add_argument("--workers", type=int, metavar="N", help="threads; default: the cores")
    parser.add_argument("--waiting", type=int, metavar="N", help="requests at once; default: 64")
    parser.add_argument("--max-wait", type=float, metavar="SECONDS", help="default: 0.5")
    parser.add_argument("--max-body", type=int, metavar="BYTES", help="default: 20,000,000")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="default: 16,000,000")
    add_checkpoint(parser)


def run(args: Namespace) -> Answer:
    """A network behind HTTP, until Ctrl-C."""
    from leancnn.compile import compile
    from leancnn.predict import open_classifier
    from leancnn.serve import Limits, Service, listen, serve
    from leancnn.weights import Network

    names = {
        "workers": "workers",
        "waiting": "waiting",
        "max_wait": "wait_s",
        "max_body": "body",
        "max_pixels": "pixels",
    }
    given = {
        limit: value for name, limit in names.items() if (value := getattr(args, name)) is not None
    }
    limits = Limits(**given)
    listening = listen(args.host, args.port)
    network = open_classifier(args.network, args.which)
    native = compile(network) if isinstance(network, Network) else network
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    tell(f"{native.name} at {address}; Ctrl-C ends it")
    serve(Service(native, limits), listening)
    return Answer({"served": native.name, "address": address}, "ended")


register(Command("serve", "answer over HTTP", arguments, run))
