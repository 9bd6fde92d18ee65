"""One rule for the exit status over all commands, and one line: 2 where the words alone are wrong,
1 where what they name stands in the way."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leancnn import cli
from leancnn.commands import commands, flags
from leancnn.commands._base import flag
from tests.few import few

NEEDED = {
    "check": ["x"], "compile": ["x", "--out", "y"], "count": ["henet_r2"], "evaluate": ["x"],
    "export": ["x", "--out", "y"], "predict": ["x", "y"], "train": ["x"], "bench": ["x"],
    "prune": ["x", "--criterion", "l1", "--keep-ratio", "0.5"],
}  # fmt: skip
"""Words with which each command can be parsed; x and y are not there."""
READS = [name for name in NEEDED if name != "count"]
WRONG = [
    (["count", "henet_r2", "--classes", "0"], "needs --classes of 1 or more, not 0"),
    (["count", "henet_r2", "--size", "0"], "1 to "),
    (["count", "henet_r2", "--model-arg", "repeat=0"], "needs repeat of 1"),
    (["count", "henet_r2", "--model-arg", "repeat=999999999"], "too large"),
    (["count", "nothing"], "no network named"),
    (["count", "x", "--keep", "1"], "one word too many"),
    (["bench", "--model", "henet_r2", "--rounds", "0"], "--rounds is 1 or more, not 0"),
    (["bench", "--model", "henet_r2", "--seconds", "nan"], "--seconds is above 0"),
    (["bench", "--model", "henet_r2", "--engines", "tnsor"], "no engine named"),
    (["bench", "--model", "henet_r9"], "no network named"),
    (["bench"], "needs a saved network"),
    (["train", "digits", "--lr", "-1"], "--lr above 0, not -1"),
    (["train", "digits", "--epochs", "0"], "--epochs above 0"),
    (["train", "digits", "--batch", "1"], "a --batch of 2 or more, not 1"),
    (["train", "digits", "--seed", "-1"], "a --seed is 0 to"),
    (["train", "digits", "--val-share", "1"], "--val-share is 0 (no validation) to below 1"),
    (["train", "digits", "--override", "ema=2"], "--override ema from 0 to below 1"),
    (["train", "digits", "--override", "ema=x"], "--override ema takes a finite number, not 'x'"),
    (["train", "digits", "--override", "nothing=1"], "no recipe field named"),
    (["train", "digits", "--recipe", "nothing"], "no recipe named"),
    (["train", "digits", "--model", "nothing"], "no network named"),
    (["train", "digits", "--loss", "center"], "never trains the classifier"),
    (["train", "digits", "--threads", "0"], "--threads is 1 to"),
    (["train", "--resume", "x", "--lr", "1"], "a run goes on as it began"),
    (["predict", "x", "y", "--top", "0"], "--top is 1 or more"),
    (["predict", "x", "y", "--sheet", ""], "--sheet is empty"),
    (["export", "x", "--out", "y", "--to", "tflite"], "tflite"),
    (["compile", "x.onnx", "--out", "y", "--checkpoint", "best"], "leave out --checkpoint"),
]
THERE = [
    (["train", "digits", "--recipe", "none.json"], "no such recipe file"),
    (["train", "nothing"], "nor is a folder of that name here"),
    (["predict", "x", "y", "--sheet", "none/sheet.png"], "there is no folder none"),
    (["evaluate", "x", "--picture", "none/sheet.png"], "there is no folder none"),
    (["bench", "x", "--picture", "none/bench.png"], "there is no folder none"),
    (["bench", "--model", "henet_r2", "--core", "99999"], "no core 99999"),
    (["train", "empty"], ""),
    (["check", "empty"], ""),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()


def ended(words, status, text, capsys):
    assert cli.main(words) == status
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") <= 1
    assert "`" not in said


@pytest.mark.parametrize(("words", "text"), WRONG, ids=lambda part: str(part)[:60])
def test_words_that_are_wrong_everywhere_are_status_2(words, text, capsys):
    ended(words, 2, text, capsys)


@pytest.mark.parametrize(("words", "text"), THERE, ids=lambda part: str(part)[:60])
def test_what_is_not_there_or_not_right_is_status_1(words, text, capsys):
    ended(words, 1, text, capsys)
    assert [path.name for path in Path().iterdir()] == ["empty"], "nothing was made"


@pytest.mark.parametrize("name", list(commands))
def test_an_option_that_no_command_has_is_status_2_for_each(name, capsys):
    words = []
    for action in cli.build_parser().verbs[name]._actions:
        if action.required or (not action.option_strings and action.nargs == "+"):
            value = str(next(iter(action.choices or ["x"])))
            words += [*action.option_strings[:1], value]
    ended([name, *words, "--nothing"], 2, "", capsys)


@pytest.mark.parametrize("name", [name for name in NEEDED if name not in ("bench", "train")])
def test_words_that_are_missing_are_status_2(name, capsys):
    ended([name], 2, "are required", capsys)


@pytest.mark.parametrize("name", READS)
def test_what_is_not_on_the_disk_is_status_1_for_each(name, capsys):
    words = ["./x" if word == "x" else word for word in NEEDED[name]]
    ended([name, *words], 1, "x", capsys)


@pytest.mark.parametrize("name", [name for name in READS if name not in ("check", "train")])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_what_is_damaged_is_status_1_for_each(name, data, capsys):
    Path("x").mkdir()
    Path("x/network.json").write_bytes(data)
    Path("x/weights.safetensors").write_bytes(data)
    ended([name, *NEEDED[name]], 1, "x", capsys)


def test_a_message_speaks_in_the_options_of_the_command_that_was_typed():
    parser = cli.build_parser().verbs["train"]
    told = "`lr` and `ema`, not `nothing`, `overrides` nor `start`"
    assert (
        flags(told, parser) == "--lr and --override ema, not `nothing`, --override nor --init-from"
    )
    args = cli.build_parser().parse_args(["prune", "x"])
    assert flag(args, "keep") == "--keep-ratio"


def test_no_answer_steers_the_terminal(monkeypatch, capsys):
    from leancnn.commands import Answer, Command
    from leancnn.commands._base import no_arguments

    answer = Answer({}, "a\x1b[2J\rb\n\u202ec")
    command = Command("models", "", no_arguments, lambda args: answer)
    monkeypatch.setitem(commands, "models", command)
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out == "a\\x1b[2J\\rb\n\\u202ec\n"


@pytest.mark.parametrize("verb", few(["evaluate", "count", "export", "compile", "predict"]))
def test_the_folder_one_stands_in_is_a_network_like_any_other(verb, quiet, monkeypatch, tmp_path):
    monkeypatch.chdir(quiet / "best")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "image.png")
    more = {
        "export": ["--out", str(tmp_path / "build")],
        "compile": ["--out", str(tmp_path / "build")],
        "predict": [str(tmp_path / "image.png")],
        "evaluate": ["--picture", str(tmp_path / "matrix.png")],
    }
    assert cli.main([verb, ".", *more.get(verb, [])]) == 0
