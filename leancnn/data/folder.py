"""Folders of images: photos/train/<class>/... with val and test beside it, or photos/<class>/..."""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from leancnn.data._base import Format, Part, PartName, Reading, Skipped, Source, formats
from leancnn.data._cache import read_files
from leancnn.data._classes import nfc, ordered
from leancnn.data._listing import File, Listing, listing
from leancnn.data._split import TEST_SHARE, cut_test
from leancnn.errors import DataError
from leancnn.preprocess import shown

NAMED = 8  # problems of a folder that one message names


def _open(path: Path) -> Source:
    found = listing(path)
    classes = ordered(name for folders in found.files.values() for name in folders)
    wrong = found.disagreements() + list(_empty(found))
    if not classes:
        wrong.append("no class folders; put images into photos/<class>/")
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        named = "; ".join(map(shown, wrong[:NAMED]))
        raise DataError(
            f"{shown(path)}: {named}{more}; 'leancnn check {shown(path)}' looks at every file"
        )
    label = {name: index for index, name in enumerate(classes)}
    parts: dict[str, list[tuple[File, int]]] = {
        part: [(file, label[nfc(name)]) for name, files in folders.items() for file in files]
        for part, folders in found.files.items()
    }
    cuts = {}
    if not found.split:
        names = json.dumps(sorted(nfc(file.name) for file, _ in parts["all"]))
        cuts["test"] = {
            "from": "all",
            "share": TEST_SHARE,
            "by": "name",
            "names": hashlib.sha256(names.encode()).hexdigest(),  # other ones, another cut
        }
    read = dict(_readers(path, found, parts))
    return Source(
        name="folder",
        path=str(path.absolute()),
        classes=classes,
        size=None,
        read=read,
        stray=tuple(found.stray),
        cuts=cuts,
    )


def _empty(found: Listing) -> Iterator[str]:
    """A sentence for each class without a file."""
    for part, folders in found.files.items():
        where = "" if part == "all" else f"{part}: "
        for name, files in folders.items():
            if not files:
                yield f"{where}class '{name}' has no images; fill or remove it"


def _readers(
    path: Path, found: Listing, parts: dict[str, list[tuple[File, int]]]
) -> list[tuple[PartName, Callable[[Reading], Part]]]:
    if found.split:
        return [
            (part, partial(_read, path, part, parts[part], tuple(found.bad[part])))
            for part in ("train", "val", "test")
            if part in parts
        ]
    files = parts["all"]
    labels = np.array([label for _, label in files], np.int64)
    stay, off = cut_test([file.name for file, _ in files], labels)
    bad = tuple(found.bad["all"])
    return [
        ("train", partial(_read, path, "train", [files[row] for row in stay], bad)),
        ("test", partial(_read, path, "test", [files[row] for row in off], ())),
    ]


def _read(
    root: Path,
    part: str,
    files: list[tuple[File, int]],
    unreadable: tuple[Skipped, ...],
    reading: Reading,
) -> Part:
    found = read_files(root, part, [file for file, _ in files], reading)
    bad = unreadable + found.skipped
    total = len(files) + len(unreadable)
    if len(bad) > reading.max_bad_share * total:
        names = "; ".join(f"{shown(item.file)}: {shown(item.reason)}" for item in bad[:3])
        raise DataError(
            f"{part}: {len(bad)} of {total} files are unreadable, more than the allowed "
            f"{reading.max_bad_share:.1%}: {names}; run leancnn check"
        )
    labels = np.array([label for _, label in files], np.int64)[found.rows]
    return found.part(labels, [files[row][0].name for row in found.rows], bad)


formats.register("folder", Format(name="folder", open=_open, found=Path.is_dir, fallback=True))
