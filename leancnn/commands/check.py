"""`leancnn check photos/`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, register


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", help="a folder of images in class folders, or 'digits'")


def run(args: Namespace) -> Answer:
    """Go (0) or no-go (1), with every file and class that stands in the way."""
    from leancnn.check import check

    report = check(args.data)
    return Answer(report.to_json(), report.text(), 0 if report.ok else 1)


register(Command("check", "say whether a folder of images is fit for training", arguments, run))
