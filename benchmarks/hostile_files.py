"""Figure 12: files of a stranger are refused; nothing outside is touched, nothing is started.

    python benchmarks/hostile_files.py

Each attack is a command of leancnn on a file (`hostile_cases.py`, `hostile_formats.py`), in a child
of its own that a tripwire watches (sys.addaudithook): a process, a connection, a name that a pickle
looks up, a library that is loaded, anything opened for writing, moved, removed or made outside of
the folder that the command writes to. A refusal is status 1 or 2 with one line, within a minute,
with the same tree of files as before and nothing of the secret that lies outside in the output.
Payloads are harmless: they make an empty folder. The controls are what one writes without thinking;
each must trip the wire.
"""

import hashlib
import os
import pickle
import shutil
import signal
import stat
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import publish

sys.path[:0] = [str(Path(__file__).parent.parent)]

import hostile_formats  # noqa: E402, F401 - more attacks
from hostile_cases import ATTACKS, SECRET, Payload, base, tar_that_climbs  # noqa: E402

from leancnn import cli  # noqa: E402

LIMIT_S = 60
STARTS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "os.forkpty", "pty.spawn", "socket.connect", "socket.getaddrinfo", "socket.bind",
    "pickle.find_class",
)  # fmt: skip
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate")


def tripwire(report: int, hostile: Path, allowed: tuple[Path, ...]) -> None:
    """Write a line to the handle `report` whenever this process does what no reader needs to."""

    def inside(name: object, flags: int = 0) -> bool:
        if not isinstance(name, str | bytes | os.PathLike):
            return True  # a handle that is open already
        path = Path(os.fsdecode(name))
        place = Path(os.path.realpath(path))
        if flags & os.O_NOFOLLOW:  # a link at its end is not gone through
            place = Path(os.path.realpath(path.parent)) / path.name
        return place == Path(os.devnull) or any(place.is_relative_to(one) for one in allowed)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        trips = event in STARTS
        if event == "open":
            mode, flags = given[1] or "", given[2] if isinstance(given[2], int) else 0
            writes = set(str(mode)) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            trips = bool(writes) and not inside(given[0], flags)
        elif event in CHANGES:
            trips = not all(inside(name) for name in given[:2])
        elif event == "ctypes.dlopen" and given[0]:
            trips = Path(os.path.realpath(os.fsdecode(given[0]))).is_relative_to(hostile)
        if trips:
            os.write(report, f"{event} {given!r}\n"[:300].encode(errors="replace"))

    sys.addaudithook(hook)


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder: its kind, its links, and the bytes of a regular file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        kind = f"{stat.filemode(about.st_mode)} {about.st_nlink if path.is_file() else ''}"
        if path.is_symlink():
            kind += str(path.readlink())
        elif stat.S_ISREG(about.st_mode):
            kind += hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = kind
    return found


def watched(place: Path, deed: Callable[[], int]) -> dict[str, Any]:
    """A deed in a child under the tripwire: status, what it printed, what tripped, what changed."""
    out, output, trips = place / "out", place / "out" / "output", place / "out" / "tripped"
    out.mkdir()
    before = {name: kind for name, kind in tree(place).items() if not name.startswith("out")}
    child = os.fork()
    if child == 0:
        try:
            report = os.open(trips, os.O_WRONLY | os.O_CREAT)
            handle = os.open(output, os.O_WRONLY | os.O_CREAT)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            torch.set_num_threads(1)
            os.environ["LEANCNN_CACHE"], os.environ["TMPDIR"] = str(out / "cache"), str(out)
            tempfile.tempdir = str(out)
            tripwire(report, place, (out, place / "run"))  # a run that is resumed is written to
            status = deed()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        except BaseException as error:
            os.write(2, f"Traceback: {type(error).__name__}: {error}".encode(errors="replace"))
            os._exit(99)
    end = time.monotonic() + LIMIT_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    after = {name: kind for name, kind in tree(place).items() if not name.startswith("out")}
    return {
        "status": os.waitstatus_to_exitcode(ended[1]),
        "output": output.read_text(errors="replace").strip().splitlines(),
        "tripped": trips.read_text(errors="replace").splitlines(),
        "changed": sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k)),
    }


def reason(output: list[str]) -> str:
    """The line of an error, or the first problem that `leancnn check` names."""
    return next((line for line in output if line.startswith(("leancnn: ", "problem: "))), "")


def wrong(found: dict[str, Any]) -> str:
    """What is wrong about the answer to an attack, in words; nothing if it was refused."""
    text = "\n".join(found["output"])
    faults = {
        f"status {found['status']}": found["status"] not in (1, 2),
        "no line of ours": not reason(found["output"]),
        "a traceback": "Traceback" in text,
        "the secret is told": SECRET in text,
        f"tripped: {found['tripped'][:2]}": bool(found["tripped"]),
        f"changed: {found['changed'][:3]}": bool(found["changed"]),
    }
    return "; ".join(name for name, true in faults.items() if true)


def controls(place: Path) -> dict[str, Callable[[], int]]:
    """What one writes without thinking, for four of the kinds."""
    outside = place / "outside"

    def unpickle() -> int:
        path = place / "a.pkl"
        path.write_bytes(pickle.dumps(Payload(outside / "made")))
        pickle.loads(path.read_bytes())
        return 1

    def load() -> int:
        path = place / "out" / "a.pt"
        torch.save({"weight": Payload(outside / "made")}, path)
        torch.load(path, weights_only=False)
        return 1

    def extract() -> int:
        with tarfile.open(tar_that_climbs(place / "out" / "a.tar")) as archive:
            archive.extractall(place / "out", filter="fully_trusted")
        return 1

    def lock() -> int:
        (place / "out" / "run.lock").symlink_to(outside / "secret")
        (place / "out" / "run.lock").write_text("1")
        return 1

    return {"pickle.load": unpickle, "torch.load": load, "extractall": extract, "a lock": lock}


def main() -> None:
    wrongs: dict[str, str] = {}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as work:
        made = Path(work).resolve() / "base"
        base(made)
        kept = {path.name for path in made.iterdir()}
        for number, (name, attack) in enumerate(ATTACKS.items()):
            place = Path(work).resolve() / str(number)
            shutil.copytree(made, place, symlinks=True)
            words = attack(place)
            found = watched(place, lambda words=words: cli.main(words))
            reasons[name] = reason(found["output"]).replace(str(place), "…")
            if fault := wrong(found):
                wrongs[name] = fault
                print(name, fault, found["output"][-3:], file=sys.stderr)
            shutil.rmtree(place)
        careless = {}
        for name in controls(made):
            place = Path(work).resolve() / f"control {name}"
            shutil.copytree(made, place, symlinks=True)
            careless[name] = bool(watched(place, controls(place)[name])["tripped"])
        assert kept == {path.name for path in made.iterdir()}
    rows = [
        {
            "what": "files of a stranger, each refused with one line, nothing outside touched",
            "trials": len(ATTACKS),
            "failed": len(wrongs),
            "at most (95 %)": "",  # they were thought of, not drawn: no share is bounded
        },
        {
            "what": f"control: {', '.join(careless)}",
            "trials": len(careless),
            "failed": sum(careless.values()),
            "at most (95 %)": "",
        },
    ]
    publish(
        12,
        "files of a stranger",
        rows,
        note="a process, a connection, a name of a pickle, a library, a file written outside: all "
        "watched by an audit hook, and the tree of files compared",
        said=reasons,
        wrong=wrongs,
    )
    sys.exit(bool(wrongs) or not all(careless.values()))


if __name__ == "__main__":
    main()
