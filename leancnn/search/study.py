"""Which network next, and which goes on: Optuna's sampler and successive halving, on disk.

A study has one objective, validation accuracy; what a network may cost is settled before: only
architectures that meet the budget are in its space. (Optuna prunes no study of several objectives,
and counts a trial without constraint values as one that keeps them.) A trial is a network trained
in rungs of more and more epochs, each of which goes on with the weights of the one before. Those
are shares of its own whole training, and Optuna is told of shares.

The journal is written by one process, which holds the lock of the folder. What it wrote last may be
cut short by a kill: such a line is dropped, and the step that it told of is taken again.
"""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leancnn.errors import DamagedError, MissingDependencyError
from leancnn.safe_files import read_bytes
from leancnn.search.budget import Candidate
from leancnn.search.lengths import REDUCTION
from leancnn.search.space import Change, changes

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.storages.journal._file import BaseJournalFileLock
    from optuna.trial import TrialState
except ImportError as error:
    raise MissingDependencyError("a search needs optuna; pip install 'leancnn[search]'") from error

STARTUP = 12  # trials that are drawn at random before the sampler models what it has seen
REDRAWS = 20  # draws of what was drawn before, after which one is taken
NAME = "leancnn"
COSTS = "costs "  # and epochs: what a trial's network turned out to cost after a rung


@dataclass(frozen=True, slots=True)
class Trial:
    """One network on its way: what it is, and how far it came."""

    number: int
    candidate: Candidate
    change: Change
    """Of the recipe."""
    accuracies: Mapping[int, float]
    """On the validation images, by the epochs of each rung that is done."""
    state: str
    """running, finished (the last rung), stopped (others did better) or failed."""
    why: str = ""
    """Why it failed."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """After the last rung that is done, those which its network turned out to have."""

    @property
    def accuracy(self) -> float | None:
        """After the last rung that is done."""
        return self.accuracies[max(self.accuracies)] if self.accuracies else None

    @property
    def epochs(self) -> int:
        """Of the last rung that is done."""
        return max(self.accuracies, default=0)

    @property
    def microseconds(self) -> float:
        """For one image, as foreseen of what it is now."""
        return self.costs.get("microseconds", self.candidate.microseconds)

    @property
    def bytes(self) -> int:
        """Of what it is now."""
        return int(self.costs.get("bytes", self.candidate.bytes))


class _Alone(BaseJournalFileLock):
    """The folder's own lock keeps others out; one of Optuna's would outlive a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class _Journal(JournalFileBackend):
    """Optuna's journal, synced to disk once a trial and not twelve times.

    A kill loses nothing that was written. A power cut may lose what rungs came to, which their own
    files tell again, but no trial whose folder may already stand there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_Alone())
        self._journal = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write all in one call, at the end."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with self._journal.open("ab", buffering=0) as file:
            file.write("".join(lines).encode())

    def sync(self) -> None:
        """Have everything on disk."""
        with self._journal.open("rb") as file:
            os.fsync(file.fileno())


class Study:
    """The trials of a folder. Raises `DamagedError` for a journal that is none.

    `found` are those that meet the budget, the cheapest first, and the same at each start; `rungs`
    are parts of a training after which networks are compared, each `REDUCTION` times the one
    before, and `epochs` says what these are for a network; None: the parts themselves.
    """

    def __init__(
        self,
        path: Path,
        found: Sequence[Candidate],
        rungs: Sequence[int],
        seed: int = 0,
        epochs: Callable[[Candidate], Sequence[int]] | None = None,
    ) -> None:
        self.rungs = list(rungs)
        self.epochs = epochs or (lambda one: self.rungs)
        self._architectures: dict[str, list[Candidate]] = {}
        for one in found:
            self._architectures.setdefault(one.architecture.network, []).append(one)
        drop_torn_line(path)
        self._study = self._opened(path, seed)
        self._ended: dict[int, Trial] = {}
        self._seen = {self._key(one) for one in self._frozen()}
        for one in self._frozen():  # a kill fell into the drawing of it
            if one.state == TrialState.RUNNING and "augment" not in one.params:
                self._study.tell(one.number, state=TrialState.FAIL)
        for trial in self.trials():  # a kill fell behind its last rung
            if trial.state == "running" and len(trial.accuracies) == len(self.rungs):
                self._study.tell(trial.number, trial.accuracy)
        self._opening = self._enqueue()

    def _opened(self, path: Path, seed: int) -> optuna.Study:
        """The study of a journal, or a new one. Raises `DamagedError`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                self._journal = _Journal(path)
                storage = JournalStorage(self._journal)
                known = {one.study_name for one in storage.get_all_studies()}
                done = 0
                if NAME in known:
                    done = len(storage.get_all_trials(storage.get_study_id_from_name(NAME)))
                return optuna.create_study(
                    study_name=NAME,
                    storage=storage,
                    direction="maximize",
                    load_if_exists=True,
                    # a sampler of the same seed would draw the same trials after each start
                    sampler=optuna.samplers.TPESampler(
                        seed=(seed * 1_000_003 + done) % 2**32,
                        n_startup_trials=STARTUP,
                        constant_liar=True,
                    ),
                    pruner=optuna.pruners.SuccessiveHalvingPruner(
                        min_resource=self.rungs[0], reduction_factor=REDUCTION
                    ),
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DamagedError(
                    f"{path} is no journal of a search ({error}); begin another in a new folder"
                ) from error

    def _enqueue(self) -> int:
        """Begin with the costliest of each network by its own recipe, the costliest first, and
        then with the costliest of each that only another form makes fit; how many are of the first
        form."""
        best = {
            (one.form, name): (one.microseconds, at)
            for name, architectures in self._architectures.items()
            for at, one in enumerate(architectures)
        }
        order = sorted(best, key=lambda key: (key[0] != "float32", -best[key][0]))
        for form, name in order:
            place = {"network": name, name: best[form, name][1]}
            self._study.enqueue_trial({**place, **Change().to_json()}, skip_if_exists=True)
        return sum(form == order[0][0] for form, _ in order)

    @property
    def opening(self) -> bool:
        """Whether networks are still to come of which each gets one trial before any goes on."""
        if self._opening:
            trials = self._study.get_trials(deepcopy=False)
            if sum(one.state != TrialState.WAITING for one in trials) >= self._opening:
                self._opening = 0
        return self._opening > 0

    def ask(self) -> Trial:
        """Begin another trial; what was tried before is not tried again while there is other."""
        for _ in range(REDRAWS):
            asked = self._study.ask()
            trial = self._drawn(asked)
            key = (trial.candidate.key, trial.change)
            if key not in self._seen:
                break
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            trial = self._drawn(self._study.ask())
        self._seen.add(key)
        self._journal.sync()
        return trial

    def _drawn(self, asked: Any) -> Trial:
        name = asked.suggest_categorical("network", list(self._architectures))
        architectures = self._architectures[name]
        place = asked.suggest_int(name, 0, len(architectures) - 1)
        return Trial(asked.number, architectures[place], changes(asked), {}, "running")

    def report(
        self,
        number: int,
        epochs: int,
        accuracy: float,
        costs: Mapping[str, float] | None = None,
    ) -> bool:
        """Note what a rung came to, and what it costs where that was not known before; whether the
        trial goes on to the next."""
        asked = self._handle(number)
        if costs is not None:  # first: a kill between the two runs the rung's last lines again
            asked.set_user_attr(f"{COSTS}{epochs}", dict(costs))
        trial = self.trial(number)
        last = epochs >= self.epochs(trial.candidate)[-1]
        asked.report(accuracy, self.rungs[-1] if last else self.rungs[len(trial.accuracies)])
        pruned = asked.should_prune()
        if pruned or last:
            state = TrialState.COMPLETE if last else TrialState.PRUNED
            value = accuracy if state == TrialState.COMPLETE else None
            self._study.tell(asked, value, state=state)
            return False
        return True

    def fail(self, number: int, why: str) -> None:
        """End a trial that came to no answer, and remember why."""
        asked = self._handle(number)
        asked.set_user_attr("why", why)
        self._study.tell(asked, state=TrialState.FAIL)

    def spend(self, seconds: float) -> None:
        """Note how long the search has been at work, all calls together."""
        self._study.set_user_attr("seconds", round(seconds, 1))

    @property
    def spent(self) -> float:
        """Seconds of work, as far as they were noted."""
        return float(self._study.user_attrs.get("seconds", 0.0))

    def trials(self) -> list[Trial]:
        """All that were begun, in order; without those that were drawn twice."""
        return [self._trial_of(one) for one in self._frozen() if not self._is_duplicate(one)]

    def trial(self, number: int) -> Trial:
        """One of them."""
        return self._trial_of(self._study.get_trials(deepcopy=False)[number])

    def next_epochs(self, trial: Trial) -> int:
        """The epochs of the rung that a running trial is on."""
        return self.epochs(trial.candidate)[len(trial.accuracies)]

    def _frozen(self) -> list[Any]:
        return [
            one
            for one in self._study.get_trials(deepcopy=False)
            if one.state != TrialState.WAITING and "network" in one.params
        ]

    def _is_duplicate(self, one: Any) -> bool:
        return one.state == TrialState.FAIL and "why" not in one.user_attrs

    def _key(self, one: Any) -> tuple[str, Change]:
        name = one.params["network"]
        candidate = self._architectures[name][one.params[name]].key if name in one.params else ""
        return candidate, Change.of_params(one.params)

    def _trial_of(self, one: Any) -> Trial:
        if one.number in self._ended:
            return self._ended[one.number]
        name = one.params["network"]
        states = {
            TrialState.COMPLETE: "finished",
            TrialState.PRUNED: "stopped",
            TrialState.FAIL: "failed",
        }
        candidate = self._architectures[name][one.params[name]]
        reached = dict(zip(self.rungs, self.epochs(candidate), strict=True))
        accuracies = {
            reached[int(at)]: float(v) for at, v in sorted(one.intermediate_values.items())
        }
        trial = Trial(
            one.number,
            candidate,
            Change.of_params(one.params),
            accuracies,
            states.get(one.state, "running"),
            str(one.user_attrs.get("why", "")),
            one.user_attrs.get(f"{COSTS}{max(accuracies, default=0)}", {}),
        )
        if one.state.is_finished():
            self._ended[one.number] = trial
        return trial

    def _handle(self, number: int) -> Any:
        frozen = self._study.get_trials(deepcopy=False)[number]
        return optuna.trial.Trial(self._study, frozen._trial_id)


def drop_torn_line(path: Path) -> None:
    """Drop the last line of a journal where a kill cut it short."""
    if not path.exists():
        return
    text = read_bytes(path)
    end = text.rfind(b"\n") + 1
    if end < len(text):
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
