"""`leancnn demo`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, register


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="leancnn-demo", help="where to leave the run; default: leancnn-demo"
    )
    parser.add_argument("--epochs", type=float, help="fewer, to see only that it works")


def run(args: Namespace) -> Answer:
    """Check, train, test once, count and predict on scikit-learn's handwritten digits."""
    from leancnn.demo import demo

    value = demo(args.out, epochs=args.epochs)
    test = value["test"]
    interval = f"95 % interval {test['low']:.2%} to {test['high']:.2%}"
    return Answer(
        value, f"test accuracy {test['accuracy']:.2%}, {interval}; see {value['picture']}"
    )


register(Command("demo", "the whole way on handwritten digits, without a network", arguments, run))
