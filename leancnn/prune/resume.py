"""Whether what stands in a folder is what this call would make, so that it goes on there."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from leancnn import manifests, recipes, runs
from leancnn.channels.sizes import widths_of
from leancnn.data import Dataset
from leancnn.errors import DamagedError, RunError
from leancnn.prune.plan import PruningPlan
from leancnn.recipes import Recipe
from leancnn.safe_files import TEMPORARY
from leancnn.weights import MANIFEST, WEIGHTS, Network, digest, load

PRUNING = ".prune"  # the folder in a pruning's that says that one is at work there
ITERATIONS = ("iterations", "steps")  # the folder of a schedule's earlier cuts, now and in 0.1
BEFORE = "before"  # the folder of the training before a cut
NETWORK_FILES = (MANIFEST, WEIGHTS, f"{WEIGHTS}.next")


def same_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse, with `RunError`, to go on with a run of another recipe as if it were this one."""
    path = folder / "recipe.json"
    if path.exists() and recipes.of_json(runs.read_json(path, dict[str, Any])) != recipe:
        raise RunError(f"{folder} was trained by another recipe; choose another folder")


def same_images(folder: Path, dataset: Dataset) -> None:
    """Refuse, with `RunError`, a run on other images as if it were one on these."""
    path = folder / "run.json"
    if not path.exists():
        return  # killed at its first moment
    if runs.read_run(folder)["plan"]["data_sha256"] != dataset.manifest["sha256"]:
        raise RunError(f"{folder} was trained on other images; choose another --out")


def continues(folder: Path, place: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a folder holds this very pruning, cut and saved in `place`.

    Raises `RunError` when it holds another, or one that is trained again where this is not.
    """
    there_already = {*ITERATIONS, PRUNING, BEFORE}
    if not folder.exists() or {child.name for child in folder.iterdir()} <= there_already:
        return False
    try:
        plan = {"images": None}  # older ones say nothing
        plan |= runs.read_json(folder / "plan.json", manifests.Pruning)
        there = {key: plan[key] for key in asked}
    except (RunError, KeyError, TypeError):
        if _begun(folder, {"cut", *there_already}, asked):
            return False  # stopped while the cut was saved
        raise RunError(f"{folder} holds something else; choose another --out") from None
    if odd := [key for key in asked if there[key] != asked[key]]:
        what = ", ".join(f"{key} {there[key]}" for key in odd)
        raise RunError(f"{folder} holds another pruning ({what}); choose another --out")
    if place == folder and (folder / "cut").exists():
        raise RunError(
            f"{folder} was trained again after the cut, which is {folder / 'cut'}; choose another "
            "--out"
        )
    if not (place / MANIFEST).exists():
        raise RunError(
            f"{folder} was cut and not trained again; 'leancnn train DATA --init-from {folder}' "
            "does, or choose another --out"
        )
    return True


def check_free(folder: Path) -> None:
    """Refuse, with `RunError`, a folder in which nothing was begun here but something else is."""
    ours = {*ITERATIONS, PRUNING, BEFORE}
    if folder.exists() and not {child.name for child in folder.iterdir()} <= ours:
        raise RunError(f"{folder} holds something else; choose another --out")


def iterations(folder: Path) -> Path:
    """Where a schedule's earlier cuts stand; one that 0.1 began goes on where it did."""
    now, then = (folder / name for name in ITERATIONS)
    return then if then.exists() else now


def _begun(folder: Path, beside: Collection[str], asked: Mapping[str, Any]) -> bool:
    """Whether all that a folder holds is what this pruning was about to save; the rest stays."""
    if not folder.is_dir():
        return False
    names = {c.name for c in folder.iterdir() if not TEMPORARY.fullmatch(c.name)}
    if not names <= {*beside, *NETWORK_FILES}:
        return False
    if "cut" in names and not _begun(folder / "cut", (), asked):
        return False
    if MANIFEST not in names:
        return WEIGHTS not in names  # ours get their name when the manifest stands
    try:
        plan = runs.read_json(folder / MANIFEST, manifests.Saved)["made"]["plan"]
        return all(plan.get(key) == value for key, value in asked.items())
    except (AttributeError, DamagedError, KeyError, RunError, TypeError):
        return False


def kept(folder: Path, place: Path, whole: Network) -> tuple[PruningPlan, Network]:
    """The plan in a folder, and the cut of `whole` that is saved in `place`.

    Raises `RunError` for another network's, `DamagedError` where the two do not fit each other.
    """
    plan = PruningPlan.of_json(runs.read_json(folder / "plan.json", manifests.Pruning))
    small = load(place)
    same = small.made.get("cut from") == whole.made  # older ones tell no weights
    if not (small.made["weights"] == digest(whole) if "weights" in small.made else same):
        raise RunError(f"{folder} holds a pruning of another network; choose another --out")
    widths = widths_of(small.body)
    for layer in plan.layers:
        if widths[layer.path][1] != len(layer.kept):
            raise DamagedError(
                f"{folder / 'plan.json'}: it keeps {len(layer.kept)} channels of '{layer.path}', "
                f"and the network beside it has {widths[layer.path][1]}"
            )
    return plan, small
