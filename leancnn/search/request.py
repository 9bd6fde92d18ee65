"""What a search is asked for: a value, the same in every call that goes on with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancnn import recipes
from leancnn.data import Dataset, names, recognise
from leancnn.errors import DataError, UsageError
from leancnn.models import card
from leancnn.search.budget import Budget
from leancnn.search.space import Architecture, Size, searched
from leancnn.training_data import LARGEST_SEED, images_for, preprocessing_for

FEWEST = 20  # validation images that tell networks apart at all


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """Everything but the hours, of which a later call may give more."""

    data: str
    """A name that is known, or an absolute path."""
    budget: Budget
    networks: tuple[str, ...] | None
    """To search among; None: all."""
    sizes: tuple[Size, ...] | None
    """Of the images; None: those of each network's card, and a few more."""
    epochs: int | None
    """The longest training of one network; None: as the hours allow."""
    seed: int
    val_share: float | None
    integers: bool = True
    """Whether what is found may be a network of 8-bit integers."""
    clock_on: str | None = None
    """A command that times C files where time counts; None: here."""
    pruning: bool = True
    """Whether wide networks are pruned to the budget, too."""

    @classmethod
    def of(
        cls,
        data: str | Path,
        *,
        budget: Budget | None,
        networks: Sequence[str] | None,
        sizes: Sequence[Size] | None,
        epochs: int | None,
        seed: int,
        val_share: float | None,
        integers: bool = True,
        clock_on: str | None = None,
        pruning: bool = True,
    ) -> "SearchRequest":
        """The words of `search`. Raises `UsageError`, `DataError` for no data set."""
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"a seed is 0 to {LARGEST_SEED}, not {seed}")
        recognise(data)
        return cls(
            data=str(data) if str(data) in names() else str(Path(data).resolve()),
            budget=budget or Budget(),
            networks=None if networks is None else tuple(networks),
            sizes=None if sizes is None else tuple(sizes),
            epochs=epochs,
            seed=seed,
            val_share=val_share,
            integers=integers,
            clock_on=clock_on,
            pruning=pruning,
        )

    def space(self) -> dict[str, Any]:
        """What narrows the search, as plain JSON values."""
        return {
            "networks": None if self.networks is None else list(self.networks),
            "sizes": None if self.sizes is None else [list(size) for size in self.sizes],
            "epochs": self.epochs,
            "integers": None if self.integers else False,  # an older search says nothing of them
            "clock_on": self.clock_on,
            "pruning": None if self.pruning else False,
        }

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            "data": self.data,
            "budget": self.budget.to_json(),
            "seed": self.seed,
            "val_share": self.val_share,
            **self.space(),
        }

    def images(self) -> Dataset:
        """The images, as the first network takes them that is asked for. Raises as `images`."""
        name = (self.networks or tuple(searched()))[0]
        first = Architecture(
            network=name,
            arguments={},
            size=(self.sizes or (card(name).image[1:],))[0],
            channels=3,
            classes=2,
            macs=0,
            bytes=0,
        )
        return images(self.data, first, self.val_share, self.seed)


def images(data: str, architecture: Architecture, val_share: float | None, seed: int) -> Dataset:
    """Train and validation part as an architecture takes them. Raises `DataError` for too few."""
    recipe = recipes.for_network(architecture.network)
    asked = recipe.changed(size=list(architecture.size), scale=None, channels=architecture.channels)
    taken = preprocessing_for(architecture.network, asked)
    dataset = images_for(data, taken, val_share=val_share, split_seed=seed)
    there = 0 if dataset.val is None else len(dataset.val)
    if there < FEWEST:
        raise DataError(
            f"{data} has {there} validation images, too few to tell networks apart; at least "
            f"{FEWEST} are needed: add images, or set more apart with --val-share"
        )
    return dataset
