"""Pictures of a result, as PNG bytes.

Nothing here loads torch or writes a file. Class names are never trusted: control characters are
escaped, and a dollar sign does not start a formula.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leancnn.tables import printable, short

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MOST_NAMED = 40  # classes whose names fit beside a confusion matrix
MOST_COUNTED = 20  # classes whose counts fit into its cells
DOTS_PER_INCH = 110
DRAWING = threading.RLock()


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """matplotlib as it ships, whatever a matplotlibrc asks for, such as LaTeX for every text.

    Its settings are global, so one thread draws at a time.
    """
    import matplotlib

    with DRAWING, matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@own_style()
def training_curve(epochs: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss and accuracy over the epochs, as PNG.

    Each mapping holds `epoch` and any of `train_loss`, `val_loss`, `train_accuracy` and
    `val_accuracy`; a series that is absent, or None throughout, is left out.
    """
    figure = new_figure(8, 3.2)
    for place, kind in enumerate(("loss", "accuracy")):
        _draw_curve(figure.add_subplot(1, 2, place + 1), epochs, kind)
    return png(figure)


@own_style()
def confusion_matrix(classes: Sequence[str], counts: NDArray[np.int64], title: str = "") -> bytes:
    """True classes in rows, predicted ones in columns, as PNG; `counts` is (classes, classes)."""
    side = min(4.5 + 0.22 * min(len(classes), MOST_NAMED), 13)
    figure = new_figure(side, side)
    _draw_confusion(figure.add_subplot(), classes, counts, title)
    return png(figure)


@own_style()
def contact_sheet(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    *,
    marks: Sequence[bool] | None = None,
) -> bytes:
    """Pictures (H, W, 1 or 3) in a grid with a caption of a few lines under each, as PNG.

    `marks` colours the captions: True as right, False as wrong.
    """
    columns = min(max(len(images), 1), 10)
    rows = -(-max(len(images), 1) // columns)
    figure = new_figure(1.5 * columns, 1.95 * rows)
    for index, image in enumerate(images):
        mark = None if marks is None else marks[index]
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_picture(axes, image, captions[index], mark)
    return png(figure)


@own_style()
def demo_picture(
    epochs: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    counts: NDArray[np.int64],
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    marks: Sequence[bool],
    title: str,
) -> bytes:
    """A run at a glance, as PNG: curves, confusion matrix and 16 test pictures with answers."""
    figure = new_figure(12, 7.4)
    figure.suptitle(printable(title), parse_math=False)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    left, right = halves
    grid = left.add_gridspec(2, 2, height_ratios=(1, 1.7))
    _draw_curve(left.add_subplot(grid[0, 0]), epochs, "loss")
    _draw_curve(left.add_subplot(grid[0, 1]), epochs, "accuracy")
    _draw_confusion(left.add_subplot(grid[1, :]), classes, counts, "")
    for index, image in enumerate(images[:16]):
        axes = right.add_subplot(4, 4, index + 1)
        _draw_picture(axes, image, captions[index], marks[index])
    return png(figure)


@own_style()
def bench_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Medians of engines by network on a scale of powers of ten, as PNG.

    `rows` hold model, engine, median_us and the interval low_us to high_us.
    """
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure = new_figure(8, 1.4 + 0.34 * len(names))
    axes = figure.add_subplot()
    for engine in dict.fromkeys(row["engine"] for row in rows):
        found = [row for row in rows if row["engine"] == engine]
        ours = engine == "c"
        axes.errorbar(
            [row["median_us"] for row in found],
            [names.index(row["model"]) for row in found],
            xerr=[
                [max(row["median_us"] - row["low_us"], 0) for row in found],
                [max(row["high_us"] - row["median_us"], 0) for row in found],
            ],
            fmt="D" if ours else "o",
            color="black" if ours else None,
            label="leancnn's C" if ours else engine,
            linestyle="none",
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("µs for one image on one core, median; to the left is faster")
    axes.grid(alpha=0.3)
    return _with_legend(figure)


@own_style()
def pruning_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Accuracy against MACs and against time of the networks of a comparison, as PNG.

    `rows` as `comparison` makes them: network, kind, before %, after %, ± %, MACs and µs.
    """
    timed = all(row["µs"] != "" for row in rows)
    figure = new_figure(11 if timed else 6.5, 4.4)
    for place, (key, name) in enumerate((("MACs", "MACs"), ("µs", "µs, compiled, one core"))):
        if key == "µs" and not timed:
            continue
        axes = figure.add_subplot(1, 2 if timed else 1, place + 1)
        for index, row in enumerate(rows):
            shape = {"whole": "*", "criterion": "o", "baseline": "s", "control": "s"}[row["kind"]]
            error = row["± %"] if row["± %"] != "" else 0
            axes.errorbar(
                row[key],
                row["after %"],
                error,
                fmt=shape,
                color=f"C{index % 10}",
                capsize=3,
                markersize=11 if shape == "*" else 6,
                label=short(row["network"]),
            )
            if row["before %"] != "":
                axes.plot(row[key], row["before %"], "x", color=f"C{index % 10}")
        axes.set_xlabel(name)
        axes.set_ylabel("accuracy, % (crosses: before training again)")
        axes.grid(alpha=0.3)
    return _with_legend(figure)


@own_style()
def gate_distributions(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bytes:
    """By network and gate, how the mean gate values of the channels spread, as PNG.

    `found`: name of a network → path of a gate → {"mean": a number per channel}.
    """
    figure = new_figure(10, 3.2 * len(found))
    for place, (name, gates) in enumerate(found.items()):
        axes = figure.add_subplot(len(found), 1, place + 1)
        means = [list(gate["mean"]) for gate in gates.values()]
        axes.violinplot(means, showmedians=True, widths=0.85)
        axes.set_xticks(range(1, len(gates) + 1), [short(path, 24) for path in gates], rotation=30)
        axes.set_ylim(0, 1)
        axes.set_ylabel("mean gate")
        axes.set_title(short(name, 60))
        axes.grid(alpha=0.3)
    return png(figure)


@own_style()
def front_picture(rows: Sequence[Mapping[str, Any]], budget: Mapping[str, Any]) -> bytes:
    """Accuracy against µs and bytes of the networks of a front, as PNG; limits as dashed lines.

    `rows` hold network, val_accuracy, test_accuracy, microseconds, low_us, high_us and bytes.
    """
    figure = new_figure(11, 4.4)
    for at, (key, name) in enumerate(
        (("microseconds", "µs, compiled, one core"), ("bytes", "bytes"))
    ):
        axes = figure.add_subplot(1, 2, at + 1)
        for index, row in enumerate(rows):
            colour = f"C{index % 10}"
            spread = None
            if key == "microseconds":
                ends = row["microseconds"] - row["low_us"], row["high_us"] - row["microseconds"]
                spread = [[max(0.0, end)] for end in ends]
            axes.errorbar(
                row[key],
                100 * row["val_accuracy"],
                xerr=spread,
                fmt="o",
                color=colour,
                label=short(row["network"], 40),
            )
            if row["test_accuracy"] is not None:
                axes.plot(row[key], 100 * row["test_accuracy"], "x", color=colour)
        if budget.get(key) is not None:
            axes.axvline(budget[key], color="grey", linestyle="--")
        if budget.get("accuracy") is not None:
            axes.axhline(100 * budget["accuracy"], color="grey", linestyle="--")
        axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.set_ylabel("accuracy, % (crosses: test)")
        axes.grid(alpha=0.3)
    return _with_legend(figure)


@own_style()
def error_by_layer(
    errors: Sequence[tuple[str, float]], title: str, floats: Collection[str] = ()
) -> bytes:
    """How far each layer's integers are from the floats, relative to the floats' spread, as PNG.

    `errors` are (layer, share) in the network's order; `floats` are layers that stayed in float32.
    """
    figure = new_figure(min(4 + 0.16 * len(errors), 14), 4.2)
    axes = figure.add_subplot()
    shares = [100 * share for _, share in errors]
    colours = ["tab:orange" if name in floats else "tab:blue" for name, _ in errors]
    axes.bar(range(len(errors)), shares, color=colours)
    axes.set_ylabel("difference from float32, % of its spread")
    words = f"{printable(title)}: error of the 8-bit integers by layer"
    axes.set_title(words, fontsize="medium", parse_math=False)
    axes.margins(x=0.01)
    axes.grid(axis="y", alpha=0.3)
    if len(errors) <= 2 * MOST_NAMED:
        names = [short(name, 24) for name, _ in errors]
        look: dict[str, Any] = {"rotation": 90, "fontsize": "x-small", "parse_math": False}
        axes.set_xticks(range(len(errors)), names, **look)
    else:
        axes.set_xlabel("layers in the network's order")
    if any(name in floats for name, _ in errors):
        axes.bar(0, 0, color="tab:orange", label="computed in float32")
        axes.legend(frameon=False)
    return png(figure)


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """A figure of its own: no pyplot, so no window and no list of figures."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _with_legend(figure: Figure) -> bytes:
    """The figure as PNG, with a legend beside it of what its first axes show."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return png(figure)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names may be in any script; the font draws a box for what it lacks.
        warnings.filterwarnings("ignore", message=r".*Glyph \d+", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def _draw_curve(axes: Axes, epochs: Sequence[Mapping[str, Any]], kind: str) -> None:
    for part, colour in (("train", "tab:blue"), ("val", "tab:orange")):
        points = [
            (row["epoch"], row[f"{part}_{kind}"])
            for row in epochs
            if row.get(f"{part}_{kind}") is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, label=part, marker="." if len(points) < 3 else "")
    if axes.lines:
        axes.legend(frameon=False)
    axes.set_xlabel("epoch")
    axes.set_ylabel(kind)
    axes.grid(alpha=0.3)
    axes.locator_params(axis="x", integer=True)


def _draw_confusion(
    axes: Axes, classes: Sequence[str], counts: NDArray[np.int64], title: str
) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)  # of each true class
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(printable(title), parse_math=False)
    if len(classes) <= MOST_NAMED:
        names = [short(name) for name in classes]
        ticks = range(len(names))
        axes.set_xticks(ticks, names, rotation=90, parse_math=False)
        axes.set_yticks(ticks, names, parse_math=False)
    if len(classes) <= MOST_COUNTED:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
            axes.text(column, row, str(counts[row, column]), color=colour, **style)


def _draw_picture(axes: Axes, image: NDArray[np.uint8], caption: str, mark: bool | None) -> None:
    gray = image.ndim == 2 or image.shape[2] == 1
    axes.imshow(image.reshape(image.shape[:2]) if gray else image, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    colour = "black" if mark is None else "darkgreen" if mark else "crimson"
    lines = "\n".join(short(line) for line in caption.split("\n"))
    axes.set_xlabel(lines, fontsize=7, color=colour, parse_math=False, labelpad=2)
