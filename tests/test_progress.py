"""Signs of work on a terminal: one spinner, which makes room for a bar."""

import io
import sys

import pytest

from leancnn.progress import LOGGER, Progress, Waiting, now, tell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def turning(sign: Waiting) -> bool:
    return bool(sign._rich.live.is_started)


def test_a_spinner_takes_the_titles_of_those_inside_and_makes_room_for_a_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Waiting("prune") as sign:
        now("choosing channels")
        assert sign._rich.tasks[0].description == "prune: choosing channels"
        with Waiting("comparing engines") as inner:
            assert inner._rich is None
            assert sign._rich.tasks[0].description == "prune: comparing engines"
        assert turning(sign)
        with Progress("training", 9) as bar:
            bar.to(3)
            assert bar._rich is not None
            assert not turning(sign)
        assert turning(sign)
        with Progress("nobody looks", 9, shown=False):
            assert turning(sign)
    assert Waiting._outermost is None


def test_away_from_a_terminal_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Waiting("prune"):
        now("choosing channels")
        with Progress("training", 9) as bar:
            bar.to(3)
    assert capsys.readouterr().err == ""


def test_what_must_not_be_missed_goes_to_a_logger_and_to_stderr(caplog, capsys):
    tell("one\x1b[31m")
    assert capsys.readouterr().err == "leancnn: one\\x1b[31m\n"
    assert [(one.name, one.getMessage()) for one in caplog.records] == [("leancnn", "one\x1b[31m")]


def test_who_listens_otherwise_is_told_alone(caplog, capsys, monkeypatch):
    monkeypatch.setattr(LOGGER, "handlers", [])
    tell("one")
    assert capsys.readouterr().err == ""
    assert [one.getMessage() for one in caplog.records] == ["one"]
