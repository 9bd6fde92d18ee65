"""From C text to a loaded library: found again, refused with a reason, never half written."""

import ctypes

import pytest

from leancnn import cache, toolchain
from leancnn.errors import CompileError, MissingDependencyError, WriteError

ANSWER = "int answer(void) { return 42; }\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path / "cache"))


def test_a_library_is_built_once_and_answers():
    first = toolchain.compile_library(ANSWER, name="answer")
    stamp = first.stat().st_mtime_ns
    again = toolchain.compile_library(ANSWER, name="answer")
    assert again == first
    assert again.stat().st_mtime_ns == stamp
    assert ctypes.CDLL(str(first)).answer() == 42


def test_another_source_or_flag_is_another_library():
    one = toolchain.compile_library(ANSWER, name="answer")
    assert toolchain.compile_library(ANSWER + "\n", name="answer") != one
    assert toolchain.compile_library(ANSWER, name="answer", flags=("-O0",)) != one


def test_a_refused_source_gives_the_compilers_first_complaint_and_no_litter():
    with pytest.raises(CompileError, match="error"):
        toolchain.compile_library("int f( { }", name="broken")
    assert not list((cache.folder() / "native").iterdir())


def test_no_compiler_names_the_package_that_brings_one(monkeypatch):
    monkeypatch.setattr(toolchain, "CANDIDATES", ())
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    toolchain.find_compiler.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="ziglang"):
            toolchain.compile_library(ANSWER, name="answer")
    finally:
        toolchain.find_compiler.cache_clear()


def test_an_unwritable_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEANCNN_CACHE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match="LEANCNN_CACHE"):
        toolchain.compile_library(ANSWER, name="answer")
