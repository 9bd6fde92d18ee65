"""Programs of a search that a command of the user's times on another machine."""

import contextlib
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leancnn import cli
from leancnn.errors import RunError
from leancnn.search import latency_model, remote
from leancnn.search.integers import integer_source
from leancnn.search.measured import Times
from leancnn.search.programs import NAME, measured, source
from leancnn.search.remote import TURNS, RemoteTimer
from leancnn.search.space import architectures

HERE = 'cc -O1 -o "$1.program" "$1" -lm && "$1.program"\n'


@pytest.fixture
def script(tmp_path):
    def written(text):
        path = tmp_path / "on it.sh"
        path.write_text(text)
        return RemoteTimer(f"sh '{path}'")

    return written


def smallest():
    return next(architectures(classes=10, channels=3, sizes=[(16, 16)], only=["resnet8"]))


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler called cc")
def test_a_program_tells_its_seconds_turn_by_turn_in_floats_and_in_integers(script):
    some = smallest()
    for write in (source, integer_source):
        turns = script(HERE).seconds(write(some), NAME, some, some.classes)
        assert len(turns) == TURNS
        assert all(1e-7 < each < 1 for each in turns)
    (microseconds,) = measured([some], on=script(HERE)).values()
    assert 0.1 < microseconds < 1e6
    times = Times([1e6 * turn for turn in turns])
    assert times.least <= times.low <= times.median <= times.high


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no route to host >&2; exit 255", "ended with status 255: no route to host"),
        ("exit 1", "ended with status 1: it said nothing"),
        ("echo fast", "it printed 'fast'"),
        ("echo 0.1 -0.2", "it printed '0.1 -0.2'"),
        ("echo nan", "it printed 'nan'"),
        ("true", "it printed ''"),
    ],
)
def test_a_command_that_times_nothing_is_one_line_with_what_it_said(text, said, script):
    with pytest.raises(RunError, match="is given a C file") as raised:
        measured([smallest()], lambda one: "", script(text))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_takes_too_long_is_ended_with_all_that_it_began(script, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "LONGEST_S", 0.5)
    begun = tmp_path / "pid"
    with pytest.raises(RunError, match="timed out"):
        script(f"sleep 60 & echo $! > '{begun}'; wait").seconds("", NAME, smallest(), 10)
    end = time.monotonic() + 10
    while running(int(begun.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=8, deadline=None)
def test_of_what_a_command_prints_a_bounded_part_is_kept(answers, complaints):
    """Blocks of 256 kB, up to 10 MB of each, and then its seconds."""
    block = "head -c 262144 /dev/zero | tr '\\0' '\\n'; "  # white space: it changes no answer
    command = f"{block * answers} (true; {block * complaints}) >&2; echo the end >&2; echo 0.5"
    tracemalloc.start()
    if answers:
        with pytest.raises(ValueError, match="more than 65,536 bytes"):
            remote._run(["sh", "-c", command])
    else:
        done = remote._run(["sh", "-c", command])
        assert float(done.stdout) == 0.5
        assert done.stderr.endswith("the end\n")
        assert len(done.stderr) <= remote.MOST_KEPT
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


def test_a_command_that_never_stops_printing_is_ended_at_once_in_one_line(script):
    with pytest.raises(RunError, match="it printed more than 65,536 bytes") as raised:
        script("yes").seconds("", NAME, smallest(), 10)
    assert "\n" not in str(raised.value)


def running(pid):
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        return state not in "ZX"
    return False


def test_times_of_another_script_by_the_same_name_are_other_times(script):
    first = script("echo 1").key
    assert script("echo 1").key == first
    assert script("echo 2").key != first
    assert RemoteTimer("'").key != RemoteTimer("x").key


def test_a_command_that_does_not_exist_is_named():
    for command in ("nowhere-to-be-found", "'", ""):
        with pytest.raises(RunError, match="--clock-on"):
            RemoteTimer(command).seconds("", NAME, smallest(), 10)


def test_what_one_program_fails_at_is_left_out_once_another_was_timed(script):
    some = list(architectures(classes=10, channels=3, sizes=[(16, 16)], only=["resnet8"]))[:2]
    told = script('grep -q second "$1" && exit 1; echo 1e-3')
    texts = iter(["first", "second"])
    with pytest.warns(UserWarning, match="1 of 2 programs were not timed; the last: .*status 1"):
        assert measured(some, lambda one: next(texts), told) == {some[0].key: 1000.0}


def test_the_command_refuses_a_command_that_times_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path))
    monkeypatch.setattr(latency_model, "searched", lambda: ["resnet8"])  # none of other tests'
    words = ["--time", "1ms", "--networks", "resnet8", "--size", "16x16"]
    assert cli.main(["search", "--dry-run", *words, "--clock-on", "false", "--quiet"]) == 1
    error = capsys.readouterr().err.strip()
    assert "--clock-on 'false': it ended with status 1" in error
    assert len(error.splitlines()) == 1
