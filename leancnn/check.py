"""The data doctor: what would spoil training or its figures, found before it starts.

Every file is decoded in full, because a header says nothing about what follows it. Pictures are
compared by their pixels: a copy that was renamed, or saved anew without loss, is found for certain;
one that was scaled, compressed again or made a little brighter is noted as a near copy by its look.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leancnn import cache
from leancnn.data import open_source, recognise
from leancnn.data._base import PARTS, Reading
from leancnn.data._classes import natural, nfc, ordered
from leancnn.data._listing import Listing, listing
from leancnn.data._near_copies import MOST, near_copies, thumbnail
from leancnn.data._split import cut_test
from leancnn.data._workers import Answer, each
from leancnn.errors import DataError
from leancnn.preprocess import Preprocessing, shown

UNEVEN = 10  # largest class over smallest, from which on it is worth a remark
CLASSES = 10  # whose names stand in the text
NAMED = 20  # findings of a kind, and files of a finding, that the text names; the JSON has all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    kind: str
    """unreadable, classes, empty class, copy across parts ..."""
    text: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found; `ok` says whether the data can be trained on."""

    source: str
    kind: str
    """The layout: folder, cifar, svhn, digits."""
    counts: Mapping[str, Mapping[str, int]]
    """Part → class → images that can be used."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """How pixels are stored, such as "JPEG RGB" → images, most frequent first."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """"height×width" → images, the smallest first."""
    problems: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {"ok": self.ok, **asdict(self)}

    def text(self) -> str:
        """All of it for people; safe to print, whatever the files are called."""
        return "\n".join(shown(line) for line in _lines(self))


@dataclass(frozen=True, slots=True)
class _Image:
    """One image as it was found."""

    part: str
    label: str
    name: str
    answer: Answer


def check(source: str | Path, *, preprocessing: Preprocessing | None = None) -> Report:
    """Examine a data set: decode every image, compare classes, look for copies across parts.

    With `preprocessing`, images that it must enlarge are warned of. Raises `DataError` when there
    is no folder or data set of that name; what is wrong inside stands in the report.

    >>> leancnn.check("photos").ok
    True
    """
    if recognise(source).fallback:
        return _folder(Path(source), preprocessing)
    return _arrays(source, preprocessing)


def _folder(path: Path, preprocessing: Preprocessing | None) -> Report:
    found = listing(path)
    problems = [Finding("classes", text) for text in found.disagreements()]
    images = list(_part_names(found, problems))
    answers = each(
        "inspect",
        {},
        [str(path / image.name) for image in images],
        title="checking",
        total_bytes=sum(f.stamp[0] for c in found.files.values() for fs in c.values() for f in fs),
    )
    images = [
        _Image(image.part, image.label, image.name, answer)
        for image, answer in zip(images, answers, strict=True)
    ]
    bad = [(image.name, image.answer["error"]) for image in images if "error" in image.answer]
    bad += [(item.file, item.reason) for items in found.bad.values() for item in items]
    for name, reason in sorted(bad, key=lambda item: natural(item[0])):
        problems.append(Finding("unreadable", f"{name}: {reason}", (name,)))
    good = [image for image in images if "error" not in image.answer]
    classes = ordered(name for folders in found.files.values() for name in folders)
    parts = [part for part in PARTS if any(image.part == part for image in images)]
    counts: dict[str, dict[str, int]] = {part: dict.fromkeys(classes, 0) for part in parts}
    for image in good:
        counts[image.part][image.label] += 1
    problems += _empty(found, counts)
    problems += _unwritable(classes)
    warnings = [*_alike(classes)]
    warnings += [
        Finding("stray", f"{item.file}: {item.reason}", (item.file,)) for item in found.stray
    ]
    if not found.split:
        warnings.append(Finding("unsplit", "no test part; a fifth of each class is kept for it"))
    return _report(str(path), "folder", counts, good, problems, warnings, preprocessing)


def _part_names(found: Listing, problems: list[Finding]) -> Iterator[_Image]:
    """Every listed file with the part that `load_dataset` would put it into."""
    for part, folders in found.files.items():
        rows = [(nfc(label), file.name) for label, files in folders.items() for file in files]
        test: set[int] = set()
        if part == "all" and rows:
            labels = np.unique([label for label, _ in rows], return_inverse=True)[1]
            try:
                test = set(cut_test([name for _, name in rows], labels)[1].tolist())
            except DataError as error:
                problems.append(Finding("too few", str(error)))
        for row, (label, name) in enumerate(rows):
            place = part if part != "all" else "test" if row in test else "train"
            yield _Image(place, label, name, {})


def _empty(found: Listing, counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    if not any(found.files.values()):
        yield Finding("classes", "no class folders; put images into photos/<class>/")
    elif found.split and "train" not in found.files:
        yield Finding("classes", "no train part; put images into photos/train/<class>/")
    for part, folders in found.files.items():
        where = "" if part == "all" else f"{part}: "
        for name, files in folders.items():
            if not files:
                yield Finding("empty class", f"{where}class '{name}' has no images")
            elif not any(counts[p][nfc(name)] for p in counts if part in (p, "all")):
                yield Finding("empty class", f"{where}class '{name}' has no readable image")


def _unwritable(classes: Sequence[str]) -> Iterator[Finding]:
    """Class names that no exported network can hold: found now, not after a training."""
    for name in classes:
        try:
            bad = "\0" in name
            name.encode()
        except UnicodeEncodeError:
            bad = True
        if bad:
            yield Finding(
                "class name", f"'{name}' is no text that an exported file can hold; rename it"
            )


def _alike(classes: Sequence[str]) -> Iterator[Finding]:
    """Classes that a person, or another file system, would take for one."""
    alike = defaultdict(list)
    for name in classes:
        alike[" ".join(name.casefold().split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            several = " and ".join(f"'{name}'" for name in names)
            yield Finding(
                "alike", f"{several} are {len(names)} classes; merge them if they are one"
            )


def _arrays(source: str | Path, preprocessing: Preprocessing | None) -> Report:
    """A set whose images are rows of arrays: nothing to decode, all else alike."""
    opened = open_source(source)
    assert opened.size is not None, "sets of arrays have one size"
    reading = Reading(preprocessing=Preprocessing(size=opened.size), cache=cache.folder())
    problems, images = [], []
    counts: dict[str, dict[str, int]] = {}
    for part, read in opened.read.items():
        try:
            split = read(reading).split
        except DataError as error:
            problems.append(Finding("unreadable", str(error)))
            continue
        counts[part] = dict.fromkeys(opened.classes, 0)
        for pixels, label, name in zip(split.images, split.labels, split.files, strict=True):
            counts[part][opened.classes[label]] += 1
            answer = {"pixels": hash(pixels.tobytes()), "size": opened.size, "mode": "array"}
            answer["look"] = thumbnail(pixels)
            images.append(_Image(part, opened.classes[label], name, answer))
        problems += [
            Finding("empty class", f"{part}: class '{name}' has no images")
            for name, count in counts[part].items()
            if not count
        ]
    warnings = [
        Finding("stray", f"{item.file}: {item.reason}", (item.file,)) for item in opened.stray
    ]
    return _report(opened.path, opened.name, counts, images, problems, warnings, preprocessing)


def _report(
    source: str,
    kind: str,
    counts: Mapping[str, Mapping[str, int]],
    images: Sequence[_Image],
    problems: list[Finding],
    warnings: list[Finding],
    preprocessing: Preprocessing | None,
) -> Report:
    """What all layouts share: copies, odd ways to store pixels, sizes, balance."""
    modes = Counter(f"{i.answer.get('format', '')} {i.answer['mode']}".strip() for i in images)
    sizes = Counter(tuple(image.answer["size"]) for image in images)
    across, within = _copies(images)
    problems = [*problems, *_too_few(counts, problems)]
    odd = defaultdict(list)
    for image in images:
        for warning in image.answer.get("warnings", ()):
            odd[warning].append(image.name)
        if preprocessing is not None and any(
            side < wanted
            for side, wanted in zip(image.answer["size"], preprocessing.scale, strict=True)
        ):
            odd["enlarged to {}×{}".format(*preprocessing.scale)].append(image.name)
    warnings += [
        Finding("as stored", f"{warning}: {len(files)} of {len(images)} images", tuple(files))
        for warning, files in sorted(odd.items())
    ]
    return Report(
        source=source,
        kind=kind,
        counts=counts,
        modes=dict(modes.most_common()),
        sizes={
            f"{height}×{width}": sizes[height, width]
            for height, width in sorted(sizes, key=lambda size: (size[0] * size[1], size))
        },
        problems=(*problems, *across),
        warnings=(*warnings, *within, *_near_copies(images), *_balance(counts)),
    )


def _too_few(
    counts: Mapping[str, Mapping[str, int]], problems: Sequence[Finding]
) -> Iterator[Finding]:
    """What training would refuse: one class, or nothing to set aside for validation."""
    classes = {name for own in counts.values() for name in own}
    if len(classes) == 1:
        yield Finding(
            "classes", f"one class, '{min(classes)}'; a classifier tells two or more apart"
        )
    if "val" in counts or any(problem.kind == "too few" for problem in problems):
        return
    for name, count in counts.get("train", {}).items():
        if count == 1:
            text = f"train: class '{name}' has 1 image; another is needed for validation"
            yield Finding("too few", text)


def _copies(images: Sequence[_Image]) -> tuple[list[Finding], list[Finding]]:
    """The same picture in two parts (a problem), and in one part (a warning)."""
    same = defaultdict(list)
    for image in images:
        same[image.answer["pixels"]].append(image)
    across, within = [], []
    for copies in same.values():
        if len(copies) == 1:
            continue
        names = tuple(image.name for image in copies)
        shortly = _shortly(names)
        parts = [part for part in PARTS if part in {image.part for image in copies}]
        if len(parts) > 1:
            text = f"the same picture in {' and '.join(parts)}: {shortly}"
            across.append(Finding("copy across parts", text, names))
        elif len({image.label for image in copies}) > 1:
            text = f"the same picture in two classes: {shortly}"
            within.append(Finding("copy in two classes", text, names))
        else:
            text = f"the same picture twice: {shortly}"
            within.append(Finding("copy", text, names))
    return across, within


def _near_copies(images: Sequence[_Image]) -> Iterator[Finding]:
    """Pictures that look alike but are not the same: no proof, so a warning; across parts first."""
    same: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if image.answer["look"]:
            same[image.answer["pixels"]].append(image)
    distinct = list(same.values())
    found: dict[str, list[Finding]] = {"across parts": [], "in two classes": [], "": []}
    for group in near_copies([copies[0].answer["look"] for copies in distinct]):
        alike = [image for place in group for image in distinct[place]]
        names = tuple(image.name for image in alike)
        parts = [part for part in PARTS if part in {image.part for image in alike}]
        where = f" in {' and '.join(parts)}" if len(parts) > 1 else ""
        kind = "across parts" if where else ""
        if not where and len({image.label for image in alike}) > 1:
            kind, where = "in two classes", " in two classes"
        text = f"nearly the same picture{where}: {_shortly(names)}"
        found[kind].append(Finding(f"near copy {kind}".strip(), text, names))
    for findings in found.values():
        yield from findings
    if len(distinct) > MOST:
        yield Finding("near copy", f"not looked for among more than {MOST:,} pictures")


def _shortly(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _balance(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    for part, own in counts.items():
        if not own or not min(own.values()):
            continue
        small, large = min(own, key=own.__getitem__), max(own, key=own.__getitem__)
        if own[large] >= UNEVEN * own[small]:
            text = f"{part}: '{large}' has {own[large]} images, '{small}' {own[small]}"
            yield Finding("uneven classes", text)
    if "test" not in counts and counts:
        yield Finding("no test", "no test part, so nothing to measure a trained network on")


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.source} ({report.kind})"
    for part, own in report.counts.items():
        total, most, least = sum(own.values()), max(own.values()), min(own.values())
        each_ = f"{most} each" if most == least else f"{least} to {most} each"
        yield f"  {part:6} {total:8} images in {len(own)} classes, {each_}"
    if names := ordered(name for own in report.counts.values() for name in own):
        more = f", and {len(names) - CLASSES} more" if len(names) > CLASSES else ""
        yield f"  named  {', '.join(names[:CLASSES])}{more}"
    for title, table in (("stored", report.modes), ("h × w", report.sizes)):
        often = sorted(table, key=lambda name: -table[name])[:6]
        shares = [f"{name} {count}" for name, count in table.items() if name in often]
        more = f", and {len(table) - 6} more" if len(table) > 6 else ""
        if shares:
            yield f"  {title:6} {', '.join(shares)}{more}"
    for title, findings in (("problem", report.problems), ("warning", report.warnings)):
        kinds = Counter(finding.kind for finding in findings)
        for kind, count in kinds.items():
            named = [finding.text for finding in findings if finding.kind == kind][:NAMED]
            for text in named:
                yield f"{title}: {kind}: {text}" if kind != "as stored" else f"{title}: {text}"
            if count > NAMED:
                yield f"{title}: {kind}: and {count - NAMED} more (--json names them all)"
    count = len(report.problems)
    yield "go" if report.ok else f"no go: {count} problem{'s' * (count > 1)}"
