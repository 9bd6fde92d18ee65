"""What is kept between calls: found again, bounded, cleared, and nothing of anybody else's."""

import os
import time
from pathlib import Path

import pytest

from leancnn import cache, toolchain
from leancnn.cli import main
from leancnn.compiled import open_library
from leancnn.errors import UsageError
from leancnn.workspaces import PREFIX

LONG_AGO = 1_000_000.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path))
    return tmp_path


def register(home: Path, name: str, size: int = 1000, age_s: float = 1000) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def filled(home: Path) -> list[Path]:
    key = f"{7:032x}"
    return [
        register(home, f"data/images/{key}.u8", age_s=400),
        register(home, f"data/images/{key}.json", age_s=400),
        register(home, f"data/index/{key}.json", age_s=300),
        register(home, f"native/net-{7:020x}.so", age_s=200),
        register(home, f"scores/{key}/scores.json", age_s=100),
    ]


def test_what_goes_together_is_one_entry_and_the_oldest_stands_first(home: Path) -> None:
    filled(home)
    found = cache.entries()
    assert [entry.kind for entry in found] == ["data", "data", "native", "scores"]
    assert [len(entry.files) for entry in found] == [2, 1, 1, 1]
    assert sum(entry.bytes for entry in found) >= 5000


def test_the_least_used_goes_until_the_rest_fits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, facts, index, library, scores = filled(home)
    cache.mark_used(images)
    monkeypatch.setenv("LEANCNN_CACHE_GB", "4.5e-6")
    cache.trim()
    assert not index.exists()
    assert not library.exists() or not scores.exists()
    assert images.exists()
    assert facts.exists()


def test_what_nobody_used_for_long_goes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = filled(home)
    old = register(home, f"native/old-{8:020x}.so", age_s=3 * cache.DAY_S)
    monkeypatch.setenv("LEANCNN_CACHE_DAYS", "2")
    assert [entry.files for entry in cache.trim()] == [(old,)]
    assert all(path.exists() for path in paths)


def test_files_of_others_are_neither_counted_nor_removed(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "precious"
    outside.write_bytes(b"x" * 100)
    foreign = [
        register(home, name) for name in ("thesis.tex", "native/a.so", "data/images/holiday.png")
    ]
    link = home / "native" / f"net-{9:020x}.so"
    link.symlink_to(outside)
    monkeypatch.setenv("LEANCNN_CACHE_GB", "0")
    cache.trim()
    cache.clear()
    assert all(path.exists() for path in [*foreign, link, outside])


@pytest.mark.parametrize("value", ["much", "-1", "nan", "inf"])
def test_a_bound_that_is_none_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANCNN_CACHE_GB", value)
    with pytest.raises(UsageError, match="LEANCNN_CACHE_GB"):
        cache.bounds()


def test_the_command_shows_and_clears(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = filled(home)
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert str(home) in said
    assert "native" in said
    assert main(["cache", "--clear", "native"]) == 0
    assert [path.exists() for path in paths] == [True, True, True, False, True]
    assert main(["cache", "--clear"]) == 0
    assert not any(path.exists() for path in paths)
    capsys.readouterr()
    assert main(["cache", "--clear", "nativ"]) == 2
    assert "no nativ" in capsys.readouterr().err


def test_a_library_is_found_again_and_what_killed_builds_left_goes(home: Path) -> None:
    litter = home / "native" / f"{PREFIX}killed"
    litter.mkdir(parents=True)
    half = register(home, "native/.net-7.so.77.tmp")
    path = toolchain.compile_library("int f(void) { return 7; }\n", name="seven")
    assert toolchain.compile_library("int f(void) { return 7; }\n", name="seven") == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert not litter.exists()
    assert not half.exists()


def test_equal_calls_add_nothing(home: Path) -> None:
    for _ in range(3):
        library = open_library(
            toolchain.compile_library("int f(void) { return 7; }\n", name="seven")
        )
        assert library.f() == 7
    assert len(cache.entries()) == 1
