"""The command, from files to decisions; each verb says what it takes on its page."""

import argparse
import json
from pathlib import Path

import pytest

from leancnn import cli
from leancnn.commands import eeg as commands_eeg
from leancnn.eeg import load, session
from leancnn.process import Terminated
from tests.eeg_data import people, save_trials

PAGE = (Path(__file__).parent.parent / "docs" / "eeg.md").read_text(encoding="utf-8")


def verbs():
    parser = cli.build_parser().verbs["eeg"]
    (action,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return action.choices


@pytest.mark.parametrize("verb", list(verbs()))
def test_every_option_of_a_verb_is_on_its_page(verb):
    known = {"-h", "--help", "--json", "--debug"}
    assert {word for word in cli.options(verbs()[verb]) if f"`{word}" not in PAGE} <= known
    assert f"leancnn eeg {verb}" in PAGE


def told(capsys, *words):
    status = cli.main(["eeg", *map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out or "null")


def test_from_trials_to_decisions(tmp_path, capsys):
    data = save_trials(tmp_path / "trials.npz", people(rest=2))
    status, report = told(capsys, "check", data)
    assert (status, report["fit"], report["people"]) == (0, True, 4)
    run = tmp_path / "run"
    status, made = told(capsys, "train", data, "--out", run, "--split", "session", "--window", 1.5)
    assert status == 0
    assert made["accuracy"] > 0.7
    status, report = told(capsys, "evaluate", run, "--shuffles", 1)
    assert status == 0
    assert report["accuracy"] == made["accuracy"]
    assert (run / "evaluation.json").exists()
    source = f"replay:{data}"
    status, live = told(capsys, "run", "--source", source, "--decoder", run, "--speed", 0)
    assert status == 0
    assert (live["decisions"], live["asked"]) == (72, 64)
    assert live["correct"] > 50


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["check", "no.npz"], 1, "no such file"),
        (["train", "no.npz"], 2, "--out"),
        (["run", "--source", "nothing"], 2, "is no source"),
        (["run", "--source", "synthetic", "--speed", "-1"], 2, "--speed"),
        (["run", "--source", "synthetic", "--freqs", "1,x"], 2, "are no frequencies"),
        (["run", "--source", "synthetic", "--decoder", "no"], 1, "holds no decoder"),
        (["page", "--size", "4000"], 2, "--size"),
        (["page", "--freqs", "100,200"], 2, "a flicker is"),
        (["bench", "x.npz", "--out", "y", "--only", "z"], 2, "no table 'z'"),
        (["evaluate", "no"], 1, "no held-out scores"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, status, says, capsys):
    assert cli.main(["eeg", *words]) == status
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_recording_that_is_not_fit_ends_with_status_1(tmp_path, capsys):
    data = save_trials(tmp_path / "a.npz", people(snr_db=-60.0))
    assert told(capsys, "check", data)[0] == 1


@pytest.mark.parametrize(
    ("by", "status", "ended"),
    [(KeyboardInterrupt, 0, "interrupted"), (Terminated, 130, "terminated")],
)
def test_whoever_ends_a_session_gets_its_account_and_its_recording(
    tmp_path, capsys, monkeypatch, by, status, ended
):
    def tell(line):
        raise by

    monkeypatch.setattr(commands_eeg, "tell", tell)
    recording = tmp_path / "r.csv"
    words = ["run", "--source", "synthetic", "--speed", 0, "--record", recording]
    found, account = told(capsys, *words)
    assert (found, account["ended"], account["decisions"]) == (status, ended, 1)
    assert load(recording).x.shape[1] == account["samples"]


def test_a_source_that_died_is_one_line_on_stderr_and_an_account_on_stdout(capsys, monkeypatch):
    account = {"ended": "x: gone", "error": "x: gone; r.csv holds what came", "decisions": 3}
    monkeypatch.setattr(session, "run_live", lambda *_: dict(account))
    assert cli.main(["eeg", "run", "--source", "synthetic", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == "leancnn: x: gone; r.csv holds what came\n"
    assert json.loads(out) == account


@pytest.mark.parametrize(
    ("by", "status", "ended"),
    [(KeyboardInterrupt, 0, "interrupted"), (Terminated, 130, "terminated")],
)
def test_whoever_ends_a_page_gets_its_account(capsys, monkeypatch, by, status, ended):
    def sleep(seconds):
        raise by

    monkeypatch.setattr(session.time, "sleep", sleep)
    found, account = told(capsys, "page", "--port", 0)
    assert (found, account["ended"], account["onsets"]) == (status, ended, 0)
