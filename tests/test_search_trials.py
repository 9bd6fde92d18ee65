"""Real trials of a search: processes that train, one that is killed, a cluster, the whole way."""

import os
import signal
import time
from pathlib import Path

import pytest

from leancnn import runs
from leancnn.errors import ClusterError, RunError
from leancnn.search import Budget, feasible, latency_model
from leancnn.search import run as searching
from leancnn.search.budget import Candidate
from leancnn.search.drive import Driver
from leancnn.search.pool import LocalPool
from leancnn.search.space import Architecture
from leancnn.search.study import Study
from leancnn.search.trial import INT8, outcome
from tests.searches import a_job, a_plan

SIDE = 16


def architecture(width):
    return Architecture(
        network="resnet8",
        arguments={"width": width},
        size=(SIDE, SIDE),
        channels=3,
        classes=10,
        macs=width * 10**5,
        bytes=width * 10**3,
    )


def job(folder, number=0, epochs=1):
    return a_job(folder, number=number, epochs=epochs, architecture=architecture(8))


def ended(pool, many=1):
    found = []
    until = time.monotonic() + 300
    while len(found) < many and time.monotonic() < until:
        found += pool.wait(1.0)
    return found


def ray_pool(size):
    pytest.importorskip("ray")
    from leancnn.search.ray_pool import RayPool

    return RayPool("local", size)


@pytest.mark.slow
def test_a_rung_goes_on_with_the_weights_of_the_one_before_and_none_is_trained_twice(tmp_path):
    pool = LocalPool()
    pool.start(job(tmp_path / "a"))
    (first,) = ended(pool)
    pool.start(job(tmp_path / "a", epochs=2))
    (second,) = ended(pool)
    pool.start(job(tmp_path / "b", epochs=2))
    (whole,) = ended(pool)
    assert not first.error + second.error + whole.error
    assert first.accuracy > 0.15
    assert len(runs.read_metrics(tmp_path / "a")) == 2
    pool.start(job(tmp_path / "a", epochs=1))
    assert ended(pool) == [first]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_a_lost_rung_which_goes_on_from_its_checkpoint(tmp_path):
    pool = LocalPool()
    pool.start(job(tmp_path / "a", epochs=400))
    while not list((tmp_path / "a").glob("checkpoints/*.json")):
        time.sleep(0.1)
    os.kill(pool._running[0].process.pid, signal.SIGKILL)
    (lost,) = ended(pool)
    assert lost.lost
    assert outcome(tmp_path / "a", 400) is None
    pool.start(job(tmp_path / "a", epochs=400))
    while not (tmp_path / "a" / "run.json").exists():
        time.sleep(0.1)  # it may have been killed before that was written
    assert pool.stop() == []
    assert runs.read_run(tmp_path / "a")["state"] in ("stopped", "running")


def test_no_cluster_is_one_line_and_soon(tmp_path):
    pytest.importorskip("ray")
    from leancnn.search.ray_pool import RayPool

    began = time.monotonic()
    for address in ("ray://127.0.0.1:1", "127.0.0.1:1", "nowhere"):
        with pytest.raises(ClusterError, match="no cluster answers at"):
            RayPool(address)
    assert time.monotonic() - began < 20


def test_what_a_worker_hands_back_stays_in_its_folder(tmp_path):
    pytest.importorskip("ray")
    from leancnn.search.ray_pool import files_of, put

    (tmp_path / "a" / "best").mkdir(parents=True)
    (tmp_path / "a" / "best" / "network.json").write_bytes(b"{}")
    (tmp_path / "a" / "run.lock").write_bytes(b"x")
    files = files_of(tmp_path / "a")
    assert files == {"best/network.json": b"{}"}
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "b" / "checkpoints" / "step-00000001.json").write_bytes(b"old")
    put(files, tmp_path / "b")
    assert files_of(tmp_path / "b") == files
    with pytest.raises(ClusterError, match="outside of its folder"):
        put({"../c": b""}, tmp_path / "b")
    assert not (tmp_path / "c").exists()


def ray_workers():
    """Processes that are at a task of ours."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::work"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_costs_one_rung_and_the_search_goes_on_without_ray(tmp_path):
    pool = ray_pool(2)
    found = tuple(Candidate(architecture(width), 10.0 * width) for width in (8, 12))
    plan = a_plan(found=found, rungs=(1, 3), budget=Budget(), val_images=300)
    study = Study(tmp_path / "study.journal", found, plan.rungs)
    killed = []
    done = []

    def look(driver):
        if not killed and (there := ray_workers()):
            os.kill(there[0], signal.SIGKILL)
            killed.append(there[0])
        done[:] = [one for one in study.trials() if one.accuracies]
        if len(done) >= 2:
            driver.seconds = 0.0

    try:
        Driver(plan, tmp_path, study, pool, 1e9, look=look).run()
    finally:
        pool.close()
    assert killed
    assert len(done) >= 2
    assert all(one.state != "failed" for one in study.trials())
    before = {one.number: one.accuracies for one in study.trials()}
    local = LocalPool()
    again = Study(tmp_path / "study.journal", found, plan.rungs)

    def enough(driver):
        if sum(len(one.accuracies) for one in again.trials()) > sum(map(len, before.values())):
            driver.seconds = 0.0

    Driver(plan, tmp_path, again, local, 1e9, look=enough).run()
    after = {one.number: one.accuracies for one in again.trials()}
    assert all(after[number].items() >= each.items() for number, each in before.items())


@pytest.mark.slow
def test_a_search_of_digits_ends_with_a_network_its_c_file_and_a_test_part_opened_once(
    tmp_path, monkeypatch
):
    made = latency_model.LatencyModel(
        dict.fromkeys(("window", "winograd", "kernels"), 1e-3), 0.1, 0.2, 9, 5e4
    )
    monkeypatch.setattr(feasible, "load_or_fit", lambda *_, **__: made)
    known = {
        "out": tmp_path / "s",
        "hours": 0.5,
        "budget": Budget(accuracy=0.2, bytes=200_000),
        "networks": ["resnet8"],
        "sizes": [(SIDE, SIDE)],
        "epochs": 6,
        "progress": False,
    }
    found = searching.search("digits", **known)
    assert found.reached
    assert found.sentence.startswith("reached: resnet8")
    names = {path.name for path in (tmp_path / "s" / "winner").iterdir()}
    assert {"network.json", "weights.safetensors", "resnet8.c", "resnet8.h"} <= names
    assert (tmp_path / "s" / "front.png").read_bytes().startswith(b"\x89PNG")
    runs_of_front = [
        tmp_path / "s" / "trials" / f"{one.trial:04d}" / (INT8 if one.form == "int8" else "")
        for one in found.members
    ]
    assert all(len(runs.evaluations(each)) == 1 for each in runs_of_front)
    again = searching.search("digits", **known)
    assert again.members == found.members
    assert all(len(runs.evaluations(each)) == 1 for each in runs_of_front)
    with pytest.raises(RunError, match="another search, with seed 0 and not 1"):
        searching.search("digits", **known, seed=1)
