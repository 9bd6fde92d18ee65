"""Temporary folders that do not outlive their process for long."""

import os
import subprocess
import sys
import time

import pytest

from leancnn.workspaces import OLD_S, PREFIX, sweep, workspace


def test_a_folder_is_empty_and_gone_at_the_end_also_after_an_error(tmp_path):
    def work():
        with workspace(tmp_path) as folder:
            assert folder.parent == tmp_path
            assert not list(folder.iterdir())
            (folder / "file").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_held_is_not_swept(tmp_path):
    with workspace(tmp_path) as folder, workspace(tmp_path) as other:
        assert sweep(tmp_path) == []
        assert folder.exists()
        assert other.exists()


def test_what_a_killed_process_left_goes_with_the_next(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom leancnn.workspaces import workspace\n"
        "with workspace(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').write_text('x')\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    with workspace(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not left.exists()


def test_folders_and_links_of_others_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 3


def test_where_no_lock_tells_age_does(tmp_path, monkeypatch):
    import leancnn.workspaces as module

    def refuse(*_):
        raise OSError("no locks here")

    young, old = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old"
    for folder in (young, old):
        folder.mkdir()
    os.utime(old, (0, time.time() - OLD_S - 1))
    monkeypatch.setattr(module.fcntl, "flock", refuse)
    assert sweep(tmp_path) == [old]
    assert young.exists()
