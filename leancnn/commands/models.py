"""`leancnn models`"""

from argparse import Namespace

from leancnn.commands._base import Answer, Command, no_arguments, put
from leancnn.tables import short, table


def run(args: Namespace) -> Answer:
    """Every network on the shelf, with the figures its card declares."""
    from leancnn import models

    rows = [
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
    shown = [
        {**row, "image": "×".join(map(str, card.image)), "source": short(card.source, 56)}
        for row, card in zip(rows, map(models.card, models.names()), strict=True)
    ]
    return Answer(rows, table(shown, ["name", "image", "trainable", "frozen", "macs", "source"]))


put(Command("models", "list the networks", no_arguments, run))
