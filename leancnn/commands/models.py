"""`leancnn models`"""

from argparse import ArgumentParser, Namespace
from typing import Any

from leancnn.commands._base import Answer, Command, register
from leancnn.tables import short, table

IMAGES = 10_000  # in the epoch whose time is estimated


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--time",
        action="store_true",
        help=f"estimate the training time of an epoch of {IMAGES:,} images on this machine",
    )


def run(args: Namespace) -> Answer:
    """Every registered network, with the figures its card declares."""
    from leancnn import models

    rows: list[dict[str, Any]] = [
        {
            "name": card.name,
            "source": card.source,
            "image": list(card.image),
            "trainable": card.trainable,
            "frozen": card.frozen,
            "macs": card.macs,
        }
        for card in map(models.card, models.names())
    ]
    shown: list[dict[str, Any]] = [
        {**row, "image": "×".join(map(str, card.image)), "source": short(card.source, 56)}
        for row, card in zip(rows, map(models.card, models.names()), strict=True)
    ]
    columns = ["name", "image", "trainable", "frozen", "macs", "source"]
    if not getattr(args, "time", False):
        return Answer(rows, table(shown, columns))
    from leancnn.train.estimate import REFERENCE, duration, training_rate

    rate = training_rate()
    for row, line in zip(rows, shown, strict=True):
        row["epoch_seconds"] = IMAGES * row["macs"] / rate
        line["epoch"] = duration(row["epoch_seconds"])
    about = (
        f"epoch: an estimate for {IMAGES:,} images on this machine, by operations, from a step of\n"
        f"{REFERENCE} in plain torch ({rate / 1e9:.3g} billion operations/s);\n"
        "networks differ, and a long training says its own before it begins"
    )
    return Answer(rows, f"{table(shown, [*columns[:5], 'epoch', 'source'])}\n{about}")


register(Command("models", "list the networks", arguments, run))
