"""Rungs on a Ray cluster: the same jobs, the same study, the same result.

The driver keeps the folder. A task gets what the trial has left there so far and hands back what it
left, so that nodes need no disk in common; they need leancnn, and the images at the same path. A
task whose worker or node dies is one lost rung.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from leancnn.errors import ClusterError, MissingDependencyError, StoppedError
from leancnn.process import Terminated
from leancnn.safe_files import atomic_write
from leancnn.search.trial import Job, Outcome, run
from leancnn.workspaces import workspace

Files = dict[str, bytes]
ANSWER_S = 5.0  # that a cluster has to answer
STARTS = 3  # of a cluster of this machine, before it is given up
GRACE_S = 60.0  # that tasks have to save
NEVER = ("run.lock", ".evaluations.lock", "log.txt", "job.json")  # files of the driver's own


def files_of(folder: Path) -> Files:
    """What a trial has left in its folder, by path within it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in NEVER and not path.name.endswith(".tmp")
    }


def put(files: Files, folder: Path) -> None:
    """Make a folder hold these files, and no checkpoint beside them."""
    for path in folder.rglob("checkpoints/*"):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    # manifests last: tensors alone are litter, a manifest alone is damage
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ClusterError(f"a worker handed back {name}, which lies outside of its folder")
        atomic_write(path, files[name])


def work(value: dict[str, Any], files: Files) -> tuple[dict[str, Any], Files]:
    """One rung, on whatever node this is: its outcome, and what is left of the trial."""
    import torch

    torch.set_num_threads(1)
    with workspace() as place:
        folder = place / "trial"
        folder.mkdir()
        put(files, folder)
        job = replace(Job.of_json(value), folder=str(folder))
        try:
            made = run(job)
        except (StoppedError, Terminated):
            made = Outcome(number=job.number, epochs=job.epochs, lost=True)
        return asdict(made), files_of(folder)


@dataclass(slots=True)
class _Task:
    job: Job
    reference: Any


class RayPool:
    """Tasks of one core on a Ray cluster.

    `address` is that of a cluster, such as ray://head:10001, or "local" for one of this machine
    that ends with the search. `size`: tasks at a time; None: as many as the cluster has cores.
    `task` does a rung, from its job and the files of its trial to its outcome and the files.
    Raises `MissingDependencyError` without ray, `ClusterError` where no cluster answers.
    """

    def __init__(
        self,
        address: str = "local",
        size: int | None = None,
        task: Callable[[dict[str, Any], Files], tuple[dict[str, Any], Files]] = work,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise MissingDependencyError(
                "searching on a cluster needs ray; pip install 'leancnn[ray]'"
            ) from error
        self._ray = ray
        local = address == "local"
        if not local:
            _check_answers(address)
        given = _own_cluster(size) if local else {"address": address, "runtime_env": None}
        for left in reversed(range(STARTS if local else 1)):
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", namespace="leancnn", **given)
                break
            except Exception as error:  # ray's own share no class
                ray.shutdown()
                if left:
                    continue  # it gives itself half a minute, which a busy machine may not do with
                reason = " ".join(str(error).split())[:200]
                what = "Ray does not start here" if local else f"no Ray cluster at {address}"
                raise ClusterError(
                    f"{what} ({reason}); see to it with 'ray status', or leave out --cluster"
                ) from error
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # a lost task is lost to the driver, who knows what to do
        self._task = ray.remote(num_cpus=1, max_retries=0)(task)
        self._running: list[_Task] = []

    def start(self, job: Job) -> None:
        """Send a job with what its trial has left so far."""
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._running.append(_Task(job, self._task.remote(job.to_json(), files_of(folder))))

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, after at most so many seconds."""
        references = [task.reference for task in self._running]
        if not references:
            return []
        ready, _ = self._ray.wait(references, timeout=seconds)
        done = [task for task in self._running if task.reference in ready]
        self._running = [task for task in self._running if task not in done]
        return [self._outcome(task) for task in done]

    def quiet(self) -> AbstractContextManager[None]:
        """Its nodes work on: where one of them is this machine, times may be too long."""
        return nullcontext()

    def stop(self) -> list[Outcome]:
        """Ask all to save and stop, and wait for them; what ended meanwhile."""
        for task in self._running:
            with contextlib.suppress(Exception):  # it has ended
                self._ray.cancel(task.reference, force=False)
        references = [task.reference for task in self._running]
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=GRACE_S)
        done = self.wait(0.0) if references else []
        while self._running and (more := self.wait(0.0)):
            done += more
        self._running = []
        return [one for one in done if not one.lost]

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        self._ray.shutdown()

    def _outcome(self, task: _Task) -> Outcome:
        try:
            value, files = self._ray.get(task.reference)
        except self._ray.exceptions.RayError:  # its worker or node died, or it was cancelled
            return Outcome(number=task.job.number, epochs=task.job.epochs, lost=True)
        put(files, Path(task.job.folder))
        return Outcome(**value)


def _own_cluster(size: int | None) -> dict[str, Any]:
    """What `ray.init` is given for a cluster of this machine, whose workers import us, too."""
    home = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
    return {
        "address": None,
        "num_cpus": size or len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
    }


def _check_answers(address: str) -> None:
    """Raises `ClusterError` at once where nobody listens; ray would try for half a minute."""
    place = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
        if not host or port is None:
            raise OSError("it is no address such as ray://head:10001")
        with socket.create_connection((host, port), ANSWER_S):
            return
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no cluster answers at {address} ({error}); start one with 'ray start --head', or "
            "leave out --cluster"
        ) from error
