import json
from pathlib import Path

import pytest
from PIL import Image

from leancnn import cli, runs
from leancnn.demo import demo


@pytest.fixture(scope="module")
def short(tmp_path_factory, plain_digits):
    """A demo of a few steps."""
    return demo(tmp_path_factory.mktemp("demo"), epochs=0.1, progress=False)


def test_the_demo_goes_the_whole_way(short):
    assert short["test"]["images"] > 300
    assert short["test"]["low"] <= short["test"]["accuracy"] <= short["test"]["high"]
    assert short["count"]["trainable"] > 60_000
    assert len(short["predictions"]) == 16
    json.dumps(short, allow_nan=False)


def test_the_demo_leaves_a_run_and_a_picture(short):
    assert runs.is_run(Path(short["run"]))
    assert len(runs.evaluations(Path(short["run"]))) == 1
    with Image.open(short["picture"]) as image:
        assert image.format == "PNG"


@pytest.mark.slow
def test_a_second_demo_has_a_folder_of_its_own(short, capsys):
    out = Path(short["run"]).parent
    assert cli.main(["demo", "--out", str(out), "--epochs", "0.1", "--json"]) == 0
    printed = capsys.readouterr()
    again = json.loads(printed.out)
    assert again["run"] == str(out / "run-2")
    assert "evaluate" in printed.err


@pytest.mark.slow
def test_the_demo_reads_at_least_97_percent_of_the_digits(tmp_path):
    assert demo(tmp_path, progress=False)["test"]["accuracy"] >= 0.97
