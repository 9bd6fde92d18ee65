"""What a run leaves on disk: checkpoints, metrics, evaluations, the lock."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from leancnn import runs
from leancnn.errors import RunError, WriteError

ROOT = Path(__file__).parent.parent


def tensors(step: int) -> dict[str, np.ndarray]:
    return {"w": np.full(50, step, np.float32)}


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 15):
        runs.save_checkpoint(tmp_path, step, {"plan": {}}, tensors(step))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{s:08d}.{e}" for s in (10, 15) for e in ("json", "safetensors")]
    checkpoint, skipped = runs.load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 15
    assert not skipped


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    for step in (5, 10):
        runs.save_checkpoint(tmp_path, step, {}, tensors(step))
    newest = tmp_path / "checkpoints" / "step-00000010.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    checkpoint, skipped = runs.load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 5
    assert "step 10" in skipped[0]
    runs.set_aside(tmp_path, newer_than=5)
    assert runs.load_checkpoint(tmp_path)[1] == []


def test_a_checkpoint_under_another_name_is_damaged(tmp_path: Path) -> None:
    runs.save_checkpoint(tmp_path, 5, {}, tensors(5))
    for path in (tmp_path / "checkpoints").iterdir():
        path.rename(path.with_name(path.name.replace("5", "7")))
    checkpoint, skipped = runs.load_checkpoint(tmp_path)
    assert checkpoint is None
    assert "holds step 5" in skipped[0]


def test_what_kills_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    runs.save_checkpoint(tmp_path, 5, {}, tensors(5))
    (tmp_path / "best").mkdir()
    litter = [
        tmp_path / ".run.json.123.tmp",
        tmp_path / "best" / ".weights.safetensors.next.9.tmp",
        tmp_path / "checkpoints" / "step-00000006.safetensors",
        tmp_path / "checkpoints" / "step-00000007.safetensors.next",
    ]
    foreign = [tmp_path / ".mine.tmp", tmp_path / "photos" / ".cat.jpg.7.tmp"]
    (tmp_path / "photos").mkdir()
    for path in litter + foreign:
        path.write_bytes(b"")
    assert sorted(runs.sweep(tmp_path)) == sorted(litter)
    assert runs.load_checkpoint(tmp_path)[0] is not None
    assert all(path.exists() for path in foreign)


def test_metrics_are_read_as_written(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_accuracy": 0.5}, {"epoch": 2, "val_accuracy": None}]
    runs.write_metrics(tmp_path, rows)
    assert runs.read_metrics(tmp_path) == rows
    assert (tmp_path / "metrics.csv").read_text() == "epoch,val_accuracy\n1,0.5\n2,\n"
    with pytest.raises(RunError, match="has an epoch ended"):
        runs.read_metrics(tmp_path / "no run")


def test_every_opening_of_a_test_set_is_kept(tmp_path: Path) -> None:
    assert runs.evaluations(tmp_path) == []
    assert runs.add_evaluation(tmp_path, {"accuracy": 0.5}) == []
    earlier = runs.add_evaluation(tmp_path, {"accuracy": 0.6})
    assert [entry["accuracy"] for entry in earlier] == [0.5]
    assert [entry["accuracy"] for entry in runs.evaluations(tmp_path)] == [0.5, 0.6]


def test_processes_that_open_at_once_lose_no_opening(tmp_path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            for turn in range(5):
                runs.add_evaluation(tmp_path, {"who": [number, turn]})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    found = [tuple(entry["who"]) for entry in runs.evaluations(tmp_path)]
    assert sorted(found) == [(number, turn) for number in range(4) for turn in range(5)]


def test_a_lock_around_nothing_leaves_nothing(tmp_path: Path) -> None:
    with runs.Lock(tmp_path / "runs" / "a"):
        pass
    assert not [*tmp_path.iterdir()]
    with runs.Lock(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "b").mkdir()
    assert [*(tmp_path / "runs").iterdir()] == [tmp_path / "runs" / "b"]
    with runs.Lock(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "run.json").touch()
    assert (tmp_path / "runs" / "a" / "run.json").exists()
    with runs.Lock(tmp_path / "runs" / "b"):  # made by someone else
        pass
    assert (tmp_path / "runs" / "b").exists()


def test_a_lock_that_was_removed_while_we_waited_is_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    lock, flock = runs.Lock(folder), fcntl.flock

    def slow(handle: int, how: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        flock(handle, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", slow)
        with pytest.raises(RunError, match="in use"), lock:
            pass
    with lock:
        pass


def test_a_second_lock_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with (
        runs.Lock(tmp_path),
        pytest.raises(RunError, match=f"in use by process {os.getpid()}"),
        runs.Lock(tmp_path),
    ):
        pass
    with runs.Lock(tmp_path):
        pass


LOCKER = """
    import sys, time
    from pathlib import Path
    from leancnn.errors import RunError
    from leancnn.runs import Lock
    folder, start = Path(sys.argv[1]), float(sys.argv[2])
    {prepare}
    time.sleep(max(0, start - time.time()))
    try:
        with Lock(folder):
            print("in", flush=True)
            time.sleep({hold})
    except RunError:
        print("refused", flush=True)
"""


def locker(folder: Path, start: float, hold: float, prepare: str = "") -> subprocess.Popen[str]:
    code = textwrap.dedent(LOCKER).format(hold=hold, prepare=prepare)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(start)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = locker(tmp_path, 0, hold=60)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(RunError, match=f"process {holder.pid}"), runs.Lock(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with runs.Lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "run.lock").read_text()


def test_orphaned_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    with runs.Lock(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        with runs.Lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.slow
def test_of_eight_starters_one_gets_the_lock_in_every_round(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from leancnn.errors import RunError
        from leancnn.runs import Lock
        for round in range(100):
            folder = Path(sys.argv[1]) / str(round)
            while not (folder / "go").exists():
                time.sleep(0.0005)
            try:
                with Lock(folder):
                    (folder / f"in {sys.argv[2]}").touch()
                    while not (folder / "over").exists():
                        time.sleep(0.001)
            except RunError:
                (folder / f"refused {sys.argv[2]}").touch()
        """
    )
    starters = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], cwd=ROOT)
        for n in range(8)
    ]
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "go").touch()
        while len([*folder.glob("in *"), *folder.glob("refused *")]) < 8:
            assert all(starter.poll() in (None, 0) for starter in starters)
            time.sleep(0.001)
        assert len([*folder.glob("in *")]) == 1
        (folder / "over").touch()
    assert [starter.wait() for starter in starters] == [0] * 8


def test_runs_do_not_load_torch() -> None:
    code = "import sys, leancnn.runs, leancnn.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_machine_is_json() -> None:
    assert json.loads(json.dumps(runs.machine()))["cores"] >= 1


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(runs.fcntl, "flock", refuses)
    lock = runs.Lock(tmp_path / "run")
    with pytest.raises(WriteError, match=r"file system without locks .No locks available"), lock:
        pass
    assert runs.add_evaluation(tmp_path, {"which": "last"}) == []
    assert len(runs.evaluations(tmp_path)) == 1


@pytest.mark.parametrize("before", ["a folder that was there", "nothing"])
def test_an_early_sigterm_leaves_no_lock_and_no_folder(before: str, tmp_path: Path) -> None:
    """While images are decoded, say: the run has not begun."""
    folder = tmp_path / "runs" / "a"
    if before != "nothing":
        folder.mkdir(parents=True)
    words = (
        "import signal, sys\nfrom pathlib import Path\nfrom leancnn import runs\n"
        "with runs.Lock(Path(sys.argv[1])):\n    signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", words, str(folder)], capture_output=True, text=True, check=False
    )
    assert "StoppedError: stopped by SIGTERM" in done.stderr
    assert folder.exists() == (before != "nothing")
    assert not list(tmp_path.rglob("*.lock"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_disk_that_is_full_before_the_first_checkpoint_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "a"

    def full() -> None:
        with runs.Lock(folder):
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "step-00000000.safetensors.next").write_bytes(b"half")
            runs.abandon(folder)
            raise WriteError("full")

    with pytest.raises(WriteError, match="full"):
        full()
    assert not (tmp_path / "runs").exists()
