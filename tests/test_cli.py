import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leancnn import cli
from leancnn.commands import Answer, Command, commands
from leancnn.commands._base import network_arguments, no_arguments, size
from leancnn.errors import LeanCNNError, MismatchError, UnknownNameError, UsageError


@pytest.fixture
def command(monkeypatch):
    """Let `leancnn models` do what a test gives it."""

    def register(run):
        monkeypatch.setitem(commands, "models", Command("models", "for a test", no_arguments, run))

    return register


def raiser(error):
    def run(args):
        raise error

    return run


def test_without_words_the_help_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([])
    assert "leancnn train photos/" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(commands))
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    printed = capsys.readouterr().out
    assert commands[name].summary.split()[0] in printed
    assert "--json" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cuont"], "no command named 'cuont'; did you mean 'count'?"),
        (["count"], "the following arguments are required: network; see 'leancnn count --help'"),
        (["--json", "models"], "'--json' stands before its command; write it after 'models'"),
        (
            ["count", "henet_r3", "--model-arg", "classes=5"],
            "'classes' is no argument for --model-arg",
        ),
        (
            ["count", "henet_r3", "--model-arg", "channels=1"],
            "'channels' is no argument for --model-arg",
        ),
        (["count", "henet_r3", "--clases", "3"], "'--clases' is one word too many; did you mean"),
        (["count", "henet_r3", "--classes", "x"], "argument --classes: invalid int value: 'x'"),
        (["count", "henet_r9"], "no network named 'henet_r9'; did you mean 'henet_r"),
        (["count", "henet_r3", "--model-arg", "repat=4"], "'repat'; did you mean 'repeat'?"),
        (
            ["count", "henet_r3", "--model-arg", "repeat"],
            "--model-arg takes key=value, not 'repeat'",
        ),
        (["count", "henet_r3", "--size", "3x"], "'3x' is no size"),
        (["train"], "train needs a folder of images, or --resume and a run"),
        (["train", "--resume", "a", "--lr", "1"], "a run goes on as it began"),
        (["train", "x", "--override", "lr"], "--override takes key=value, not 'lr'"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(words, message, capsys):
    assert cli.main(words) == UsageError.exit_status == UnknownNameError.exit_status == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("leancnn: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_options_are_not_guessed_from_their_beginning(capsys):
    assert cli.main(["count", "henet_r3", "--class", "3"]) == 2
    assert "did you mean '--classes'?" in capsys.readouterr().err


@pytest.mark.parametrize("status", [1, 2, 3])
def test_an_error_raised_on_purpose_is_one_safe_line_with_its_own_status(status, command, capsys):
    error = LeanCNNError("a\x1b[31m\nb")
    error.exit_status = status
    command(raiser(error))
    assert cli.main(["models", "--json"]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "leancnn: a\\x1b[31m\\nb\n"


def test_debug_shows_where_an_error_came_from(command):
    command(raiser(LeanCNNError("no")))
    with pytest.raises(LeanCNNError):
        cli.main(["models", "--debug"])


def test_a_bug_keeps_its_traceback(command):
    command(raiser(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["models"])


def test_what_the_system_refuses_is_one_line_with_the_path(command, capsys):
    command(raiser(PermissionError(13, "Permission denied", "/some/where")))
    assert cli.main(["models"]) == 1
    assert capsys.readouterr().err == "leancnn: /some/where: Permission denied\n"


@pytest.mark.parametrize("error", [
    MemoryError("Unable to allocate 72 GiB for an array"),
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
])  # fmt: skip
def test_too_little_memory_is_one_line(error, command, capsys):
    command(raiser(error))
    assert cli.main(["models"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("leancnn: not enough memory; a smaller --batch")
    assert said.count("\n") == 1
    with pytest.raises(type(error)):
        cli.main(["models", "--debug"])


def test_ctrl_c_ends_with_130(command, capsys):
    command(raiser(KeyboardInterrupt()))
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "leancnn: interrupted\n"


def test_a_sigterm_ends_as_ctrl_c_does_and_leaves_the_handlers_of_others_alone(command, capsys):
    command(lambda args: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "leancnn: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    heard = []
    command(lambda args: os.kill(os.getpid(), signal.SIGTERM) or Answer([], "done"))
    signal.signal(signal.SIGTERM, lambda *told: heard.append(told))
    try:
        assert cli.main(["models"]) == 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert len(heard) == 1


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    code = (
        "import sys; from leancnn.commands import *; from leancnn import cli; "
        "commands['models'] = Command('models', '', lambda parser: None, "
        "lambda args: Answer([], 'x' * 10_000_000)); sys.exit(cli.main(['models']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_json_is_one_ascii_value_and_nothing_else(command, capsys):
    command(lambda args: Answer({"name": "é\u202e\x9b"}, "text"))
    assert cli.main(["models", "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"name": "é\u202e\x9b"}


@pytest.mark.long
def test_text_that_the_terminal_cannot_show_is_written_out():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "leancnn", "count", "henet_r3"]
    done = subprocess.run(words, capture_output=True, env=environment, check=True)
    assert b"\\xd731\\xd731" in done.stdout


def test_a_stream_that_is_closed_is_written_to_in_vain(command, capsys, monkeypatch):
    command(raiser(LeanCNNError("no")))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert cli.main(["models"]) == 1
        sys.stderr.close()
    assert capsys.readouterr() == ("", "")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert cli.main(["recipes"]) == 0
        sys.stdout.close()


def test_nothing_to_say_is_no_empty_line(command, capsys):
    command(lambda args: Answer({}, "", 1))
    assert cli.main(["models"]) == 1
    assert capsys.readouterr().out == ""


def test_an_answer_may_carry_a_status_of_its_own(command):
    command(lambda args: Answer({}, "no-go", 1))
    assert cli.main(["models"]) == 1


def test_of_the_processes_of_torchrun_one_speaks(command, capsys, monkeypatch):
    command(lambda args: Answer({}, "done"))
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out == "done\n"  # a variable of others, not torchrun
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out == ""


def test_models_lists_every_network_with_its_figures(capsys):
    from leancnn import models

    assert cli.main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == models.names()
    for row in rows:
        card = models.card(row["name"])
        assert row == {
            "name": card.name,
            "source": card.source,
            "image": list(card.image),
            "trainable": card.trainable,
            "frozen": card.frozen,
            "macs": card.macs,
        }
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(row["name"] in text for row in rows)


def test_recipes_are_listed(capsys):
    from leancnn import recipes

    assert cli.main(["recipes", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == recipes.names()
    assert cli.main(["recipes"]) == 0
    assert "henet-paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "trainable", "macs"),
    [
        (["henet_r3"], 87_058, 10_046_040),
        (["henet_r3", "--model-arg", "conv_bias=false"], 85_378, 10_046_040),
        (["henet_r3", "--classes", "100"], 104_428, 10_046_040 + 192 * 90),
        (["henet_r3", "--model-arg", "repeat=5"], 105_490 + 18_432, 12_966_504 + 2_920_464),
        (["henet_r3", "--channels", "1"], 87_058 - 432, 10_046_040 - 432 * 31 * 31),
        (["henet_r3", "--size", "32"], 87_058, None),
    ],
)
def test_count_answers_in_integers(words, trainable, macs, capsys):
    assert cli.main(["count", *words, "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert {"trainable", "frozen", "buffers", "macs", "bytes"} <= cost.keys()
    assert cost["trainable"] == trainable
    assert cost["bytes"] == 4 * trainable
    assert macs is None or cost["macs"] == macs


def test_count_prints_figures_for_people(capsys):
    assert cli.main(["count", "henet_r3"]) == 0
    assert "87,058" in capsys.readouterr().out


DEFAULTS = {"repeat": 3, "bias": True, "share": 0.5, "init": "kaiming", "widths": (24, 48)}


@pytest.mark.long
@given(
    st.fixed_dictionaries(
        {
            "repeat": st.integers(),
            "bias": st.booleans(),
            "share": st.floats(allow_nan=False),
            "init": st.text(),
            "widths": st.lists(st.integers(), min_size=1).map(tuple),
        }
    )
)
def test_arguments_of_a_network_arrive_with_the_type_of_their_default(values):
    pairs = [
        f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for key, value in values.items()
    ]
    assert network_arguments(pairs, DEFAULTS) == values


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("repeat=x", "repeat is a whole number, not 'x'"),
        ("repeat=1.5", "repeat is a whole number, not '1.5'"),
        ("bias=1", "bias is true or false, not '1'"),
        ("share=half", "share is a number, not 'half'"),
    ],
)
def test_a_value_of_another_type_is_refused(pair, message):
    with pytest.raises(MismatchError, match=message):
        network_arguments([pair], DEFAULTS)


@given(st.integers(1, 999), st.integers(1, 999))
def test_a_size_is_height_times_width(height, width):
    assert size(f"{height}x{width}") == (height, width)
    assert size(str(height)) == (height, height)


def test_train_resume_and_evaluate_follow_each_other(tmp_path, capsys):
    for part, each in (("train", 6), ("test", 2)):
        for place, name in enumerate(("cat", "dog")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = np.random.default_rng([place, i, each]).integers(0, 256, (32, 32, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(tmp_path / "photos" / part / name / f"{i}.png")
    run = str(tmp_path / "run")
    words = ["train", str(tmp_path / "photos"), "--recipe", "smoke", "--out", run, "--quiet"]
    words += [
        "--override",
        "backend=torch",
        "--override",
        "precision=fp32",
        "--model-arg",
        "repeat=1",
    ]
    assert cli.main([*words, "--epochs", "1", "--batch", "5", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert (trained["run"], trained["epochs"]) == (run, 1)
    assert cli.main(words) == 1  # the folder is taken
    assert "--resume" in capsys.readouterr().err
    assert cli.main(["train", "--resume", run, "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1
    assert cli.main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4
    assert cli.main(["count", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "henet_r2"
    assert cli.main(["count", run, "--classes", "3"]) == 2


@pytest.mark.long
def test_no_folder_name_steers_the_terminal(pictures, tmp_path, monkeypatch, capsys):
    import shutil

    from leancnn.train import train
    from tests.tiny import RECIPE

    name = "a\x1b[31mred\x1b]0;title\x07\r\x9b2J‮b\nleancnn: all is well"
    monkeypatch.chdir(tmp_path)
    run, data = f"run {name}", f"data {name}"
    shutil.copytree(pictures, data)
    train(data, recipe=RECIPE.changed(epochs=0.5), out=run, progress=False)
    recipe = tmp_path / run / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"lr": 0.05', '"lr": 0.06'))
    for words in (
        ["train", data, "--out", run],
        ["train", "--resume", run],
        ["train", data, "--recipe", f"{run}/recipe.json", "--epochs", "0.5", "--out", f"{run}2"],
        ["check", data],
        ["evaluate", run],
        ["evaluate", f"{run}/best", "--data", "nowhere" + name],
        ["predict", run, f"{data}/class 0"],
        ["prune", run, "--keep-ratio", "0.5", "--criterion", "l1", "--no-time"],
        ["prune", run, "--keep-ratio", "0.5", "--criterion", "l1", "--no-time"],
        ["export", run, "--to", "c", "--out", f"out {name}"],
        ["compile", run, "--out", f"out {name}"],
        ["predict", f"{data}/none", run],
        ["count", name],
        [name],
        ["train", "--resume", name],
        ["cache", "--clear", name],
    ):
        cli.main(words)
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert not {c for c in text if not c.isprintable() and c != "\n"}, words
            assert "\nleancnn: all is well" not in text, words
