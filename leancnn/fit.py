"""Whether a network fits a microcontroller board, and what would."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from leancnn import models
from leancnn.boards import Board, boards
from leancnn.compiler.frame import GeneratedC
from leancnn.errors import LeanCNNError
from leancnn.targets._c_text import to_c
from leancnn.weights import Input, Network, load

CODE = 64_000  # bytes, about, of a network's functions and of the example around it
RESERVED = 16_384  # bytes of RAM for the framework, its buffers and the stack


class Needs(NamedTuple):
    """Bytes that the C of a network needs in plain loops and the least memory."""

    flash: int
    """Constants, and `CODE` for functions."""
    ram: int
    """Scratch."""


def needs(network: Network) -> Needs:
    """What the C of `network` needs. Raises `UnsupportedError` for one that has no C."""
    return _needs(to_c(network, small=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a network needs of a board, in bytes; what is left is below 0 where it does not fit."""

    board: Board
    flash: int
    """Constants, the example's pixels, and `CODE` for functions."""
    ram: int
    """Scratch, pixels, probabilities, and `RESERVED` for everything else."""
    pixels: int
    """Bytes of the example's image, which is in `flash`."""
    smaller: tuple[str, ...] = ()
    """Networks of ours for the same pixels that would fit, the largest first."""

    @property
    def flash_left(self) -> int:
        return self.board.flash - self.flash

    @property
    def ram_left(self) -> int:
        return self.board.ram - self.ram

    @property
    def fits(self) -> bool:
        return self.flash_left >= 0 and self.ram_left >= 0

    @property
    def keep(self) -> float:
        """The share of channels, about, that a cut may keep: maps shrink with it, weights with its
        square."""
        return float(max(0.0, min(1.0, *self._shares())))

    def _shares(self) -> tuple[float, float]:
        """What flash leaves, and what RAM does."""
        maps = (self.board.ram - RESERVED) / (self.ram - RESERVED)
        weights = max(self.board.flash - CODE, 0) / (self.flash - CODE)
        return weights**0.5, maps

    @property
    def budget(self) -> str:
        """What `leancnn prune` is told for a cut that fits: the scarcer of the two."""
        flash, ram = self._shares()
        if flash < ram:
            return f"--flash {max(0, self.board.flash - self.pixels)}"
        return f"--ram {max(0, self.board.ram - RESERVED)}"

    def __str__(self) -> str:
        """What to tell a person, in a few lines."""
        left = [("flash", self.flash, self.flash_left), ("RAM", self.ram, self.ram_left)]
        lines = [
            f"{what}: {need:,} bytes, {abs(rest):,} {'left' if rest >= 0 else 'missing'}"
            for what, need, rest in left
        ]
        word = "fits" if self.fits else "does not fit"
        lines.insert(0, f"{word} {self.board.title} ({self.board.core}, {self.board.mhz} MHz)")
        if not self.fits:
            lines.append(
                f"a cut to about {self.keep:.0%} of its channels would: leancnn prune {self.budget}"
            )
            lines.append(f"smaller networks: {', '.join(self.smaller) or 'none for these pixels'}")
        return "\n".join(lines)


def fit(network: Network | str | Path, board: str, *, suggest: bool = True) -> Fit:
    """What `network` needs beside what a board has, as C in plain loops and the least memory.

    With `suggest` networks that would fit are named beside one that does not. Raises
    `UnknownNameError` for a board that is not known.

        >>> fit("runs/a", "nano33ble").fits
        True
    """
    place = boards[board]
    network = network if isinstance(network, Network) else load(network)
    (found,) = fits(network, [board])
    if found.fits or not suggest:
        return found
    smaller = tuple(name for _, name in sorted(_smaller(network, place, found), reverse=True))
    return replace(found, smaller=smaller)


def fits(network: Network, names: Iterable[str]) -> list[Fit]:
    """The same for several boards, without what would fit instead."""
    places = [boards[name] for name in names]
    written = to_c(network, small=True)
    return [_fit(written, network.preprocessing, place) for place in places]


def _fit(written: GeneratedC, preprocessing: Input, board: Board) -> Fit:
    pixels = (
        preprocessing.size[0]
        * preprocessing.size[1]
        * preprocessing.channels
        * preprocessing.dtype().itemsize
    )
    flash, ram = _needs(written)
    return Fit(board=board, flash=flash + pixels, ram=ram + RESERVED, pixels=pixels)


def _needs(written: GeneratedC) -> Needs:
    return Needs(written.constant_bytes + CODE, written.scratch_bytes)


def _smaller(network: Network, board: Board, than: Fit) -> Iterator[tuple[int, str]]:
    """Flash and name of networks of ours that take the same pixels and fit."""
    preprocessing = network.preprocessing
    for name in models.names():
        card = models.card(name)
        if 4 * card.trainable > than.flash or card.image[1:] != preprocessing.size:
            continue
        try:
            with torch.random.fork_rng(devices=[]):
                body = models.create_model(
                    name, classes=len(network.classes), channels=preprocessing.channels
                )
            other = Network(
                body.eval(),
                name=name,
                arguments={},
                classes=network.classes,
                preprocessing=preprocessing,
                mean=network.mean,
                std=network.std,
            )
            found = _fit(to_c(other, small=True), preprocessing, board)
        except LeanCNNError:
            continue  # one that takes other pixels or has no C
        if found.fits:
            yield found.flash, name
