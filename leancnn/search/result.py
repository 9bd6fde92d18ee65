"""What a search ends with: the front, measured and tested; the winner; one sentence.

Everything before this saw train and validation images only. Here each network of the front is built
and timed as a real program, alone on a core, as it was compared and, where that is floats, in 8-bit
integers too. Then the test part is opened, once for the front: each network of it is evaluated one
time, whatever is called again later.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leancnn import manifests, runs, weights
from leancnn.compile import compile
from leancnn.compiler.reference import IntegerNetwork
from leancnn.count import count
from leancnn.errors import DamagedError, LeanCNNError, RunError
from leancnn.evaluate import evaluate
from leancnn.plots import front_picture
from leancnn.progress import Progress
from leancnn.search.budget import Candidate, Form, titled
from leancnn.search.drive import front, place
from leancnn.search.measured import is_saved, saved, timed
from leancnn.search.plan import KEPT, SearchPlan
from leancnn.search.sentence import Member, say
from leancnn.search.study import Study, Trial
from leancnn.search.trial import in_integers
from leancnn.tables import table
from leancnn.weights import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search hands back; the same stands in its folder.

    >>> known = {"folder": Path("runs/search"), "members": (), "winner": None, "reached": False}
    >>> result = SearchResult(**known, sentence="nothing was trained", trials=0, failed=0, spent=0)
    >>> result.to_json()["sentence"]
    'nothing was trained'
    """

    folder: Path
    members: tuple[Member, ...]
    """The front, the most accurate first."""
    winner: Member | None
    """The most accurate that keeps the budget as measured."""
    reached: bool
    sentence: str
    trials: int
    """That were compared."""
    failed: int
    spent: float
    """Seconds."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        value = asdict(self)
        return {**value, "folder": str(self.folder)}

    def text(self) -> str:
        """The result for people."""
        rows = [
            {
                "network": one.network,
                "recipe": one.change or "its own",
                "epochs": one.epochs,
                "validation": f"{one.val_accuracy:.2%}",
                "test": "–" if one.test_accuracy is None else f"{one.test_accuracy:.2%}",
                "µs": f"{one.microseconds:.1f}",
                "bytes": one.bytes,
                "MACs": one.macs,
            }
            for one in self.members
        ]
        return f"{table(rows)}\n\n{self.sentence}"


def conclude(
    folder: Path, plan: SearchPlan, study: Study, spent: float, *, progress: bool
) -> SearchResult:
    """Measure, test and keep. Raises `RunError` where no trial came to its first rung."""
    trials = study.trials()
    best = [one for one in front(trials) if is_saved(folder, one)]
    if not best:
        raise RunError(
            f"{folder}: no network came to its first comparison in {spent / 3600:.2g} hours; "
            "the same command with more --hours goes on"
        )
    members = _measured(folder, plan, best, progress=progress)
    if plan.tested:
        members = [_with_test(folder, one) for one in members]
    able = [one for one in members if one.keeps(plan.budget)]
    winner = able[0] if able else None
    asked = plan.budget.accuracy
    reached = winner is not None and (asked is None or winner.val_accuracy >= asked)
    compared = [one for one in trials if one.accuracies]
    failed = sum(one.state == "failed" for one in trials)
    sentence = say(plan, members, winner, reached=reached, trials=compared)
    found = SearchResult(
        folder=folder,
        members=tuple(members),
        winner=winner,
        reached=reached,
        sentence=sentence,
        trials=len(compared),
        failed=failed,
        spent=spent,
    )
    if winner is not None:
        _keep(folder, winner)
    rows = [asdict(one) for one in members]
    runs.write_checked(folder / "front.json", {**found.to_json(), "budget": plan.budget.to_json()})
    runs.atomic_write(folder / "front.png", front_picture(rows, plan.budget.to_json()))
    return found


def _measured(
    folder: Path, plan: SearchPlan, trials: Sequence[Trial], *, progress: bool
) -> list[Member]:
    """The front as it is measured, the most accurate first: each network as it was compared, and
    what is floats in integers, too."""
    members = []
    with Progress("measuring the front", 2 * len(trials), shown=progress) as bar:
        for trial in trials:
            members.append(_member(folder, plan, trial, trial.candidate.form))
            bar.to(bar.done + 1)
            if trial.candidate.form == "float32" and plan.asked.get("integers") is None:
                with _failure_as_warning(trial):
                    members.append(_member(folder, plan, trial, "int8"))
            bar.to(bar.done + 1)
    found: list[Member] = []
    for one in sorted(members, key=lambda one: (-one.val_accuracy, one.microseconds)):
        if not any(
            other.microseconds <= one.microseconds and other.bytes <= one.bytes for other in found
        ):
            found.append(one)
    return found[:KEPT]


@contextmanager
def _failure_as_warning(trial: Trial) -> Iterator[None]:
    """What keeps a network from another form is a warning: the search has others."""
    try:
        yield
    except LeanCNNError as error:
        text = f"trial {trial.number}, {trial.candidate.title}, not in integers: {error}"
        warnings.warn(text, stacklevel=2)


def _epochs(folder: Path, trial: Trial) -> int:
    """Behind the best network that is saved: a rung that the end cut short may have gone on after
    the last that was compared."""
    if trial.candidate.form != "float32":
        return trial.epochs
    best = weights.load(place(folder, trial.number), "best")
    return int(best.made.get("epoch", trial.epochs))


def _kept_at(folder: Path, trial: int, epochs: int, form: Form) -> Path:
    """Where the measurement of a network is kept."""
    return place(folder, trial) / f"front-{epochs}{'' if form == 'float32' else f'-{form}'}.json"


def _costs(network: Network, candidate: Candidate) -> tuple[int, int]:
    """Bytes and multiply-accumulates of what was made, whatever was foreseen."""
    if isinstance(network.body, IntegerNetwork) and network.body.network is not None:
        return network.body.network.weights(), candidate.macs
    cost = count(network.body, (network.preprocessing.channels, *network.preprocessing.size))
    return cost.bytes, cost.macs


def _member(folder: Path, plan: SearchPlan, trial: Trial, form: Form) -> Member:
    """One of the front, quantized and measured now unless an earlier call did."""
    epochs, candidate = _epochs(folder, trial), trial.candidate
    kept = _kept_at(folder, trial.number, epochs, form)
    try:
        value = dict(runs.read_json(kept, manifests.Member))
        value.pop("sha256", None)
        return Member(**{**value, "disturbed": tuple(value["disturbed"])})
    except (RunError, DamagedError, TypeError):
        pass
    accuracy = trial.accuracy or 0.0
    if form != candidate.form:
        accuracy = in_integers(place(folder, trial.number), plan.seed)
    network = weights.load(*saved(folder, trial.number, epochs, form))
    if form == "float32":
        accuracy = float(network.made.get("val_accuracy") or accuracy)
    times = timed(network, plan.asked.get("clock_on"))
    size, macs = _costs(network, candidate)
    member = Member(
        trial=trial.number,
        network=titled(candidate.architecture, form),
        change=str(trial.change),
        epochs=epochs,
        val_accuracy=accuracy,
        microseconds=times.median,
        low_us=times.low,
        high_us=times.high,
        predicted_us=trial.microseconds if form == candidate.form else None,
        bytes=size,
        macs=macs,
        disturbed=times.disturbed,
        form=form,
    )
    runs.write_checked(kept, asdict(member))
    return member


def _with_test(folder: Path, member: Member) -> Member:
    """With its accuracy on the test part, by the one function that opens it, and counts that;
    never twice."""
    if member.test_accuracy is not None:
        return member
    where, which = saved(folder, member.trial, member.epochs, member.form)
    found = evaluate(where, which=which)
    tested = replace(member, test_accuracy=found.accuracy, test_low=found.low, test_high=found.high)
    runs.write_checked(_kept_at(folder, member.trial, member.epochs, member.form), asdict(tested))
    return tested


def _keep(folder: Path, winner: Member) -> None:
    """The winner as a saved network with its C file and library."""
    network = weights.load(*saved(folder, winner.trial, winner.epochs, winner.form))
    network.made = {**network.made, "searched": {"trial": winner.trial, "network": winner.network}}
    weights.save(network, folder / "winner")
    compile(network, out=folder / "winner")
