"""`leancnn recipes`"""

from argparse import Namespace

from leancnn.commands._base import Answer, Command, no_arguments, register
from leancnn.tables import short, table


def run(args: Namespace) -> Answer:
    """Every registered recipe."""
    from leancnn import recipes

    rows = [recipes.get(name).to_json() for name in recipes.names()]
    shown = [{**row, "source": short(row["source"], 56)} for row in rows]
    return Answer(rows, table(shown, ["name", "network", "epochs", "batch", "lr", "source"]))


register(Command("recipes", "list the recipes for training", no_arguments, run))
