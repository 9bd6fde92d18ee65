"""Every example in a docstring runs, and every public name has one."""

import doctest
import inspect
import os
import re
import shutil
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import leancnn
from leancnn.eeg.synthetic import synthetic_trials
from leancnn.errors import MissingDependencyError
from leancnn.search import LatencyModel, trial
from leancnn.search.measured import Times
from leancnn.search.trial import Job, Outcome
from leancnn.targets import targets
from leancnn.train import backend
from tests.eeg_data import save_trials
from tests.tiny import make_pictures

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SOURCES = [
    path for path in sorted((ROOT / "leancnn").rglob("*.py")) if ">>>" in path.read_text("utf-8")
]


def module_of(path: Path) -> str:
    """`leancnn/train/run.py` → `leancnn.train.run`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


class Here:
    """A worker of `bench` in this process: the same answers and times, no second interpreter."""

    def __init__(self, target: str, artifact: Path, images: Path, core: int) -> None:
        if target == "peak":
            raise MissingDependencyError("not timed here")
        session, given = targets[target].load(artifact), np.load(images)
        entry = session.entry(given)
        self.logits: Any = session.logits(given)
        self.probabilities: Any = entry
        self.run, self.startup = session.prepare(given[1:2]), 0.0

    def time(self, seconds: float) -> list[float]:
        return import_module("leancnn.timing").turn(self.run, seconds)

    def close(self) -> float:
        return 0.0


class InThisProcess:
    """A pool of `search` that trains where it is asked to."""

    size = 1

    def __init__(self) -> None:
        self.waiting: list[Job] = []

    def start(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self, seconds: float) -> list[Outcome]:
        done, self.waiting = [trial.run(job) for job in self.waiting], []
        return done

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> list[Outcome]:
        return []

    def close(self) -> None:
        pass


def settings(patch: pytest.MonkeyPatch) -> None:
    """Quick ways for what is slow and shown elsewhere: no comparing of backends, no pictures."""
    plain = backend.Choice("torch", "fp32", "the examples are short")
    patch.setattr(import_module("leancnn.train.run"), "choose", lambda *given, **named: plain)
    patch.setattr(import_module("leancnn.train.loop"), "training_curve", lambda rows: b"")
    for name in ("confusion_matrix", "contact_sheet"):
        patch.setattr(import_module("leancnn.evaluate"), name, lambda *given, **named: b"")
    patch.setattr(import_module("leancnn.bench"), "Worker", Here)
    model = LatencyModel({"kernels": 1.0}, 0.05, 0.2, programs=40, fastest=9e3)
    patch.setattr(import_module("leancnn.search.feasible"), "load_or_fit", lambda *_, **__: model)
    patch.setattr(import_module("leancnn.search.run"), "LocalPool", InThisProcess)
    patch.setattr(import_module("leancnn.search.lengths"), "seconds_per_epoch", lambda *_: 0.1)
    result = import_module("leancnn.search.result")
    patch.setattr(result, "timed", lambda network, on: Times((9.0, 10.0, 11.0)))
    patch.setattr(result, "compile", lambda network, *, out: None)


def run(examples: doctest.DocTest, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Run the examples of one docstring in a folder. Fails with the first that says otherwise."""
    settings(patch)
    patch.chdir(folder)
    examples.globs.update(leancnn=leancnn, np=np, torch=torch)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(examples, out=said.append, clear_globs=False)
    assert not runner.failures, "".join(said)


FOUND = [
    found
    for path in SOURCES
    for found in doctest.DocTestFinder(exclude_empty=True).find(import_module(module_of(path)))
    if found.examples
]
TRAIN = "leancnn.train.run.train"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and the run that the example of `train` leaves."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("examples")
    make_pictures(folder / "photos")
    trials = synthetic_trials((10.0, 12.0), 0.0, trials=8, people=2, seconds=2.0)
    save_trials(folder / "trials.npz", trials)
    (example,) = [found for found in FOUND if found.name == TRAIN]
    with pytest.MonkeyPatch.context() as patch:
        run(example, folder, patch)
    return folder


@pytest.mark.parametrize(
    "examples", [one for one in FOUND if one.name != TRAIN], ids=lambda one: one.name
)
def test_an_example_in_a_docstring_says_what_happens(
    examples: doctest.DocTest, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("photos", "trials.npz"):
        (folder / name).symlink_to(workspace / name)
    shutil.copytree(workspace / "runs", folder / "runs")
    run(examples, folder, monkeypatch)


def public() -> list[str]:
    """The public names: of `import leancnn`, and of the page that lists the rest."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"auto(?:function|class):: ([\w.]+)", page)
    own = [f"leancnn.{name}" for name in leancnn.__all__ if name != "__version__"]
    return sorted({*listed, *own})


@pytest.mark.parametrize("door", ["leancnn", "leancnn.search", "leancnn.eeg"])
def test_the_page_lists_every_name_behind_a_door(door: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(rf"auto(?:function|class):: {door}\.(?:\w+\.)*(\w+)", page)
    wanted = set(import_module(door).__all__) - {"__version__", "LeanCNNError"}
    assert wanted <= set(listed)


@pytest.mark.parametrize("name", public())
def test_every_public_name_has_an_example(name: str) -> None:
    where, _, last = name.rpartition(".")
    thing = getattr(import_module(where), last)
    assert ">>> " in (inspect.getdoc(thing) or ""), f"{name} has no example in its docstring"
    assert os.path.commonpath([inspect.getfile(thing), ROOT]) == str(ROOT)
