"""What commands left on disk, found by what it is and read without torch.

A record is a folder (a run, a saved or quantized network, a comparison, a search, an EEG run) or a
JSON file that a command printed with `--json` (`check`, `bench`, `evaluate`, `quantize`, `prune`,
`eeg`), or one of results/. Every file is held against its kind before anything in it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancnn import manifests, runs
from leancnn.errors import DamagedError, RunError
from leancnn.printed import KINDS, Comparison, Decoder, KeptEvaluation, Made, SavedNetwork
from leancnn.renamed_keys import renamed
from leancnn.safe_files import read_edited, read_json, read_manifest

NETWORK = "network.json"
OF_FOLDERS = ("run", "network", "eeg", "comparison", "search")
FOLDERS = ("best", "last")  # the saved networks of a run, in the order of preference
MOST_NAMED = 4  # runs that an error names


@dataclass(frozen=True, slots=True)
class Record:
    """Something that a command left: a folder, or a file of one JSON value."""

    kind: str
    """run, network, search, eeg, or one of `KINDS`."""
    path: Path
    value: Mapping[str, Any]
    """The file that says what it is."""

    @property
    def name(self) -> str:
        """What people call it: the path as it was given, but for one that says nothing."""
        return str(self.path if self.path.name.strip(".") else self.path.resolve())

    @property
    def is_folder(self) -> bool:
        return self.kind in OF_FOLDERS and self.path.is_dir()

    def holds(self, kind: str) -> Mapping[str, Any] | None:
        """The value of a kind: the record's own, or that in the file of this name in its folder.

        Raises `DamagedError`.
        """
        if self.kind == kind:
            return self.value
        path = self.path / f"{kind}.json"
        if not self.is_folder or not path.exists():
            return None
        found, value = recognise(path)
        if found != kind:
            raise DamagedError(f"{path} holds no {kind} but {_a(found)}; move it away")
        return value

    def saved(self) -> tuple[Path, Mapping[str, Any]] | None:
        """The folder of its saved network and its manifest; of a run the best, else the last."""
        for name in ("", *FOLDERS):
            place = self.path / name
            if self.is_folder and (place / NETWORK).exists():
                return place, _saved(place)
        return None

    def metrics(self) -> list[dict[str, Any]]:
        """Its epochs; none when none has ended."""
        if not (self.path / "metrics.jsonl").exists():
            return []
        rows = runs.read_metrics(self.path)
        return [{"epoch": number, **row} for number, row in enumerate(rows, 1)]

    def test_uses(self) -> list[dict[str, Any]]:
        """Every use of a test set that says what came of it, oldest first."""
        found = runs.evaluations(self.path) if self.is_folder else []
        return [one for one in found if one.get("images") and one.get("accuracy") is not None]

    def evaluations(self) -> list[tuple[Path, Mapping[str, Any]]]:
        """What each evaluation left, best first."""
        if self.kind == "evaluation":
            return [(self.path, self.value)]
        if not self.is_folder:
            return []
        found = sorted(self.path.glob("evaluation-*.json"), key=lambda path: path.name)
        return [(path, _evaluation(path)) for path in found]

    @property
    def data(self) -> str | None:
        """Where its images lie: a path or the name of a set."""
        if self.kind == "check":
            return str(self.value["source"])
        if self.kind == "search":
            return str(self.value["data"])
        if self.kind == "run":
            return str(self.value.get("data", {}).get("source") or self.value["plan"]["data"])
        made = self.value.get("made", {})
        while isinstance(made, Mapping) and "data" not in made and "cut from" in made:
            made = made["cut from"]
        return str(made["data"]) if isinstance(made, Mapping) and "data" in made else None


def find(path: str | Path) -> list[Record]:
    """What stands at a path: one record, or several of a list in one file.

    A folder of a run's networks, and a file inside of a run, is the run. Raises `RunError` when it
    is nothing that can be reported, `DamagedError`.
    """
    path = Path(path)
    if path.is_dir():
        return [_folder(path)]
    if not path.exists():
        raise RunError(f"{path}: no such folder or file")
    if path.name in (
        "run.json",
        "recipe.json",
        NETWORK,
        "decoder.json",
        "metrics.jsonl",
        "search.json",
    ):
        return [_folder(path.parent)]
    value = _read(path)
    values = value if isinstance(value, list) and value else [value]
    return [Record(kind, path, value) for kind, value in (_kind(one, path) for one in values)]


def _folder(path: Path) -> Record:
    resolved = path.resolve()
    if resolved.name in FOLDERS and runs.is_run(resolved.parent):
        path = path.parent if path.name in FOLDERS else resolved.parent
    if (comparison := path / "comparison.json").exists():
        value = read_json(comparison, dict[str, Any])
        value = manifests.check(renamed(value), Comparison, comparison)
        return Record("comparison", path, value)
    if (path / "search.json").exists():
        return Record("search", path, read_json(path / "search.json", manifests.Search))
    if runs.is_run(path):
        if not (path / "run.json").exists():
            raise RunError(f"{path} has no run.json; 'leancnn train --resume {path}' writes it")
        return Record("run", path, runs.read_run(path))
    if (path / "decoder.json").exists():
        return Record("eeg", path, read_manifest(path / "decoder.json", Decoder))
    if (path / NETWORK).exists():
        return Record("network", path, _saved(path))
    inside = sorted(child for child in path.iterdir() if child.is_dir() and runs.is_run(child))
    if inside:
        few = ", ".join(map(str, inside[:MOST_NAMED])) + (" …" if len(inside) > MOST_NAMED else "")
        raise RunError(f"{path} is no run but holds some; name those you want: {few}")
    raise RunError(
        f"{path} holds no run, saved network, comparison, search or EEG run; there is nothing to "
        "report"
    )


def _saved(folder: Path) -> dict[str, Any]:
    value = read_manifest(folder / NETWORK, SavedNetwork)
    manifests.check(value["made"], Made, folder / NETWORK)
    return value


def recognise(path: Path) -> tuple[str, Mapping[str, Any]]:
    """The kind of the JSON value in a file, and the value. Raises `DamagedError`, `RunError`."""
    return _kind(_read(path), path)


def _read(path: Path) -> Any:
    value, state = read_edited(path)
    if state == "edited":
        raise DamagedError(f"{path} is not what was written: its checksum does not fit")
    return value


def _evaluation(path: Path) -> dict[str, Any]:
    value = renamed(read_manifest(path))
    return dict(manifests.check(value, KeptEvaluation, path))


def _kind(value: Any, path: Path) -> tuple[str, Mapping[str, Any]]:
    if isinstance(value, dict):
        value = renamed(value)
    for name, kind in KINDS.items():
        if isinstance(value, dict) and kind.__required_keys__ <= value.keys():
            return name, manifests.check(value, kind, path)
    raise RunError(
        f"{path} is no run, and no JSON of 'check', 'bench', 'evaluate', 'quantize', 'prune' or "
        "'eeg'; there is nothing to report"
    )


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
