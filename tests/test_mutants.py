"""Every mutant of tests/mutants.py is noticed by the tests that it names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "leancnn").rglob("*.py"))


def home(text: str) -> list[Path]:
    """The files in which a text stands, once for each time."""
    found = []
    for path in SOURCES:
        found += [path] * path.read_text(encoding="utf-8").count(text)
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant[0][:40])
def test_what_a_mutant_changes_stands_once_in_the_program(
    mutant: tuple[str, str, list[str]],
) -> None:
    assert len(home(mutant[0])) == 1
    assert all((ROOT / "tests" / name).exists() for name in mutant[2])


def status(place: Path, tests: list[str]) -> int:
    """Of the tests, run on the program in a folder."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*words, *(f"tests/{name}" for name in tests)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        check=False,
    ).returncode


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program and its tests, to be spoiled."""
    place = tmp_path_factory.mktemp("mutants")
    for name in ("leancnn", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place / name)
    shutil.copytree(ROOT / "docs", place / "docs")
    return place


@pytest.mark.slow
def test_without_a_mutant_the_tests_pass(copy: Path) -> None:
    assert status(copy, sorted({name for *_, names in MUTANTS for name in names})) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant[0][:40])
def test_no_mutant_survives(mutant: tuple[str, str, list[str]], copy: Path) -> None:
    before, after, tests = mutant
    (path,) = home(before)
    place = copy / path.relative_to(ROOT)
    text = place.read_text(encoding="utf-8")
    place.write_text(text.replace(before, after), encoding="utf-8")
    try:
        assert status(copy, tests) == 1, "nobody noticed"
    finally:
        place.write_text(text, encoding="utf-8")
