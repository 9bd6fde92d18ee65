"""`leancnn fit runs/a --board nano33ble`"""

from argparse import ArgumentParser, Namespace

from leancnn.commands._base import Answer, Command, register
from leancnn.tables import table


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, or the folder of a saved network")
    parser.add_argument("--board", metavar="NAME", help="one board; default: all that are known")


def run(args: Namespace) -> Answer:
    """What a network needs beside what microcontroller boards have."""
    from leancnn.boards import boards
    from leancnn.fit import fit, fits
    from leancnn.weights import load

    if args.board:
        boards[args.board]  # a misspelt one ends here
    network = load(args.network)
    found = [fit(network, args.board)] if args.board else fits(network, boards)
    rows = [
        {
            "board": each.board.name,
            "fits": "yes" if each.fits else "no",
            "flash": each.flash,
            "left": each.flash_left,
            "RAM": each.ram,
            "left ": each.ram_left,
        }
        for each in found
    ]
    value = [
        {
            "board": each.board.name,
            "fits": each.fits,
            "flash_bytes": each.flash,
            "flash_left": each.flash_left,
            "ram_bytes": each.ram,
            "ram_left": each.ram_left,
            "keep": round(each.keep, 3),
            "smaller": list(each.smaller),
        }
        for each in found
    ]
    text = str(found[0]) if args.board else table(rows)
    return Answer(value, text, 0 if any(each.fits for each in found) else 1)


register(Command("fit", "whether a network fits a microcontroller board", arguments, run))
