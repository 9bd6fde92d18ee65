"""The training before a cut, of criteria that have one: half of the epochs, by a rule of theirs.

It is a run in the folder `before` of the pruning, gone on with if it was stopped. Half, so that a
criterion with such a training has no more epochs than one without.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from leancnn import criteria, runs, weights
from leancnn.channels.dependencies import find_dependencies
from leancnn.errors import RunError
from leancnn.modes import evaluating
from leancnn.prune.importance import blind
from leancnn.prune.planning import PruningRequest, find_plan
from leancnn.prune.resume import BEFORE, check_free
from leancnn.prune.retrain import Retraining
from leancnn.weights import Network


def trained_before(
    network: Network, request: PruningRequest, folder: Path, training: Retraining
) -> Network:
    """The network that is cut: trained by the rule of the criterion, to its last step.

    Raises `RunError` where `folder` holds a training for another pruning; as `train`.
    """
    place = folder / BEFORE
    asked = {
        "criterion": request.criterion,
        "of": weights.digest(network),
        "goal": request.goal.to_json(),
        "seed": request.seed,
        "within": None if request.within is None else list(request.within),
    }
    if runs.is_run(place):
        rule: dict[str, Any] = runs.read_run(place)["plan"].get("rule", {})
        if any(rule.get(key) != value for key, value in asked.items()):
            raise RunError(f"{place} was trained for another pruning; choose another --out")
    else:
        check_free(folder)  # now, not when the network has been trained
        rule = {**_rule(network, request, training), **asked}
    training.run(network, place, rule)
    return weights.load(place, "last")


def _rule(network: Network, request: PruningRequest, training: Retraining) -> dict[str, Any]:
    """What the training does beside descending the loss, for the cut as it would be now."""
    rule = criteria.get(request.criterion).rule
    assert rule is not None, "asked of criteria that have one"
    now = replace(request, timed=False)
    plan = find_plan(network, now, training.images, progress=training.progress, alike=True)
    dependencies = find_dependencies(network.body, network.preprocessing.channels)
    with evaluating(network):
        subject = blind(network, dependencies, request.seed)
        return dict(rule(subject, plan.keep(dependencies)))
