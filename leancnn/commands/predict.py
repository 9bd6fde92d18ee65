"""`leancnn predict runs/a picture.jpg folder/`"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from leancnn.commands._base import Answer, Command, add_checkpoint, check_picture, register
from leancnn.errors import UsageError
from leancnn.progress import tell
from leancnn.tables import table

MOST_ON_A_SHEET = 200


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, a saved network, or a compiled one (.so)")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="an image, or a folder of them")
    parser.add_argument("--top", type=int, default=3, help="classes to list, default 3")
    parser.add_argument("--sheet", metavar="PNG", help="draw the pictures with their labels")
    add_checkpoint(parser)


def run(args: Namespace) -> Answer:
    """Labels and probabilities; files that cannot be used are listed, and make the status 1."""
    if args.top < 1:
        raise UsageError(f"--top is 1 or more, not {args.top}")
    check_picture(args, "sheet")
    from leancnn.predict import captions, open_classifier, predict_readable

    network = open_classifier(args.network, args.which)
    found, refused = predict_readable(network, args.paths, top=args.top)
    value = {
        "network": args.network,
        "predictions": [item.to_json() for item in found],
        "refused": [item.to_json() for item in refused],
    }
    lines = [table([_row(item) for item in found])]
    if args.sheet:
        from leancnn.plots import contact_sheet
        from leancnn.runs import atomic_write

        shown = found[:MOST_ON_A_SHEET]
        images = [network.pictures().read(item.path).image for item in shown]
        atomic_write(Path(args.sheet), contact_sheet(images, captions(shown)))
        value["sheet"] = args.sheet
        lines.append(f"{args.sheet}: {len(shown)} of {len(found)} pictures")
    for item in refused:
        tell(item.reason)
    return Answer(value, "\n".join(filter(None, lines)), 1 if refused else 0)


def _row(item: Any) -> dict[str, object]:
    return {
        "file": item.path,
        "label": item.label,
        "probability": item.probability,
        "then": ", ".join(f"{label} {share:.3f}" for label, share in item.top[1:]),
        "warnings": "; ".join(item.warnings),
    }


register(Command("predict", "label images with a trained network", arguments, run))
