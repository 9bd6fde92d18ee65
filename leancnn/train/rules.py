"""What a training does beside descending the loss: a rule, named in its plan.

A rule is plain data in the plan, `{"name": …, …}`, so that it is in every checkpoint and a run that
was stopped goes on by it. Before each step it is called with the gradients of the loss in place.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from leancnn.errors import MismatchError
from leancnn.registry import Registry
from leancnn.train.centripetal import Centripetal
from leancnn.train.plan import TrainingPlan
from leancnn.train.sandwich import Sandwich


class StepRule(Protocol):
    """What is called before each step of the optimizer."""

    after_clipping: bool
    """Whether gradients are clipped before it: what it adds is then no part of their norm."""

    def __call__(self, step: int, images: Tensor, logits: Tensor) -> None:
        """Change the gradients of the body's parameters.

        images (N, C, H, W), normalised, and logits (N, classes) are those of the step; `step`
        counts from 0. What is random is a function of the plan's seed and the step.
        """


class _None:
    """Plain descent."""

    after_clipping = False

    def __call__(self, step: int, images: Tensor, logits: Tensor) -> None:
        pass


rules: Registry[Callable[[TrainingPlan, nn.Module], StepRule]] = Registry("rule of training")
rules.register("centripetal", Centripetal)
rules.register("sandwich", Sandwich)


def rule_of(plan: TrainingPlan, body: nn.Module) -> StepRule:
    """The rule that a plan names, for the body that is trained.

    Raises `UnknownNameError` for its name, `MismatchError` for several processes: what a rule adds
    to gradients is of one.
    """
    rule: Mapping[str, Any] = plan.rule
    if not rule:
        return _None()
    if plan.processes > 1:
        raise MismatchError(
            f"training by the rule {rule['name']} is for one process, not {plan.processes}; "
            "start it without torchrun"
        )
    return rules[rule["name"]](plan, body)
