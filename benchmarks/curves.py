"""Draw accuracy over epochs of the networks in a result, as in the NVM paper's Fig. 13.

    python benchmarks/curves.py results/network-orl.json …

Validation accuracy where images were set apart, else that of the training images as they were
augmented; a line is the mean of a network's runs. Writes docs/NAME.png for results/NAME.json;
benchmarks/networks_page.py shows it.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parent.parent
COLOURS = 10  # before they begin anew


def lines(found: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, list[float]]]:
    """Whose accuracy it is, and by network its mean over the runs, percent, epoch by epoch."""
    judged = all(None not in run["val_accuracy"] and run["val_accuracy"] for run in found)
    key = "val_accuracy" if judged else "train_accuracy"
    drawn = {}
    for label in dict.fromkeys(run["label"] for run in found):
        mine = [run[key] for run in found if run["label"] == label]
        drawn[label] = [100 * mean(epoch) for epoch in zip(*mine, strict=True)]
    return ("validation" if judged else "training"), drawn


def picture(result: Mapping[str, Any], path: Path) -> None:
    """One figure, a line for each network."""
    from matplotlib.figure import Figure

    whose, drawn = lines(result["runs"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for place, (label, accuracy) in enumerate(drawn.items()):
        style = ("-", "--", ":")[place // COLOURS % 3]
        axes.plot(range(1, len(accuracy) + 1), accuracy, style, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"accuracy on the {whose} images, %")
    axes.set_title(result["title"], fontsize="medium")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw each result that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT")
    for path in parser.parse_args().results:
        place = ROOT / "docs" / f"{path.stem}.png"
        picture(json.loads(path.read_text(encoding="utf-8")), place)
        print(place.relative_to(ROOT))


if __name__ == "__main__":
    main()
