"""The image cache: decoded once, never trusted without its checksums, never stale."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import draw, photos

from leancnn.cache import folder as cache_folder
from leancnn.data import Split, _cache, _workers, load_dataset
from leancnn.data._workers import each
from leancnn.errors import WriteError
from leancnn.preprocess import Preprocessing

PREPROCESSING = Preprocessing(size=(5, 8), scale=(6, 8))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every task that was done, and on how many files."""
    done: list[tuple[str, int]] = []

    def spy(task: str, setup: dict[str, Any], paths: list[str], **options: Any) -> Any:
        done.append((task, len(paths)))
        return each(task, setup, paths, **options)

    monkeypatch.setattr(_cache, "each", spy)
    return done


def train(root: Path, cache: Path, **options: Any) -> Split:
    found = load_dataset(
        root, options.pop("preprocessing", PREPROCESSING), parts=("train",), cache=cache, **options
    )
    assert found.train is not None
    return found.train


def test_a_second_load_decodes_nothing(tmp_path: Path, decoded: list[tuple[str, int]]) -> None:
    root = photos(tmp_path / "photos")
    first = train(root, tmp_path / "cache")
    second = train(root, tmp_path / "cache")
    assert decoded == [("decode", 10), ("hash", 0)]
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    np.testing.assert_array_equal(first.images, second.images)
    assert first.files == second.files


def test_another_window_shares_the_images_and_another_scale_does_not(
    tmp_path: Path, decoded: list[tuple[str, int]]
) -> None:
    root = photos(tmp_path / "photos")
    for preprocessing in (
        PREPROCESSING,
        Preprocessing(size=(6, 8)),
        Preprocessing(size=(3, 3)),
        Preprocessing(size=(6, 8), channels=1),
    ):
        train(root, tmp_path / "cache", preprocessing=preprocessing)
    assert [task for task, _ in decoded if task == "decode"] == ["decode"] * 3


def test_touched_files_are_compared_and_changed_ones_decoded(
    tmp_path: Path, decoded: list[tuple[str, int]]
) -> None:
    root = photos(tmp_path / "photos")
    before = train(root, tmp_path / "cache")
    os.utime(root / "train" / "s2" / "0.png", (1, 1))
    train(root, tmp_path / "cache")
    assert decoded[1:] == [("hash", 1)]
    draw(root / "train" / "s2" / "0.png", 77)
    after = train(root, tmp_path / "cache")
    assert decoded[2:] == [("hash", 1), ("decode", 10)]
    assert (after.images[0] != before.images[0]).any()
    np.testing.assert_array_equal(after.images[1:], before.images[1:])


def test_a_change_that_keeps_size_and_time_is_still_seen(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    path = root / "train" / "s2" / "0.bmp"  # no compression: every picture has the same size
    draw(path, 1)
    before = load_dataset(root, PREPROCESSING, parts=("train",), cache=tmp_path / "cache")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    draw(path, 2)
    os.utime(path, ns=times)
    after = load_dataset(root, PREPROCESSING, parts=("train",), cache=tmp_path / "cache")
    assert after.manifest["sha256"] != before.manifest["sha256"]
    assert after.train is not None
    assert before.train is not None
    assert (after.train.images[0] != before.train.images[0]).any()


@pytest.mark.parametrize("change", ["add", "remove", "rename", "move to another class"])
def test_every_change_of_the_folder_changes_the_manifest(tmp_path: Path, change: str) -> None:
    root = photos(tmp_path / "photos")
    seen = {}
    for turn in ("before", "after"):
        found = load_dataset(root, PREPROCESSING, parts=("train",), cache=tmp_path / "cache")
        assert found.train is not None
        assert len(found.train) == len(found.train.files) == len(found.train.images)
        seen[turn] = found.manifest["sha256"]["train"]
        file = root / "train" / "s2" / "1.png"
        if turn == "after":
            break
        if change == "add":
            draw(root / "train" / "s2" / "z.png", 5)
        elif change == "remove":
            file.unlink()
        elif change == "rename":
            file.rename(file.with_name("b.png"))
        else:
            file.rename(root / "train" / "s10" / "b.png")
    assert seen["before"] != seen["after"]


def test_verify_reads_every_byte(tmp_path: Path, decoded: list[tuple[str, int]]) -> None:
    root = photos(tmp_path / "photos")
    train(root, tmp_path / "cache")
    train(root, tmp_path / "cache", verify=True)
    assert decoded[1:] == [("hash", 10)]


def test_a_damaged_cache_is_decoded_again_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos(tmp_path / "photos")
    cache = tmp_path / "cache"
    good = np.array(train(root, cache).images)
    rng = random.Random(0)
    for path in [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size]:
        for _ in range(10):
            data = bytearray(path.read_bytes())
            if rng.random() < 0.3:
                del data[rng.randrange(len(data)) :]
            else:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(data))
            np.testing.assert_array_equal(train(root, cache).images, good)
    assert "is damaged" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file in the way")
    with pytest.raises(WriteError, match=r"cache.*can be written: LEANCNN_CACHE names it"):
        train(photos(tmp_path / "photos"), tmp_path / "cache")


def test_a_stop_in_the_middle_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    root = photos(tmp_path / "photos")
    with monkeypatch.context() as patch:
        patch.setattr(_cache, "each", stop)
        with pytest.raises(KeyboardInterrupt):
            train(root, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "data" / "images").iterdir())
    assert len(train(root, tmp_path / "cache")) == 10


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANCNN_CACHE", "/a")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("LEANCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/b/leancnn")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "leancnn"

    def nameless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nameless)
    with pytest.raises(WriteError, match="no home folder to keep a cache in; LEANCNN_CACHE"):
        cache_folder()


# The processes


def test_processes_answer_as_one_does(tmp_path: Path) -> None:
    root = photos(tmp_path, each=40)
    (root / "train" / "s2" / "3.png").write_bytes(b"")
    paths = [str(path) for path in sorted(root.rglob("*.png"))]
    alone, many = (
        each("inspect", {}, paths, title="", total_bytes=0, processes=count) for count in (0, 2)
    )
    assert [{**answer, "warnings": []} for answer in alone] == [
        {**answer, "warnings": []} for answer in many
    ]
    assert sum("error" in answer for answer in many) == 1


def test_a_file_that_kills_or_hangs_its_process_is_one_more_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of the processes, one that dies of files named kill, and hangs on hang."""
    child = tmp_path / "child.py"
    child.write_text(
        "import json, os, sys, time\n"
        "sys.stdin.readline()\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    for row, path in json.loads(line):\n"
        "        if path == 'kill': os.kill(os.getpid(), 9)\n"
        "        if path == 'hang': time.sleep(60)\n"
        "        print(json.dumps({'path': path}), flush=True)\n"
    )
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {_workers.sys.executable} {child}\n")
    python.chmod(0o755)
    monkeypatch.setattr(_workers.sys, "executable", str(python))
    monkeypatch.setattr(_workers, "LONGEST_S", 2.0)
    paths = [*map(str, range(40)), "kill", "kill", "fine", "hang", *map(str, range(50, 100))]
    answers = each("hash", {}, paths, title="", total_bytes=0, processes=2)
    for path, answer in zip(paths, answers, strict=True):
        if path == "kill":
            assert answer["error"] == "kills the decoder; replace or remove it"
        elif path == "hang":
            assert answer["error"] == "took longer than 2 s; replace or remove it"
        else:
            assert answer == {"path": path}


def test_a_program_among_the_images_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('ran', 'w')")
    path = str(draw(tmp_path / "a.png", 0))
    monkeypatch.chdir(tmp_path)
    assert "sha256" in each("hash", {}, [path], title="", total_bytes=0, processes=1)[0]
    assert not Path("ran").exists()


def test_without_processes_the_work_is_done_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_workers.sys, "executable", "/nowhere/python")
    path = str(draw(tmp_path / "a.png", 0))
    assert "sha256" in each("hash", {}, [path], title="", total_bytes=0, processes=2)[0]


def test_what_could_not_be_read_once_is_read_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos", each=120)

    def fails(task: str, setup: dict[str, Any], paths: list[str], **options: Any) -> Any:
        answers = each(task, setup, paths, **options)
        if task == "decode":
            answers[0] = {"error": "Input/output error"}
        return answers

    monkeypatch.setattr(_cache, "each", fails)
    assert len(train(root, tmp_path / "cache").labels) == 239
    monkeypatch.setattr(_cache, "each", each)
    assert len(train(root, tmp_path / "cache").labels) == 240
    assert len(train(root, tmp_path / "cache").labels) == 240
