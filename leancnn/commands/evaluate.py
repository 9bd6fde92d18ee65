"""`leancnn evaluate runs/a`"""

from argparse import ArgumentParser, Namespace
from typing import Any

from leancnn.commands._base import Answer, Command, check_picture, register


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, or the folder of a saved network")
    parser.add_argument("--data", help="another test set; default: the one of the run's data")
    parser.add_argument(
        "--checkpoint",
        dest="which",
        choices=("best", "last", "both"),
        help="of a run's networks: best in validation (default), last epoch, or both",
    )
    parser.add_argument(
        "--reject",
        type=float,
        metavar="P",
        help="also count as if answers below this probability, 0 to 1, were refused",
    )
    parser.add_argument(
        "--picture", metavar="PNG", help="where to draw the confusion matrix; default: the run"
    )


def run(args: Namespace) -> Answer:
    """Accuracy with its interval, figures per class, and a picture; each use is counted."""
    check_picture(args, "picture")
    from leancnn.evaluate import evaluate

    if args.which != "both":
        found = evaluate(
            args.network, args.data, which=args.which, picture=args.picture, reject=args.reject
        )
        return Answer(found.to_json(), found.text())
    both: list[Any] = [
        evaluate(args.network, args.data, which="best", picture=args.picture, reject=args.reject),
        evaluate(args.network, args.data, which="last", reject=args.reject),
    ]
    return Answer([found.to_json() for found in both], "\n\n".join(found.text() for found in both))


register(Command("evaluate", "measure a trained network on the test set", arguments, run))
