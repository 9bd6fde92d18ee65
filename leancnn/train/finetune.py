"""Training on in fake quantization: a run beside what comes of it, and what it was asked for.

Where that run stands already it is gone on with, if the same is asked for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leancnn import manifests, weights
from leancnn.errors import MismatchError
from leancnn.recipes import Recipe
from leancnn.runs import is_run, read_json, write_checked
from leancnn.train.run import resume, train
from leancnn.weights import Network


def finetuned(
    network: Network,
    data: str,
    folder: Path,
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any],
    seed: int,
) -> Network:
    """The network trained on in fake quantization: a run in `folder`, gone on with if there is one.

    Raises `MismatchError` where that run is of another network, recipe, seed or other overrides,
    and as `train` and `resume`.
    """
    name = recipe.name if isinstance(recipe, Recipe) else str(recipe)
    asked = {
        "network": weights.digest(network),
        "recipe": name,
        "seed": seed,
        "overrides": {key: str(value) for key, value in sorted(overrides.items())},
    }
    asked_path = folder.with_suffix(".json")
    if is_run(folder):
        before = read_json(asked_path, manifests.Finetuned) if asked_path.exists() else {}
        if other := [key for key, value in asked.items() if before.get(key) != value]:
            raise MismatchError(
                f"{folder} was trained of another {' and another '.join(other)}; "
                "choose another --out, or remove it"
            )
        return resume(folder, data=data).network
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_checked(asked_path, asked)
    fields = {**overrides, "backend": "fake_quantized"}
    return train(
        data, start=network, recipe=recipe, out=folder, seed=seed, overrides=fields
    ).network
