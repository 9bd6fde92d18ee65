"""Priced architectures and plans of a search that trains nothing."""

import random
from contextlib import nullcontext

from leancnn.search import Budget, plan
from leancnn.search.budget import Candidate
from leancnn.search.drive import Driver
from leancnn.search.space import Architecture, Change
from leancnn.search.study import Study
from leancnn.search.trial import Job, Outcome


def architecture(network="henet_r3", macs=1_000_000, size=100_000, **arguments):
    return Architecture(
        network=network,
        arguments=arguments,
        size=(31, 31),
        channels=3,
        classes=10,
        macs=macs,
        bytes=size,
    )


def priced(us, **known):
    return Candidate(architecture(**known), float(us))


FOUND = tuple(
    priced(10 * at, network=network, macs=at * 10**6, size=at * 10**4, repeat=at)
    for network in ("henet_r3", "shufflenet_r3", "resnet8")
    for at in range(1, 6)
)


def a_plan(**changes):
    known = {
        "data": "digits",
        "data_sha256": {"train": "0"},
        "classes": tuple("0123456789"),
        "images": 1000,
        "val_images": 200,
        "val_share": None,
        "budget": Budget(microseconds=100.0),
        "asked": {"networks": None, "sizes": None, "epochs": None},
        "seed": 0,
        "rungs": (1, 3, 9),
        "found": FOUND,
        "latency_model": {},
        "machine": {},
        "tested": True,
    }
    return plan.SearchPlan(**{**known, **changes})


def accuracy(job):
    """A stub's answer: a function of the job alone."""
    draw = random.Random(f"{job.architecture.key} {job.change}").random()
    return min(0.99, 0.5 + job.architecture.macs / 4e7 + 0.1 * draw + 0.01 * job.epochs)


class Stub:
    """A pool without processes; `die` names calls of `wait` in which a worker is lost."""

    def __init__(self, size=2, die=(), stop=None, fail=None, pace=None):
        self.pace = pace
        self.size, self.die, self.fail, self.stop_at = size, set(die), fail, stop
        self.jobs, self.done, self.calls = [], [], 0

    def start(self, job):
        assert len(self.jobs) < self.size
        assert all(job.number != other.number for other in self.jobs)
        self.jobs.append(job)

    def wait(self, seconds):
        self.calls += 1
        job = self.jobs.pop(0)
        known = {"number": job.number, "epochs": job.epochs}
        if self.calls in self.die:
            return [Outcome(**known, lost=True)]
        if self.fail and (why := self.fail(job)):
            return [Outcome(**known, error=why)]
        self.done.append((job.number, job.epochs))
        seconds = job.epochs * (self.pace * job.architecture.macs if self.pace else 1.0)
        return [Outcome(**known, accuracy=accuracy(job), seconds=seconds)]

    def quiet(self):
        return nullcontext()

    def stop(self):
        self.jobs.clear()
        return []


def study_in(folder, found=FOUND, **known):
    return Study(folder / "study.journal", found, (1, 3, 9), **known)


def driven(folder, pool, many, **changes):
    """A search until so many rungs are done."""
    plan = a_plan(**changes)
    driver = Driver(plan, folder, study_in(folder, plan.found), pool, seconds=1e9)
    driver.look = lambda one: setattr(one, "seconds", 0.0) if len(pool.done) >= many else None
    return driver, driver.run()


def a_job(folder, **changes):
    """The first rung of a trial."""
    known = {
        "number": 0,
        "architecture": architecture("resnet8"),
        "change": Change(),
        "epochs": 1,
        "data": "digits",
        "folder": str(folder),
        "seed": 0,
        "split_seed": 0,
        "val_share": None,
    }
    return Job(**{**known, **changes})
