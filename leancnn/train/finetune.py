"""Training on in fake quantization: a run beside what comes of it, and what it was asked for.

Where that run stands already it is gone on with, if the same is asked for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leancnn import manifests, recipes, weights
from leancnn.errors import MismatchError
from leancnn.recipes import Recipe
from leancnn.runs import is_run, read_json, write_checked
from leancnn.train.run import resume, train
from leancnn.weights import Network

EPOCHS = 0.1  # of the recipe's
RATE = 0.01  # of its peak
FINAL = 0.01  # of that, in the end


def gentle(recipe: str | Path | Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe for weights that are trained already: a tenth of its epochs, one at least, from a
    hundredth of its rate down half a cosine, without warm-up; `overrides` are fields of it.

    At its own rate the recipe begins anew, and ends where a training of so few epochs ends: see
    docs/log.md. Source: H. Wu et al., Integer Quantization for Deep Learning Inference, 2020.
    Raises as `recipes.read` and `Recipe.changed`.

    >>> from leancnn import recipes
    >>> gentle("henet-fast", {"epochs": 2.0}).lr
    0.0015
    """
    whole = recipes.read(recipe)
    fields = {
        "epochs": max(1.0, EPOCHS * whole.epochs),
        "lr": RATE * whole.lr,
        "schedule": "cosine",
        "warmup": 0.0,
        "final": FINAL,
        "backend": "fake_quantized",
    }
    return whole.changed(**{**fields, **overrides, "backend": "fake_quantized"})


def finetuned(
    network: Network,
    data: str,
    folder: Path,
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any],
    seed: int,
) -> tuple[Network, Recipe]:
    """The network trained on in fake quantization, and by what: a run in `folder`, gone on with if
    there is one.

    Raises `MismatchError` where that run is of another network, recipe or seed, and as `train` and
    `resume`.
    """
    slower = gentle(recipe, overrides)
    asked = {
        "network": weights.digest(network),
        "recipe": {key: str(value) for key, value in sorted(slower.to_json().items())},
        "seed": seed,
    }
    asked_path = folder.with_suffix(".json")
    if is_run(folder):
        before = read_json(asked_path, manifests.Finetuned) if asked_path.exists() else {}
        if other := [key for key, value in asked.items() if before.get(key) != value]:
            raise MismatchError(
                f"{folder} was trained of another {' and another '.join(other)}; "
                "choose another --out, or remove it"
            )
        return resume(folder, data=data).network, slower
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_checked(asked_path, asked)
    fields = {**overrides, "backend": "fake_quantized"}
    trained = train(data, start=network, recipe=slower, out=folder, seed=seed, overrides=fields)
    return trained.network, slower
