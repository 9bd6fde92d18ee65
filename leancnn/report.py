"""One HTML page from what commands left on disk: no other file, no network, no script.

`records` finds what there is, each file of `sections/` makes blocks of it, and `page/report.html`
draws them and escapes every word. Nothing here loads torch, computes a figure anew or opens a test
set: what is not on disk is left out, with the command that puts it there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from leancnn.errors import RunError, WriteError
from leancnn.records import Record, find
from leancnn.runs import now
from leancnn.safe_files import atomic_write, read_bytes
from leancnn.sections import Options, sections
from leancnn.sections._base import Block, Missing
from leancnn.svg import ID
from leancnn.tables import printable, short
from leancnn.version import __version__

MARK = b"<!doctype html>\n<!-- a report of leancnn -->\n"
"""How every report begins, by which the next knows that it may take its place."""
PICTURES = 240
"""Pictures of the data on a page, at most."""
LONGEST = 2000  # characters of one text; a page is read by people
TITLED = 3  # records that a title names


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A page that was written."""

    out: str
    bytes: int
    records: tuple[str, ...]
    sections: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    """What is not on disk, and the command that puts it there."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {
            "out": self.out,
            "bytes": self.bytes,
            "records": list(self.records),
            "sections": list(self.sections),
            "missing": [{"what": what, "command": command} for what, command in self.missing],
        }

    def text(self) -> str:
        """What stands on the page, and what does not, for people."""
        lines = [f"{printable(self.out)}: {', '.join(self.sections)}; {self.bytes:,} bytes"]
        lines += [f"not on disk: {printable(what)} {printable(c)}" for what, c in self.missing]
        return "\n".join(lines)


def report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    pictures: bool = True,
    force: bool = False,
) -> Written:
    """Write one page about runs, saved networks, comparisons, EEG runs and results into `out`.

    `pictures` False leaves out those of the data, for a page that may go where the images may not.
    A report that stands at `out` is replaced; another file only with `force`. Raises `RunError` for
    a path with nothing to report, `DamagedError`, `WriteError`.

    >>> found = leancnn.report("runs/a", "report.html", title="A first run")
    >>> found.records, found.bytes > 1000
    (('runs/a',), True)
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise RunError("nothing to report: name a run, a saved network or a result")
    out = Path(out)
    check_out(out, force=force)
    records = _records(given)
    page, found, missing = render(records, title=title, pictures=pictures)
    data = page.encode()
    atomic_write(out, data)
    return Written(
        out=str(out),
        bytes=len(data),
        records=tuple(record.name for record in records),
        sections=tuple(found),
        missing=tuple((one.text, one.command) for one in missing),
    )


def check_out(out: Path, *, force: bool = False) -> None:
    """Refuse, with `WriteError`, a place where no report can be put, before any work."""
    if not out.name or out.is_dir():
        raise WriteError(f"{out} is a folder; name the page in it, as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise WriteError(f"{out}: there is no folder {out.parent}; make it, or choose another")
    if out.exists() and not force and read_bytes(out)[: len(MARK)] != MARK:
        raise WriteError(f"{out} is there and no report of leancnn; choose another, or --force")


def _records(paths: Sequence[str | Path]) -> list[Record]:
    """What stands at all paths, each once."""
    found: dict[tuple[str, Path, int], Record] = {}
    for path in paths:
        for place, record in enumerate(find(path)):
            found.setdefault((record.kind, record.path.resolve(), place), record)
    return list(found.values())


def render(
    records: Sequence[Record], *, title: str | None = None, pictures: bool = True
) -> tuple[str, list[str], list[Missing]]:
    """The page, the titles of its sections, and what is missing on it."""
    options = Options(PICTURES if pictures else 0)
    filled = []
    for section in sorted(sections.values(), key=lambda one: one.place):
        blocks = section.make(records, options)
        if blocks:
            filled.append((section, blocks))
    if not filled:
        raise RunError("nothing to report: what is there holds no figures yet")
    names = [record.name for record in records]
    few = ", ".join(names[:TITLED])
    about = few if len(names) <= TITLED else f"{few} and {len(names) - TITLED} more"
    page = _template().render(
        title=title or f"Report: {about}",
        records=records,
        sections=filled,
        made=now(),
        version=__version__,
        pictures=options.pictures < PICTURES and pictures,
    )
    missing = [one for _, blocks in filled for one in _missing(blocks)]
    return MARK.decode() + page, [section.title for section, _ in filled], missing


def _missing(blocks: Sequence[Block]) -> Iterator[Missing]:
    for block in blocks:
        if isinstance(block, Missing):
            yield block
        yield from _missing(getattr(block, "blocks", ()))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("leancnn", "page"),
        autoescape=True,
        finalize=_word,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    environment.globals["ID"] = ID
    return environment.get_template("report.html")


def _word(value: object) -> object:
    """What stands on the page for a value: text that steers nothing; markup is ours."""
    if value is None:
        return "–"
    return value if isinstance(value, Markup) else short(value, LONGEST)
