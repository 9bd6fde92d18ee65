"""For every test and every process it starts: a cache of its own, and no clock in hypothesis."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("leancnn", deadline=None, database=None)
settings.load_profile("leancnn")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image cache of this session: empty at its start, never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LEANCNN_CACHE")
    os.environ["LEANCNN_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LEANCNN_CACHE"]
    else:
        os.environ["LEANCNN_CACHE"] = before
