"""Draw accuracy against time of our integers and of the engines', and the error of each layer.

    python benchmarks/int8_pictures.py            docs/int8-accuracy-time.png, from results/
    python benchmarks/int8_pictures.py runs/a8    docs/int8-error-by-layer.png, of a quantized run

Accuracy is that of results/int8-accuracy.json on the test part, time that of
results/engines-int8.json on one core; networks that stand in both are drawn.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from leancnn.plots import error_by_layer
from leancnn.printed import Quantization
from leancnn.quantize import FIGURES
from leancnn.safe_files import read_json

ROOT = Path(__file__).parent.parent
WAYS = {  # of an engine: its word, the accuracy lost, marker and colour
    "c": ("our C, float32", None, "o", "tab:gray"),
    "c-int8": ("our C, 8-bit integers", "+ ours", "o", "tab:blue"),
    "onnxruntime-int8": ("ONNX Runtime, 8-bit", "+ onnxruntime", "s", "tab:orange"),
    "openvino-int8": ("OpenVINO with NNCF, 8-bit", "+ nncf", "^", "tab:green"),
}


def points(accuracy: Mapping[str, Any], engines: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each network and way its microseconds and its accuracy in percent."""
    found = []
    for row in accuracy["rows"]:
        timed = {e["engine"]: e for e in engines["engines"] if e["network"] == row["network"]}
        for engine in WAYS if timed else ():
            lost = WAYS[engine][1]
            found.append(
                {
                    "network": row["network"],
                    "engine": engine,
                    "us": statistics.median(timed[engine]["turns_us"]),
                    "accuracy": row["float %"] - (row[lost] if lost else 0.0),
                }
            )
    return found


def accuracy_and_time(found: Sequence[Mapping[str, Any]], processor: str, path: Path) -> None:
    """A panel for each network: up is right more often, left is faster."""
    names = list(dict.fromkeys(each["network"] for each in found))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.7 * columns, 0.6 + 2.8 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        for each in found:
            if each["network"] == name:
                word, _, marker, colour = WAYS[each["engine"]]
                label = word if place == 0 else None
                axes.plot(each["us"], each["accuracy"], marker, color=colour, label=label)
        heights = [each["accuracy"] for each in found if each["network"] == name]
        middle = statistics.median(heights)
        axes.set_ylim(min(middle - 3, *heights) - 0.5, max(middle + 3, *heights) + 0.5)
        axes.set_xlim(left=0)
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel("µs an image")
        axes.grid(alpha=0.3)
        if place % columns == 0:
            axes.set_ylabel("accuracy on the test part, %")
    figure.suptitle(f"One core of an {processor}; lengths of trainings differ", fontsize="medium")
    figure.legend(loc="outside lower center", ncols=len(WAYS), frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="a quantized run, for its layers")
    asked = parser.parse_args()
    if asked.run is not None:
        value = read_json(asked.run / FIGURES, Quantization)
        place = ROOT / "docs" / "int8-error-by-layer.png"
        floats = value.get("floats", [])
        place.write_bytes(error_by_layer(value.get("errors", []), value["network"], floats))
    else:
        results = [ROOT / "results" / f"{name}.json" for name in ("int8-accuracy", "engines-int8")]
        accuracy, engines = (json.loads(path.read_text(encoding="utf-8")) for path in results)
        place = ROOT / "docs" / "int8-accuracy-time.png"
        found = points(accuracy, engines)
        accuracy_and_time(found, engines["machine"]["processor"], place)
    print(place.relative_to(ROOT))


if __name__ == "__main__":
    main()
