"""The version is one, wherever it stands."""

import tomllib
from pathlib import Path

import leancnn
from leancnn.version import __version__

ROOT = Path(__file__).parent.parent


def test_the_package_the_front_door_and_the_file_of_the_project_say_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert leancnn.__version__ == __version__
    assert project["tool"]["hatch"]["version"]["path"] == "leancnn/version.py"
