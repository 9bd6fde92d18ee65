"""The loop of a search: keep every place busy, compare what comes back, forget what lost."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leancnn.errors import LeanCNNError
from leancnn.process import Stop
from leancnn.search.budget import Candidate
from leancnn.search.lengths import work
from leancnn.search.plan import KEPT, SearchPlan
from leancnn.search.pool import Pool
from leancnn.search.pruning import forget_older
from leancnn.search.study import Study, Trial
from leancnn.search.trial import CHOOSING, Job, Outcome, forget
from leancnn.search.widest_cut import Cut

TRIES = 3  # of a rung whose worker is killed
LOOK_S = 1.0
FORGET_S = 5.0  # between two looks at which weights may go: each draws the front anew
PASSED = 12  # draws in a row that cannot end in time, after which nothing new is begun
HOPELESS = 3  # trials that fail before one succeeds


@dataclass(slots=True)
class Driver:
    """A search at work. `look` is called about once a second with the driver itself."""

    plan: SearchPlan
    folder: Path
    study: Study
    pool: Pool
    seconds: float
    """Of work, all calls together, after which it ends."""
    look: Callable[["Driver"], None] = lambda driver: None
    too_slow: Callable[[Trial, Outcome], str] = lambda trial, outcome: ""
    """Why what a rung came to misses the budget as a real program; empty: it does not."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, by which `seconds` are counted."""
    running: dict[int, Job] = field(default_factory=dict)
    _queue: list[Trial] = field(default_factory=list)
    _lost: Counter[int] = field(default_factory=Counter)
    _paces: dict[str, list[float]] = field(default_factory=dict)
    """By network, seconds for each epoch and multiply-accumulate, of rungs that are done."""
    _passed: int = 0
    """New ones in a row that were drawn and cannot end in time."""
    _weights: set[int] = field(default_factory=set)
    """Trials that may have weights on disk."""
    _forgot: float = -FORGET_S
    """When weights were last removed."""
    _began: float = 0.0
    _spent: float = 0.0

    @property
    def spent(self) -> float:
        """Seconds of work so far, all calls together."""
        return self._spent + self.clock() - self._began

    @property
    def left(self) -> float:
        """Seconds to go."""
        return max(0.0, self.seconds - self.spent)

    def run(self) -> bool:
        """Train until the time is over or the accuracy is reached; False when asked to stop.

        Raises what training raised where the first trials all fail.
        """
        self._began, self._spent = self.clock(), self.study.spent
        self._weights = {int(each.parent.name) for each in self.folder.glob("trials/*/best")}
        self._queue = [trial for trial in self.study.trials() if trial.state == "running"]
        with Stop() as stop:
            while self.left and not stop.asked and not self._reached():
                self._fill()
                if not self.running:
                    break
                self._take(self.pool.wait(min(LOOK_S, self.left)))
                self.look(self)
            self._take(self.pool.stop())
        self._forget()
        self.study.spend(min(self.spent, max(self.seconds, self._spent)))
        return not stop.asked

    def job(self, trial: Trial) -> Job:
        """The next rung of a trial."""
        return Job(
            number=trial.number,
            architecture=trial.candidate.architecture,
            change=trial.change,
            epochs=self.study.next_epochs(trial),
            data=self.plan.data,
            folder=str(place(self.folder, trial.number)),
            seed=self.plan.seed,
            split_seed=self.plan.seed,
            val_share=self.plan.val_share,
            form=trial.candidate.form,
            choose=self.plan.steps(trial.candidate) > CHOOSING,
            cut=self._cut(trial.candidate),
        )

    def _cut(self, one: Candidate) -> Cut | None:
        factors = self.plan.latency_model.get("factors", {})
        return Cut.of(one, self.plan.budget, factors) if one.form == "pruned" else None

    def _fill(self) -> None:
        """Give every free place a rung."""
        while len(self.running) < self.pool.size and (trial := self._next()):
            job = self.job(trial)
            self.pool.start(job)
            self.running[job.number] = job
            self._weights.add(job.number)

    def _next(self) -> Trial | None:
        """The first trial of each network, then what goes on, then what is new, if it can end in
        time; what cannot goes on with more hours.

        Of what goes on that which was compared least comes first, so that the costly last rungs are
        for the best of those that were compared alike.
        """
        self._queue.sort(key=lambda one: (len(one.accuracies), -(one.accuracy or 0.0)))
        while self._queue and not (self.study.opening and self._passed < PASSED):
            trial = self._queue.pop(0)
            begun = len(trial.accuracies)
            if self._estimate(trial, begun + 1 if begun else len(self.study.rungs)) <= self.left:
                return trial
        while self._passed < PASSED:
            trial = self.study.ask()
            if self._estimate(trial, len(self.study.rungs)) <= self.left:
                self._passed = 0
                return trial
            self._passed += 1
        return self._next() if self._queue else None

    def _estimate(self, trial: Trial, until: int) -> float:
        """Seconds that a trial will take to so many rungs, about; 0 where nothing is known."""
        network = trial.candidate.architecture.network
        found = sorted(self._paces.get(network, []) or [self.plan.pace.get(network, 0.0)])
        epochs = self.study.epochs(trial.candidate)
        return found[len(found) // 2] * work(trial.candidate, epochs, len(trial.accuracies), until)

    def _take(self, done: Iterable[Outcome]) -> None:
        for one in done:
            job = self.running.pop(one.number)
            if one.lost:
                self._try_again(one, job)
            elif one.error:
                self.study.fail(one.number, one.error)
                self._check_hope(one.error)
            else:
                self._compare(one)
            self.study.spend(self.spent)
            many = len(self._weights) - len(self.running)
            if time.monotonic() >= self._forgot + FORGET_S or many > 2 * KEPT:
                self._forget()

    def _compare(self, one: Outcome) -> None:
        """Note what a rung came to, and have the trial go on or end.

        The program of one that may go on to its last rung is timed before anything is compared
        with it: the accuracy of what is too slow is no measure for others.
        """
        trial = self.study.trial(one.number)
        pace = one.seconds / one.epochs / max(1.0, trial.candidate.training_macs)
        self._paces.setdefault(trial.candidate.architecture.network, []).append(pace)
        limited = self.plan.budget.microseconds is not None
        if limited and len(trial.accuracies) == len(self.study.rungs) - 2:
            with self.pool.quiet():
                why = self.too_slow(trial, one)
            if why:
                self.study.fail(one.number, why)
                return
        goes_on = self.study.report(one.number, one.epochs, one.accuracy, one.costs)
        forget_older(place(self.folder, one.number), one.epochs)
        if goes_on:
            self._queue.append(self.study.trial(one.number))

    def _try_again(self, one: Outcome, job: Job) -> None:
        self._lost[one.number] += 1
        if self._lost[one.number] < TRIES:
            self._queue.append(self.study.trial(one.number))
        else:
            why = f"its worker was killed {TRIES} times at {job.epochs} epochs; see log.txt"
            self.study.fail(one.number, why)
            self._check_hope(why)

    def _check_hope(self, why: str) -> None:
        trials = self.study.trials()
        failed = [one for one in trials if one.state == "failed"]
        if len(failed) >= HOPELESS and not any(one.accuracies for one in trials):
            self.pool.stop()
            raise LeanCNNError(f"the first {len(failed)} trials all failed: {why}")

    def _reached(self) -> bool:
        """Whether a network is so accurate that chance does not explain it."""
        asked = self.plan.budget.accuracy
        if asked is None:
            return False
        able = [one for one in self.study.trials() if one.state != "failed"]
        best = max((one.accuracy or 0.0 for one in able), default=0.0)
        return lower_bound(best, self.plan.val_images) >= asked

    def _forget(self) -> None:
        """Remove the weights of trials that are over and not on the front."""
        self._forgot = time.monotonic()
        trials = self.study.trials()
        kept = {one.number for one in front(trials)}
        for number in sorted(self._weights - self.running.keys()):
            if trials and self.study.trial(number).state != "running":
                forget(place(self.folder, number), keep=number in kept)
                if number not in kept:
                    self._weights.discard(number)


def lower_bound(share: float, images: int) -> float:
    """The lower end of the 95 % interval of a share of so many images."""
    from leancnn.intervals import wilson

    return wilson(round(share * images), images)[0]


def place(folder: Path, number: int) -> Path:
    """The run folder of a trial."""
    return folder / "trials" / f"{number:04d}"


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that no other beats in accuracy, time and bytes at once, the most accurate first.

    At most `KEPT`; of those with the same figures the first.
    """
    found: list[Trial] = []
    able = [one for one in trials if one.accuracy is not None and one.state != "failed"]
    for one in sorted(able, key=lambda one: (-(one.accuracy or 0), one.microseconds)):
        if not any(
            other.microseconds <= one.microseconds and other.bytes <= one.bytes for other in found
        ):
            found.append(one)
    return found[:KEPT]
