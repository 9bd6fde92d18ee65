"""Charts for a page as inline SVG, in the page's own colours, so that they follow light and dark.

matplotlib draws; of what it writes only shapes and text are kept, and colours become the page's
variables `--ink`, `--line` and `--c0` to `--c7`.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from leancnn.plots import new_figure, own_style
from leancnn.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, LINE = "#010000", "#020000"  # stand in for the page's colours while matplotlib draws
SERIES = [f"#0300{place:02x}" for place in range(8)]
VARIABLES = {
    INK: "var(--ink)",
    LINE: "var(--line)",
    **{colour: f"var(--c{place})" for place, colour in enumerate(SERIES)},
}
DASHES = ("-", "--", ":", "-.")
MARKS = "osD^vP*X"
MOST = 1e30  # of a number in a chart
WIDTH = 4.6  # inches: readable at 320 pixels
COLOUR = re.compile("|".join(VARIABLES))
FONT = re.compile(r"'DejaVu Sans'[^;]*sans-serif")
ID = "\ue000"  # before each id, where the page puts what no other chart has; in no printable text
NO_XML = re.compile("[\ufffe\uffff]")
REFERENCE = re.compile(r"url\(#([^)]*)\)")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leancnn",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Series:
    """Points under one name; `spread` is how far each reaches down and up."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[tuple[float, float]] | None = None
    dash: int = 0
    colour: int | None = None
    """Of the page's eight; None: the next."""


def line_chart(label: str, series: Sequence[Series], x: str, y: str) -> Markup:
    """Lines over whole numbers such as epochs; `label` says what is seen, for screen readers."""
    with own_style():
        figure, axes = _begun(2.8 + 0.22 * len(series))
        for place, one in enumerate(series):
            colour = place if one.colour is None else one.colour
            axes.plot(
                _drawable(one.x),
                _drawable(one.y),
                DASHES[(one.dash + colour // 8) % 4],
                color=SERIES[colour % 8],
                marker="." if len(one.x) < 3 else "",
                label=_word(one.name, 40),
            )
        axes.locator_params(axis="x", integer=True)
        return _finished(figure, axes, label, x, y, legend=len(series))


def point_chart(
    label: str,
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    log_x: bool = False,
    limit: float | None = None,
) -> Markup:
    """Points with their spread up and down, each series by its own mark and colour.

    A dashed line stands at `limit`, what may be spent along x.
    """
    with own_style():
        figure, axes = _begun(2.8 + 0.22 * len(series))
        for place, one in enumerate(series):
            spread = _spread(one)
            colour = place if one.colour is None else one.colour
            axes.errorbar(
                _drawable(one.x),
                _drawable(one.y),
                spread,
                fmt=MARKS[colour % 8],
                color=SERIES[colour % 8],
                capsize=3,
                label=_word(one.name, 40),
            )
        if limit is not None:
            axes.axvline(limit, color=INK, linestyle="--", linewidth=1)
        axes.locator_params(axis="x", nbins=5)
        if log_x:
            _logarithmic(axes)
        return _finished(figure, axes, label, x, y, legend=len(series))


def interval_chart(
    label: str, names: Sequence[str], series: Sequence[Series], x: str, *, log: bool = False
) -> Markup:
    """Rows of `names` from the top, in each the points of the series whose `y` is its place.

    `spread` reaches left and right.
    """
    with own_style():
        more = 0.22 * len(series) if len(series) > 1 else 0
        figure, axes = _begun(0.9 + 0.36 * len(names) + more)
        for place, one in enumerate(series):
            spread = _spread(one)
            axes.errorbar(
                _drawable(one.x),
                _drawable(one.y),
                xerr=spread,
                fmt=MARKS[place % 8],
                color=SERIES[place % 8],
                capsize=3,
                label=_word(one.name, 40),
            )
        axes.set_yticks(range(len(names)), [_word(name, 24) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        if log:
            _logarithmic(axes)
        return _finished(figure, axes, label, x, "", legend=len(series))


def _word(name: str, longest: int) -> str:
    """A name that is safe to print, without what XML cannot hold."""
    return NO_XML.sub("?", short(name, longest))


def _drawable(numbers: Sequence[float]) -> list[float]:
    """Numbers that an axis can hold."""
    return [max(-MOST, min(float(number), MOST)) for number in numbers]


def _spread(one: Series) -> list[list[float]] | None:
    """How far points reach down and up, as matplotlib takes it: two rows, none below 0."""
    if one.spread is None:
        return None
    return [[max(0.0, end) for end in _drawable(ends)] for ends in zip(*one.spread, strict=True)]


def _begun(height: float) -> tuple[Figure, Axes]:
    import matplotlib

    matplotlib.rcParams.update(STYLE)
    figure = new_figure(WIDTH, height)
    return figure, figure.add_subplot()


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", rotation=30)


def _finished(figure: Figure, axes: Axes, label: str, x: str, y: str, *, legend: int) -> Markup:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if legend > 1:
        figure.legend(loc="outside lower left", ncols=1)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # the page's fonts have what matplotlib's lacks
        warnings.filterwarnings("ignore", message=r".*Glyph \d+", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return inline(buffer.getvalue(), label)


def inline(svg: bytes, label: str) -> Markup:
    """matplotlib's SVG as an element of a page: ids behind `ID`, the page's colours, a label."""
    root = ElementTree.fromstring(svg)
    prefix = ID
    for parent in list(root.iter()):
        parent.tag = _plain(parent.tag)
        for child in list(parent):
            if _plain(child.tag) in ("metadata", "style"):
                parent.remove(child)
        for name, value in list(parent.attrib.items()):
            del parent.attrib[name]
            parent.attrib[_plain(name)] = _attribute(_plain(name), value, prefix)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    root.attrib.update(
        {"role": "img", "aria-label": _word(label, 200), "style": f"max-width:{width / 0.75:.0f}px"}
    )
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # escaped by ElementTree


def _plain(name: Any) -> str:
    return str(name).rpartition("}")[2]


def _attribute(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href":
        return f"#{prefix}{value.removeprefix('#')}"
    value = REFERENCE.sub(rf"url(#{prefix}\1)", value)
    value = FONT.sub("inherit", value) if "font" in value else value
    return COLOUR.sub(lambda found: VARIABLES[found[0]], value)
