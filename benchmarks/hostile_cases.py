"""Files that a stranger may hand over, each with the command that is to refuse it.

An attack takes a folder of its own, with a run, its saved network, pictures, and outside of all
that a secret, and answers with the words of a command that writes to `out` there. Payloads are
harmless: a pickle that would make an empty folder.
"""

import contextlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from leancnn.safe_files import read_manifest, write_checked
from leancnn.train import train
from tests.tiny import RECIPE, make_pictures

SECRET = "the only copy of a secret"  # lies outside; nobody may read it out
Words = list[str]
ATTACKS: dict[str, Callable[[Path], Words]] = {}


class Payload:
    """A pickle that makes an empty folder when it is read without thinking."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._made),)


def base(place: Path) -> None:
    """What every attack starts from: a run, pictures, a secret outside."""
    (place / "outside").mkdir(parents=True)
    (place / "outside" / "secret").write_text(SECRET)
    pictures = make_pictures(place / "pictures", each=8)
    child = os.fork()
    if child == 0:
        os.environ["LEANCNN_CACHE"] = str(place / "cache")
        torch.set_num_threads(1)
        with contextlib.suppress(BaseException):
            train(pictures, recipe=RECIPE.changed(epochs=1), out=place / "run", progress=False)
        os._exit(0)
    os.waitpid(child, 0)
    assert (place / "run" / "last" / "network.json").exists()


def attack(name: str) -> Callable[[Callable[[Path], Words]], Callable[[Path], Words]]:
    def register(made: Callable[[Path], Words]) -> Callable[[Path], Words]:
        ATTACKS[name] = made
        return made

    return register


def predicts(place: Path) -> Words:
    picture = place / "pictures" / "class 0" / "0.png"
    return ["predict", str(place / "run" / "best"), str(picture)]


def resumes(place: Path) -> Words:
    return ["train", "--resume", str(place / "run"), "--quiet"]


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    """/dev/zero under another name; as a link where devices may not be made."""
    path.unlink(missing_ok=True)
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    except OSError:
        path.symlink_to("/dev/zero")


def pickled(place: Path) -> bytes:
    return pickle.dumps({"weight": Payload(place / "outside" / "made")})


def zipped(inner: bytes) -> bytes:
    """What torch.save writes, with any pickle in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", inner)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return made.getvalue()


def tar_that_climbs(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../outside/made")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    return path


def zip_that_climbs(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside/made", "x")
    return path


# Saved networks. Who can write can make digests fit, so that what lies behind them is reached


def manifest(place: Path, **changes: Any) -> Words:
    path = place / "run" / "best" / "network.json"
    value = read_manifest(path)
    value.pop("sha256", None)
    write_checked(path, {**value, **changes})
    return predicts(place)


def tensors(place: Path, blob: bytes) -> Words:
    import hashlib

    (place / "run" / "best" / "weights.safetensors").write_bytes(blob)
    sha256 = hashlib.sha256(blob).hexdigest()
    file = {"name": "weights.safetensors", "bytes": len(blob), "sha256": sha256}
    return manifest(place, file=file)


def header(**named: Any) -> bytes:
    text = json.dumps(named).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


BLOBS: dict[str, Callable[[Path], bytes]] = {
    "a pickle in the place of weights": pickled,
    "a torch file in the place of weights": lambda place: zipped(pickled(place)),
    "weights with a header of 2^60 bytes": lambda place: struct.pack("<Q", 1 << 60) + b"{}",
    "weights with a tensor of 2^40 numbers": lambda place: header(
        a={"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    ),
    "weights that reach behind their end": lambda place: header(
        a={"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}
    ),
    "weights that overlap": lambda place: header(
        a={"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
        b={"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
    ),
    "weights with a header nested 100,000 deep": lambda place: (
        struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000
    ),
}
for _name, _blob in BLOBS.items():
    ATTACKS[_name] = lambda place, blob=_blob: tensors(place, blob(place))  # type: ignore[misc]

CHANGES: dict[str, dict[str, Any]] = {
    "a network 10^12 wide": {"arguments": {"width": 10**12}},
    "a network of another program's name": {"name": "os:mkdir"},
    "a network whose name is a path": {"name": "../../outside/secret"},
    "weights in a file outside": {
        "file": {"name": "../../outside/secret", "bytes": 25, "sha256": "0" * 64}
    },
    "a list for the arguments": {"arguments": [["width", 3]]},
    "a pruning of 10^9 channels": {"arguments": {"cut": {"conv": [10**9, 10**9, 1, 1, 1]}}},
}
for _name, _changes in CHANGES.items():
    ATTACKS[_name] = lambda place, changes=_changes: manifest(place, **changes)  # type: ignore[misc]


@attack("pictures of 10^6 by 10^6 pixels")
def large(place: Path) -> Words:
    preprocessing = read_manifest(place / "run" / "best" / "network.json")["preprocessing"]
    return manifest(place, preprocessing={**preprocessing, "size": [10**6, 10**6]})


@attack("a manifest nested 100,000 deep")
def deep(place: Path) -> Words:
    (place / "run" / "best" / "network.json").write_text("[" * 100_000 + "]" * 100_000)
    return predicts(place)


@attack("a zip in the place of a manifest")
def zip_manifest(place: Path) -> Words:
    zip_that_climbs(place / "run" / "best" / "network.json")
    return predicts(place)


@attack("a pipe in the place of a manifest")
def pipe_manifest(place: Path) -> Words:
    pipe(place / "run" / "best" / "network.json")
    return predicts(place)


@attack("a pipe in the place of weights")
def pipe_weights(place: Path) -> Words:
    pipe(place / "run" / "best" / "weights.safetensors")
    return predicts(place)


@attack("a device in the place of weights")
def device_weights(place: Path) -> Words:
    device(place / "run" / "best" / "weights.safetensors")
    return predicts(place)


@attack("a link to a secret in the place of weights")
def link_weights(place: Path) -> Words:
    path = place / "run" / "best" / "weights.safetensors"
    path.unlink()
    path.symlink_to(place / "outside" / "secret")
    return predicts(place)


# Runs that are resumed: what is written to must be ours


@attack("a lock that is a link")
def link_lock(place: Path) -> Words:
    (place / "run" / "run.lock").unlink(missing_ok=True)
    (place / "run" / "run.lock").symlink_to(place / "outside" / "secret")
    return resumes(place)


@attack("a lock that is a hard link")
def hard_lock(place: Path) -> Words:
    (place / "run" / "run.lock").unlink(missing_ok=True)
    os.link(place / "outside" / "secret", place / "run" / "run.lock")
    return resumes(place)


@attack("a lock that is a pipe")
def pipe_lock(place: Path) -> Words:
    pipe(place / "run" / "run.lock")
    return resumes(place)


@attack("a folder of checkpoints that is a link")
def link_checkpoints(place: Path) -> Words:
    (place / "run" / "checkpoints").rename(place / "outside" / "checkpoints")
    (place / "run" / "checkpoints").symlink_to(place / "outside" / "checkpoints")
    return resumes(place)


@attack("a pipe in the place of run.json")
def pipe_run(place: Path) -> Words:
    pipe(place / "run" / "run.json")
    return ["evaluate", str(place / "run")]


@attack("a lock of evaluations that is a link")
def link_evaluations(place: Path) -> Words:
    (place / "run" / ".evaluations.lock").unlink(missing_ok=True)
    (place / "run" / ".evaluations.lock").symlink_to(place / "outside" / "secret")
    return ["evaluate", str(place / "run")]


def by_recipe(place: Path, text: str) -> Words:
    (place / "recipe.json").write_text(text)
    words = ["--recipe", str(place / "recipe.json"), "--out", str(place / "out" / "run")]
    return ["train", str(place / "pictures"), *words, "--quiet"]


@attack("a recipe with a tag of YAML")
def yaml_recipe(place: Path) -> Words:
    made = place / "outside" / "made"
    return by_recipe(place, f"!!python/object/apply:os.mkdir [{made}]\n")


@attack("a recipe for pictures of 10^6 by 10^6")
def large_recipe(place: Path) -> Words:
    recipe = json.loads((place / "run" / "recipe.json").read_text())
    recipe.pop("sha256", None)
    return by_recipe(place, json.dumps({**recipe, "size": [10**6, 10**6]}))
