"""A stranger's files: whatever stands in a manifest, the answer is a value or one line."""

import json
import os
import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from leancnn import recipes, runs, weights
from leancnn.cli import main
from leancnn.errors import DamagedError, LeanCNNError
from leancnn.evaluate import evaluate
from leancnn.manifests import Checkpoint, Layer, check
from leancnn.manifests import Counters as CountersFile
from leancnn.manifests import Pruning as PlanFile
from leancnn.prune.plan import PruningPlan as Pruning
from leancnn.renamed_keys import renamed
from leancnn.safe_files import read_json, write_checked
from leancnn.targets._metadata import read_metadata, write_metadata
from leancnn.train.history import Counters
from leancnn.train.plan import TrainingPlan
from leancnn.training_data import training_images

ODD: list[Any] = [
    *(None, True, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -0.5, "", "x", "\x1b[31m", "\ud800"),
    *([], {}, [[]], {"a": {}}, [1, "a", None], "9" * 5000, {"sha256": 1}, [0] * 100),
]
TEXTS = [
    *("", "null", "[]", "{", "NaN", "1e999", '"', "\x00", '{"a": NaN}', "[" * 100_000),
    *('{"a":' * 100_000, "9" * 10_000, "[" * 100_000 + "]" * 100_000),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a JSON value."""
    found = [at]
    inner = value.items() if isinstance(value, dict) else []
    inner = enumerate(value[:3]) if isinstance(value, list) else inner
    for key, part in inner:
        found += places(part, (*at, key))
    return found


def mutated(value: Any, dice: random.Random) -> Any:
    """Another value: something inside is replaced, left out, or stands under another name."""
    value = deepcopy(value)
    for _ in range(dice.randint(1, 3)):
        way = dice.choice(places(value))
        if not way:
            return dice.choice(ODD)
        inside = value
        for key in way[:-1]:
            inside = inside[key]
        deed = dice.randrange(4)
        if deed == 0 and isinstance(inside, dict):
            del inside[way[-1]]
        elif deed == 1 and isinstance(inside, dict):
            inside[f"{way[-1]}x"] = inside.pop(way[-1])
        else:
            inside[way[-1]] = deepcopy(dice.choice(ODD))
    return value


def of_checkpoint(folder: Path) -> None:
    checkpoint, _ = runs.load_checkpoint(folder)
    if checkpoint is not None:
        check(checkpoint.manifest, Checkpoint, "a checkpoint")
        TrainingPlan.of_json(checkpoint.manifest["plan"])
        check(checkpoint.manifest["counters"], CountersFile, "a checkpoint", closed=True)
        Counters(**renamed(checkpoint.manifest["counters"]))


def of_run(folder: Path) -> None:
    runs.images_of(folder, "elsewhere")
    TrainingPlan.of_json(runs.read_run(folder)["plan"])
    training_images(folder, None, weights.load(folder))


READERS: dict[str, Callable[[Path], object]] = {
    "run.json": of_run,
    "recipe.json": lambda folder: recipes.read(folder / "recipe.json"),
    "evaluations.json": runs.evaluations,
    "metrics.jsonl": runs.read_metrics,
    "checkpoint.json": of_checkpoint,
    "best/network.json": lambda folder: weights.load(folder / "best"),
    "plan.json": lambda folder: Pruning.of_json(read_json(folder / "plan.json")),
    "beside.json": lambda folder: read_metadata(folder / "beside.onnx"),
}


@pytest.fixture(scope="module")
def strange(quiet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has a file of each kind."""
    folder = tmp_path_factory.mktemp("strange") / "run"
    shutil.copytree(quiet, folder)
    runs.add_evaluation(folder, {"which": "best", "sha256": "0" * 64, "images": 3, "accuracy": 0.5})
    write_metadata(weights.load(folder), folder / "beside.onnx")
    plan = {
        "network": "tiny",
        "criterion": "l1",
        "goal": {"keep": 0.5},
        "layers": [{"path": "conv", "before": 8, "kept": [0, 2]}],
        "before": {"macs": 8},
        "after": {"macs": 4},
        "microseconds": None,
        "notes": [],
        "reconstructed": False,
    }
    write_checked(folder / "plan.json", plan)
    return folder


def file_of(folder: Path, name: str) -> Path:
    if name == "checkpoint.json":
        return sorted(folder.glob("checkpoints/*.json"))[-1]
    return folder / name


def why(call: Callable[[], object]) -> str:
    """Why a call is refused, in one line; nothing when it is not."""
    try:
        call()
    except LeanCNNError as error:
        return str(error)
    return ""


def tried(folder: Path, name: str, trials: int) -> dict[str, int]:
    """Mutate a file so often; what came of it. Anything but a value or a `LeanCNNError` raises."""
    path, dice = file_of(folder, name), random.Random(name)
    whole = path.read_bytes()
    lines = name.endswith(".jsonl")
    value = json.loads(whole.splitlines()[0] if lines else whole)
    value.pop("sha256", None)
    counts = {"read": 0, "refused": 0}
    try:
        for trial in range(trials):
            new = mutated(value, dice)
            if trial < len(TEXTS):
                path.write_text(TEXTS[trial])
            elif lines or not isinstance(new, dict) or dice.random() < 0.2:
                path.write_text(json.dumps(new))
            else:
                try:
                    write_checked(path, new)  # who can write can make digests fit
                except ValueError:
                    path.write_text(json.dumps(new))
            refused = why(lambda: READERS[name](folder))
            counts["refused" if refused else "read"] += 1
    finally:
        path.write_bytes(whole)
    return counts


@pytest.mark.parametrize("name", READERS)
def test_no_mutation_of_a_manifest_ends_in_a_traceback(name: str, strange: Path) -> None:
    counts = tried(strange, name, 60)
    assert counts["refused"] > 10 or name == "checkpoint.json"  # which falls back on another
    READERS[name](strange)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_nor_do_two_thousand(name: str, strange: Path) -> None:
    print(name, tried(strange, name, 2000))


def test_the_same_mutations_do_harm_to_a_reader_without_types(strange: Path) -> None:
    path, dice = strange / "run.json", random.Random(1)
    value = json.loads(path.read_bytes())
    raw = 0
    for _ in range(60):
        new = mutated(value, dice)
        try:
            Path(new["data"]["source"]).exists()
            Counters(step=new["plan"]["threads"] + 1)
        except Exception as error:
            raw += not isinstance(error, LeanCNNError)
    assert raw > 0


@pytest.mark.parametrize("key", ["size", "scale"])
def test_a_size_beyond_reason_is_refused_before_anything_is_made(key: str, strange: Path) -> None:
    path = strange / "best" / "network.json"
    whole = path.read_bytes()
    value = json.loads(whole)
    del value["sha256"]
    value["preprocessing"][key] = [1_000_000, 1_000_000]
    write_checked(path, value)
    try:
        with pytest.raises(DamagedError, match=key):
            weights.load(strange)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "arguments", [{"width": 10**12}, {"width": 10**8}, {"width": "x"}, {"depth": 3}, {"width": -1}]
)
def test_arguments_of_another_network_are_refused(arguments: Any, strange: Path) -> None:
    path = strange / "best" / "network.json"
    whole = path.read_bytes()
    value = json.loads(whole)
    del value["sha256"]
    value["arguments"] = arguments
    write_checked(path, value)
    try:
        with pytest.raises(LeanCNNError):
            weights.load(strange)
    finally:
        path.write_bytes(whole)


FILES = ["run.json", "recipe.json", "evaluations.json", "metrics.jsonl", "best/network.json"]
FILES += ["best/weights.safetensors", "checkpoint.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file_is_named_and_nothing_waits(
    name: str, strange: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(strange, folder)
    path = file_of(folder, name)
    path.unlink()
    os.mkfifo(path)
    reader = READERS.get(name, lambda folder: weights.load(folder))
    said = why(lambda: reader(folder))
    assert "pipe" in said or name == "checkpoint.json"  # passed over for the one before it


@pytest.mark.parametrize("name", ["run.lock", ".evaluations.lock"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_a_lock_that_leads_elsewhere_is_refused_and_nothing_there_is_touched(
    name: str, kind: str, strange: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, precious = tmp_path / "run", tmp_path / "precious"
    shutil.copytree(strange, folder)
    precious.write_text("the only copy")
    place = folder / name
    place.unlink(missing_ok=True)
    if kind == "link":
        place.symlink_to(precious)
    elif kind == "hard link":
        os.link(precious, place)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    if name == "run.lock":
        assert main(["train", "--resume", str(folder)]) == 1
        assert "move it away" in capsys.readouterr().err
    else:
        with pytest.raises(LeanCNNError, match="move it away"):
            evaluate(folder)
    assert precious.read_text() == "the only copy"


@pytest.mark.parametrize("name", ["checkpoints", "best", "last"])
def test_a_run_does_not_write_through_a_link(
    name: str, strange: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(strange, folder)
    (folder / name).rename(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    (folder / name).symlink_to(outside)
    assert main(["train", "--resume", str(folder)]) == 1
    assert "is a link" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def test_a_temporary_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("the only copy")
    for number in range(3):
        (tmp_path / f".a.json.{os.getpid()}{number}.tmp").symlink_to(precious)
    (tmp_path / "a.json").symlink_to(precious)
    write_checked(tmp_path / "a.json", {"a": 1})
    assert precious.read_text() == "the only copy"
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_an_error_names_file_and_field() -> None:
    with pytest.raises(DamagedError, match=r"x/plan.json .*`int`, got `str`.*kept"):
        check({"path": "fc", "before": 3, "kept": ["a"]}, Layer, "x/plan.json")


@pytest.mark.parametrize("name", ["run.json", "evaluations.json", "metrics.jsonl", "plan.json"])
def test_no_flipped_bit_of_a_run_is_read_in_silence(name: str, strange: Path) -> None:
    path, dice = strange / name, random.Random(name)
    whole = path.read_bytes()
    kinds = {"run.json": runs.read_run, "plan.json": lambda folder: read_json(path, PlanFile)}
    reader = kinds.get(name, READERS[name])
    expected = reader(strange)
    try:
        for _ in range(150):
            bad = bytearray(whole)
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
            path.write_bytes(bad)
            assert why(lambda: reader(strange)), bad
    finally:
        path.write_bytes(whole)
    assert reader(strange) == expected


def test_a_recipe_with_a_flipped_bit_is_refused_or_said_to_be_edited(
    strange: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, dice = strange / "recipe.json", random.Random(3)
    whole, expected = path.read_bytes(), recipes.read(strange / "recipe.json")
    assert capsys.readouterr().err == ""
    silent = 0
    for _ in range(200):
        bad = bytearray(whole)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        refused = why(lambda: recipes.read(path))
        silent += not refused and "was edited" not in capsys.readouterr().err
    path.write_bytes(whole)
    assert silent == 0
    assert recipes.read(path) == expected


def test_what_leancnn_0_1_wrote_is_read(strange: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(strange, folder)
    for name in ("run.json", "recipe.json", "plan.json"):
        value = json.loads((folder / name).read_bytes())
        del value["sha256"]
        (folder / name).write_text(json.dumps(value))
    openings = json.loads((folder / "evaluations.json").read_bytes())["evaluations"]
    (folder / "evaluations.json").write_text(json.dumps(openings))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    old = [{key: value for key, value in row.items() if key != "sha256"} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert runs.read_metrics(folder) == runs.read_metrics(strange)
    assert runs.evaluations(folder) == runs.evaluations(strange)
    assert runs.read_run(folder)["state"] == "finished"
    assert recipes.read(folder / "recipe.json") == recipes.read(strange / "recipe.json")
    assert read_json(folder / "plan.json", PlanFile) == read_json(strange / "plan.json", PlanFile)
    assert read_json(folder / "recipe.json", dict[str, Any])["name"] == "tiny"


def test_a_damaged_run_json_is_set_aside_when_the_run_is_resumed(
    strange: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(strange, folder)
    (folder / "run.json").write_text((folder / "run.json").read_text().replace("finished", "f"))
    assert main(["train", "--resume", str(folder)]) == 0
    assert runs.read_run(folder)["state"] == "finished"
    assert (folder / "run.json.damaged").exists()
    assert not (folder / "run.lock").exists()
