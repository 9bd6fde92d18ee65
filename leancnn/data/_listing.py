"""What lies in a folder of class folders, before any file is opened.

photos/train/<class>/...   with train, val (or valid, validation) and test, any of them missing
photos/<class>/...         unsplit; one of the classes may be called train or test
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from leancnn.data._base import PartName, Skipped
from leancnn.data._classes import disagreements, natural, nfc
from leancnn.decode import begins_as_image
from leancnn.preprocess import SUFFIXES, UNREAD, shown

PART_NAMES: dict[str, PartName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
JUNK = frozenset(("__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin"))


@dataclass(frozen=True, slots=True)
class File:
    """An image file by its suffix, with what tells whether it changed."""

    name: str
    """Relative to the root, with slashes: train/cat/001.jpg."""
    stamp: tuple[int, int, int]
    """Size in bytes, and modification and change time in ns."""


@dataclass(slots=True)
class Listing:
    """A tree of class folders as it stands."""

    root: Path
    files: dict[str, dict[str, list[File]]] = field(default_factory=dict)
    """Part ("all" when unsplit) → class folder as named on disk → files by name."""
    bad: dict[str, list[Skipped]] = field(default_factory=dict)
    """Part → files that should be images and cannot be read by anyone."""
    stray: list[Skipped] = field(default_factory=list)
    """What is passed over because it is no image."""
    problems: list[str] = field(default_factory=list)

    @property
    def split(self) -> bool:
        return "all" not in self.files

    def disagreements(self) -> list[str]:
        """Everything wrong with the names of parts and classes, a sentence each."""
        order = sorted(self.files, key=lambda part: (part != "train", part))
        return self.problems + disagreements({part: self.files[part] for part in order})


def listing(root: Path) -> Listing:
    """List a tree; follows links, each folder once per class, so a loop of links ends."""
    found = Listing(root)
    folders = [entry for entry in _entries(root, found, "") if _is_class_folder(entry, found, "")]
    parts = [entry for entry in folders if entry.name.casefold() in PART_NAMES]
    has_train = any(
        PART_NAMES[entry.name.casefold()] == "train" and not _is_class(entry) for entry in parts
    )
    if parts and (has_train or len(parts) == len(folders)):
        for entry in folders:
            part = PART_NAMES.get(entry.name.casefold())
            if part is None:
                found.stray.append(Skipped(entry.name, "a folder beside the parts"))
            elif part in found.files:
                found.problems.append(f"two folders are the {part} part; merge or remove one")
            else:
                _list_part(found, part, Path(entry.path), f"{entry.name}/")
    else:
        _list_part(found, "all", root, "", folders)
        hidden = {entry.name: _part_in(entry.name) for entry in folders}
        if len(hidden) > 1 and all(hidden.values()) and not any(map(_is_class, folders)):
            named = ", ".join(f"{shown(name)} {part}" for name, part in hidden.items())
            found.problems.append(
                f"parts of a data set that would be taken for classes: rename them ({named})"
            )
    return found


def _part_in(name: str) -> PartName | None:
    """The part that a folder is by one word of its name, such as training_set."""
    words = re.split(r"[^a-z]+", name.casefold())
    parts = {PART_NAMES[word] for word in words if word in PART_NAMES}
    return parts.pop() if len(parts) == 1 else None


def _list_part(
    found: Listing,
    part: str,
    folder: Path,
    prefix: str,
    classes: "list[os.DirEntry[str]] | None" = None,
) -> None:
    found.files[part], found.bad[part] = {}, []
    if classes is None:
        entries = _entries(folder, found, prefix)
        classes = [entry for entry in entries if _is_class_folder(entry, found, prefix)]
    above = {_identity(found.root), _identity(folder)}
    for entry in sorted(classes, key=lambda entry: natural(nfc(entry.name))):
        name = prefix + entry.name
        found.files[part][entry.name] = sorted(
            _walk(Path(entry.path), f"{name}/", found, part, set(above)), key=lambda f: f.name
        )


def _walk(
    folder: Path, prefix: str, found: Listing, part: str, seen: set[tuple[int, int]]
) -> Iterator[File]:
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        identity = _identity(folder)
        if identity in seen:
            found.stray.append(Skipped(prefix, "a link to a folder that was already seen"))
            continue
        seen.add(identity)
        for entry in _entries(folder, found, prefix):
            name = prefix + entry.name
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - 50,000 times
            if entry.name.startswith("."):
                found.stray.append(Skipped(name, "hidden"))
            elif suffix in SUFFIXES or _is_image(entry, suffix):
                image = _image(entry, name, found.bad[part])
                if isinstance(image, File):
                    yield image
                elif image is not None:
                    waiting.append((image, f"{name}/"))
            elif _is_dir(entry):
                if entry.name.casefold() in JUNK:
                    found.stray.append(Skipped(f"{name}/", "not a folder of images"))
                else:
                    waiting.append((Path(entry.path), f"{name}/"))
            elif suffix in UNREAD:
                reason = f"{suffix[1:].upper()} is not read; convert it to PNG or JPEG"
                found.bad[part].append(Skipped(name, reason))
            else:
                found.stray.append(Skipped(name, "no image by its suffix and content"))


def _image(entry: "os.DirEntry[str]", name: str, bad: list[Skipped]) -> File | Path | None:
    """What is named as an image: a file, a folder to walk, or None for what goes into `bad`."""
    try:
        about = entry.stat()
    except OSError as error:
        bad.append(Skipped(name, f"{error.strerror or error}"))
        return None
    if entry.is_file():
        return File(name, (about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    if entry.is_dir():
        return Path(entry.path)
    bad.append(Skipped(name, "not a regular file"))
    return None


def _entries(folder: Path, found: Listing, prefix: str) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.problems.append(f"{shown(folder)}: {error.strerror or error}; check the folder")
        return []


def _is_class_folder(entry: "os.DirEntry[str]", found: Listing, prefix: str) -> bool:
    name = prefix + entry.name
    if not _is_dir(entry):
        found.stray.append(Skipped(name, "a file beside the class folders"))
    elif entry.name.startswith(".") or entry.name.casefold() in JUNK:
        found.stray.append(Skipped(f"{name}/", "not a folder of images"))
    elif found.root.resolve().is_relative_to(Path(entry.path).resolve()):
        found.stray.append(Skipped(f"{name}/", "a link to a folder around it"))
    else:
        return True
    return False


def _is_class(entry: "os.DirEntry[str]") -> bool:
    """Images and no folders: not a part but a class of that name, as of car, bus and train."""
    inside = _entries(Path(entry.path), Listing(Path(entry.path)), "")
    images = any(os.path.splitext(one.name)[1].lower() in SUFFIXES for one in inside)  # noqa: PTH122
    return images and not any(_is_dir(one) and not one.name.startswith(".") for one in inside)


def _is_image(entry: "os.DirEntry[str]", suffix: str) -> bool:
    """Whether a file of another suffix, such as 000.png?w=200, begins as an image does."""
    return suffix not in UNREAD and not _is_dir(entry) and begins_as_image(entry.path)


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    """Whether it is, or leads to, a folder; a link to itself or to where we may not go does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return about.st_dev, about.st_ino
