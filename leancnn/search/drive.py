"""The loop of a search: keep every place busy, compare what comes back, forget what lost."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leancnn.errors import LeanCNNError
from leancnn.process import Stop
from leancnn.search.budget import Candidate
from leancnn.search.plan import KEPT, SearchPlan
from leancnn.search.pool import Pool
from leancnn.search.pruning import forget_older
from leancnn.search.study import Study, Trial
from leancnn.search.trial import CHOOSING, Job, Outcome, forget
from leancnn.search.widest_cut import Cut

TRIES = 3  # of a rung whose worker is killed
LOOK_S = 1.0
FORGET_S = 5.0  # between two looks at which weights may go: each draws the front anew
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
    clock: Callable[[], float] = time.monotonic
    """Seconds, by which `seconds` are counted."""
    running: dict[int, Job] = field(default_factory=dict)
    _queue: list[Trial] = field(default_factory=list)
    _lost: Counter[int] = field(default_factory=Counter)
    _rates: list[float] = field(default_factory=list)
    """Seconds for each epoch and multiply-accumulate, of rungs that are done."""
    _full: bool = False
    """Whether something new was drawn that cannot end in time."""
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
        """Give every free place a rung that can end in time: first what goes on, then what is
        new. What cannot goes on with more hours."""
        while len(self.running) < self.pool.size:
            new = not self._queue
            if new and self._full:
                return
            trial = self.study.ask() if new else self._queue.pop(0)
            job = self.job(trial)
            if self._estimate(trial, job) > self.left:
                self._full = self._full or new
                continue
            self.pool.start(job)
            self.running[job.number] = job
            self._weights.add(job.number)

    def _estimate(self, trial: Trial, job: Job) -> float:
        """Seconds that a rung will take, about; 0 while none is done."""
        if not self._rates:
            return 0.0
        middle = sorted(self._rates)[len(self._rates) // 2]
        again = trial.candidate.training_macs - job.architecture.macs  # anew after each rung
        new = job.architecture.macs * (job.epochs - trial.epochs)
        return middle * (new + again * job.epochs)

    def _take(self, done: Iterable[Outcome]) -> None:
        for one in done:
            job = self.running.pop(one.number)
            if one.lost:
                self._try_again(one, job)
            elif one.error:
                self.study.fail(one.number, one.error)
                self._check_hope(one.error)
            else:
                work = self.study.trial(one.number).candidate.training_macs
                self._rates.append(one.seconds / one.epochs / max(1, work))
                goes_on = self.study.report(one.number, one.epochs, one.accuracy, one.costs)
                forget_older(place(self.folder, one.number), one.epochs)
                if goes_on:
                    self._queue.insert(0, self.study.trial(one.number))
            self.study.spend(self.spent)
            many = len(self._weights) - len(self.running)
            if time.monotonic() >= self._forgot + FORGET_S or many > 2 * KEPT:
                self._forget()

    def _try_again(self, one: Outcome, job: Job) -> None:
        self._lost[one.number] += 1
        if self._lost[one.number] < TRIES:
            self._queue.insert(0, self.study.trial(one.number))
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
        best = max((one.accuracy or 0.0 for one in self.study.trials()), default=0.0)
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
