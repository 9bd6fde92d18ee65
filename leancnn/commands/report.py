"""`leancnn report runs/a runs/b --out report.html`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, register


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="runs, saved networks, comparisons, EEG runs; files that --json printed",
    )
    parser.add_argument(
        "--out", default="report.html", metavar="HTML", help="the page; default: report.html"
    )
    parser.add_argument("--title", help="of the page; default: what it is about")
    parser.add_argument(
        "--no-pictures", action="store_true", help="leave out the pictures of the data"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is no report")


def run(args: Namespace) -> Answer:
    """The page, and what could not stand on it."""
    from leancnn.report import report

    written = report(
        args.paths,
        args.out,
        title=args.title,
        pictures=not args.no_pictures,
        force=args.force,
    )
    return Answer(written.to_json(), written.text())


register(Command("report", "one page about runs, to share and to print", arguments, run))
