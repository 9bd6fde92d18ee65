"""A small network with squeeze-and-excitation gates, and what tests ask of leancnn prune."""

import json

import torch

from leancnn.cli import main
from leancnn.models.lbmbnet import lbmbnet


def tiny_gates(
    *, classes: int = 3, channels: int = 3, repeats: int = 1, expansion: int = 4
) -> torch.nn.Module:
    return lbmbnet(classes=classes, channels=channels, repeats=repeats, expansion=expansion)


def answer(capsys, *words):
    """What a command prints with --json."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def small_files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
