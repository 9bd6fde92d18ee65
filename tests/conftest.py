"""For every test and every process it starts: a cache of its own, and no clock in hypothesis."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores, and threads that wait spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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


@pytest.fixture
def one_thread() -> None:
    """For figures that do not depend on the machine's cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of tiny pictures; do not write there."""
    from tests.tiny import make_pictures

    return make_pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(scope="session")
def quiet(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `pictures` that nothing disturbed; do not write there."""
    import torch

    from leancnn.train import train
    from tests.tiny import RECIPE

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("quiet") / "run"
    train(pictures, recipe=RECIPE, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def plain_digits() -> Iterator[None]:
    """The recipe of the digits without a choice of backends: no compiler, no clock."""
    from leancnn.recipes._base import recipes

    before = recipes["digits"]
    recipes["digits"] = before.changed(backend="torch", precision="fp32")
    yield
    recipes["digits"] = before


@pytest.fixture(scope="module")
def no_curves() -> Iterator[None]:
    """Other tests draw them; a picture takes longer than the trainings of small networks."""
    from importlib import import_module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("leancnn.train.loop"), "training_curve", lambda epochs: b"")
        yield


@pytest.fixture(scope="module")
def shelf() -> Iterator[None]:
    """A small LB-MBNet for 8×8 images, "tiny_gates", among the networks."""
    from leancnn.models._base import Card, networks, register
    from tests.tiny_gates import tiny_gates

    card = Card(
        name="tiny_gates", source="none: for tests", image=(3, 8, 8), classes=3, trainable=0, macs=0
    )
    register(card, tiny_gates)
    yield
    networks.pop("tiny_gates")


@pytest.fixture(scope="module")
def wide(
    shelf: None, no_curves: None, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of "tiny_gates" that has seen `pictures` for a few steps."""
    import torch

    from leancnn.train import train
    from tests.tiny import RECIPE

    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("prune") / "wide"
    recipe = RECIPE.changed(epochs=0.5)
    train(pictures, model="tiny_gates", recipe=recipe, out=out, progress=False)
    return out


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A compiled network to serve."""
    from tests.serving import compiled

    return compiled(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def served(native: Any) -> Iterator[tuple[int, Any]]:
    """The port at which a server with narrow limits listens, and its service."""
    from tests.serving import narrow, running

    service = narrow(native)
    with running(service) as port:
        yield port, service


@pytest.fixture
def client(served: tuple[int, Any]) -> Iterator[Any]:
    """Whoever asks that server."""
    import httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{served[0]}") as found:
        yield found


@pytest.fixture
def plain_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts that are drawn at once, where a test is not about them."""
    from tests.report_pages import draw_plainly

    if "charts" not in request.keywords:
        draw_plainly(monkeypatch)


@pytest.fixture
def photo_run(tmp_path: Path) -> Path:
    """A run of untrained networks, best and last, on photos of three classes."""
    from tests.tiny_photos import made_photo_run

    return made_photo_run(tmp_path)
