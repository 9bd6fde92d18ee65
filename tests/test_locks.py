"""One writer in a folder: locks that end with their process."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from leancnn import runs
from leancnn.errors import RunError, WriteError

ROOT = Path(__file__).parent.parent


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
        "with runs.Lock(Path(sys.argv[1])):\n"
        "    for image in range(9):\n"
        "        try: signal.raise_signal(signal.SIGTERM)\n"
        "        except Exception: print('and the next')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", words, str(folder)], capture_output=True, text=True, check=False
    )
    assert "Terminated: stopped by SIGTERM" in done.stderr
    assert done.returncode != 0
    assert not done.stdout  # not taken for one image that cannot be read
    assert folder.exists() == (before != "nothing")
    assert not list(tmp_path.rglob("*.lock"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
