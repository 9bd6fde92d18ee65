"""Figure 17: hostile names of classes, files and folders reach no sink as more than text.

    python benchmarks/hostile_names.py

A data set whose classes and files bear the names below is checked, trained, evaluated, predicted,
exported and compiled by the real command line. Sinks: stdout and stderr (no control byte, no
character that turns the direction of text), JSON (one ASCII value with the names as they are), C
(compiles without a warning, and its table holds the same bytes), saved networks (the same names),
CSV (no cell more, none that begins a formula), HTML (pages of networks so called have the elements
and attributes of any other, and the name as text; a report runs nothing). No command writes
Markdown. The control prints the names as they are.
"""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from figures import at_most, publish
from PIL import Image

from leancnn import cli, weights
from leancnn.compile import compile
from leancnn.compiled import CompiledNetwork
from leancnn.serve import _pages
from leancnn.targets import web
from leancnn.toolchain import find_compiler

NAMES = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "a\rb", "a\nb", "a\tb", "\x07bell",
    "\x08back", "\x7fdel", "\x9bcsi", "\u202eevil", "\u2066a\u2069", "\u200bzero", "\ufeffbom",
    "=cmd|' calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "<script>alert(1)<",
    "<img src=x onerror=alert(1)>", "&lt;b&gt;", "a\"b'c", "a\\b\\", "*\\ a", "??= ??-x",
    "%n%s%d", "a|b", "`id`$(id)", "{0}{x}", "e\u0301 \u00e9", "名前 \U0001f600", "${PATH};ls",
)  # fmt: skip
"""Thirty-two class names; a slash cannot stand in a folder's name."""
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def make_data(folder: Path) -> Path:
    """Six pictures for each class, called by its name too."""
    random = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 90, (31, 31, 3), dtype=np.uint8) + np.uint8(5 * label)
            Image.fromarray(pixels).save(folder / name / f"{name} {number}.png")
    return folder


def output_of(*words: str) -> tuple[str, str]:
    """stdout and stderr of one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.main([str(word) for word in words])
    return out.getvalue(), err.getvalue()


def raw(text: str) -> int:
    """How many lines hold what steers a terminal."""
    return sum(bool(RAW.search(line)) for line in text.split("\n"))


def in_c(folder: Path, network: Path) -> int:
    """How many class names the compiled C has otherwise, plus one if it does not compile."""
    native = compile(network, out=folder)
    source = native.path.with_suffix(".c")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-trigraphs", "-fsyntax-only"]
    done = subprocess.run(
        [*find_compiler().command, *flags, str(source)], capture_output=True, text=True
    )
    known = weights.load(network).classes
    return sum(a != b for a, b in zip(native.classes, known, strict=True)) + bool(done.returncode)


def in_csv(run: Path) -> int:
    """Cells of CSV files that begin a formula, or rows of another length than the heading."""
    wrong = 0
    for path in run.rglob("*.csv"):
        heading, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        wrong += sum(len(row) != len(heading) for row in rows)
        wrong += sum(cell[:1] in "=+@\t\r" and cell != "" for row in rows for cell in row)
    return wrong


class Elements(HTMLParser):
    """Elements with their attributes, and the text of headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[object] = []
        self.heading = self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data
        self.heading += data * (self.found[-1:] == [("h1", [])])


def in_report(path: Path) -> int:
    """What runs, or leads elsewhere, in a report; names in it that are no text; control bytes."""
    page = path.read_text(encoding="utf-8")
    found = Elements(page)
    tags = [one for one in found.found if isinstance(one, tuple)]
    wrong = sum(tag in ("script", "iframe", "object", "embed", "form", "base") for tag, _ in tags)
    wrong += sum(
        key.startswith("on") or (value or "").strip().lower().startswith("javascript")
        for _, attributes in tags
        for key, value in attributes
    )
    wrong += sum(name not in found.text for name in NAMES if "<" in name)
    return wrong + raw(page)


def in_html(native: CompiledNetwork, network: weights.Network, report: Path) -> int:
    """Names that change more of a page than its headings; scripts of pages that write HTML."""
    wrong = 0
    for page in (
        lambda: web._filled(network, web.OWN, "", ""),
        lambda: _pages(native)["/"][1],
    ):
        native.name = network.name = "plain"
        plain = Elements(page()).found
        for name in NAMES:
            native.name = network.name = name
            found = Elements(page())
            wrong += found.found != plain or found.heading.split() != name.split()
    scripts = [path.read_text() for path in Path(weights.__file__).parent.glob("page/*.mjs")]
    assert len(scripts) > 2
    words = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    return wrong + in_report(report) + sum(word in text for word in words for text in scripts)


def main() -> None:
    sinks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        data = make_data(place / "data \x1b[31m\u202e")
        run = place / "run \x1b[31m=1"
        train = ["train", data, "--recipe", "smoke", "--epochs", "1", "--out", run]
        train += ["--override", "backend=torch", "--override", "precision=fp32"]
        build = ["--out", place / "build \x9b"]
        texts = [
            output_of(*words)
            for words in (
                ["check", data], train, ["train", "--resume", run], ["evaluate", run],
                ["predict", run, data], ["predict", run, data / "\x1b[0m no such"],
                ["export", run, "--to", "c", *build], ["compile", run, *build],
                ["count", run], ["evaluate", place / "none \x1b[2J"], ["train", place / "\x07"],
                ["count", "\x1b[31mnet"], ["train", data, "--recipe", "\u202e"],
                ["bench", run, "--engines", "\x1b[2J"],
                ["report", run, "--out", place / "report.html"],
            )
        ]  # fmt: skip
        sinks["stdout"] = sum(raw(out) for out, _ in texts)
        sinks["stderr"] = sum(raw(err) for _, err in texts)
        values: list[Any] = []
        wrong = 0
        for words in (["check", data], ["evaluate", run], ["predict", run, data]):
            text = output_of(*words, "--json")[0]
            wrong += not text.isascii()
            values.append(json.loads(text))
        found = {figures["name"] for figures in values[1]["classes"]}
        sinks["JSON"] = wrong + len(found ^ set(weights.load(run).classes))
        sinks["saved networks"] = len(set(weights.load(run, "last").classes) ^ found)
        sinks["C"] = in_c(place / "c", run)
        sinks["CSV"] = in_csv(run)
        native = CompiledNetwork(next(place.glob("c/*.so")))
        sinks["HTML"] = in_html(native, weights.load(run), place / "report.html")
        known = len(found)
        spoken = sum(len(out) + len(err) for out, err in texts)
    control = sum(bool(RAW.search(name)) for name in NAMES)
    trials = known * len(sinks)
    failed = sum(sinks.values())
    publish(
        17,
        "hostile names",
        [
            {
                "what": f"{known} class names × {len(sinks)} sinks ({', '.join(sinks)})",
                "trials": trials,
                "failed": failed,
                "at most (95 %)": at_most(failed, trials),
            },
            {
                "what": "control: the names printed as they are",
                "trials": len(NAMES),
                "failed": control,
                "at most (95 %)": "",
            },
        ],
        note=f"{len(texts)} commands, {spoken:,} characters of output",
        sinks=sinks,
    )
    sys.exit(bool(failed) or not control)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
