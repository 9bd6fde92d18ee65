"""What 8-bit integers cost on the test part: ours, ONNX Runtime's and NNCF's of the same networks.

    python benchmarks/int8_accuracy.py runs/henet_r3 runs/resnet20 …     results/int8-accuracy.json
    python benchmarks/int8_accuracy.py runs/henet_r3 --finetune henet-fast --epochs 1

Each run is quantized on 512 images of its train part, the same ones by all three tools, and each
answers every image of the test part: the float network in PyTorch, our integers compiled to C, the
others' files in their engines. With --finetune also integers of weights that were trained on, for
so many epochs, in fake quantization, if validation is better for it; --tuned-only measures that
column alone and leaves the rest of a row as it was. `+` is accuracy lost, in percentage points;
`changed` are images whose answer is right in floats and wrong in our integers, or the other way
round. Each use of the test part is counted in the run. Rows of networks that are not asked for stay
in the file.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from int8_engines import by_nncf, by_onnxruntime, prepared
from numpy.typing import NDArray

import leancnn
from leancnn import weights
from leancnn.evaluate import evaluate
from leancnn.held_out import open_test_part
from leancnn.predict import probabilities
from leancnn.quantize import IMAGES, accuracy, calibration, quantize
from leancnn.runs import machine, write_json
from leancnn.tables import table
from leancnn.targets.onnx import to_onnx
from leancnn.training_data import images_for, kept_cut

RESULT = Path(__file__).parent.parent / "results" / "int8-accuracy.json"
BARS = {"lbmbnet32_r6": 1.0}  # points that post-training quantization may cost; others:
BAR = 0.5


def answered(kind: str, path: Path, images: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The classes that an engine gives images (N, H, W, C)."""
    engine = prepared(kind, path)
    return np.array([int(np.array(engine(image[None])()).argmax()) for image in images])


def measured(run: Path, folder: Path) -> dict[str, Any]:
    """One row: a run's network in floats and in everybody's integers."""
    network = weights.load(run)
    evaluate(run)  # counts this use of the test part
    held = open_test_part(network.known_data or "", network.pictures())
    images = np.array(network.pictures().window(held.split.images))
    share, cut_by = kept_cut(network, None, None)
    data = network.known_data or ""
    dataset = images_for(data, network.pictures(), val_share=share, split_seed=cut_by or 0)
    quantized = quantize(run, folder / "integers")
    chosen = calibration(dataset, min(IMAGES, len(dataset.of_train.labels)), 0)
    some = np.array(network.pictures().window(dataset.of_train.images[chosen]))
    plain = folder / "float.onnx"
    plain.write_bytes(to_onnx(network))
    native = leancnn.compile(folder / "integers")
    truth = held.split.labels
    found = {
        "float": probabilities(network, held.split.images).argmax(1),
        "ours": probabilities(native, held.split.images).argmax(1),
        "onnxruntime": answered("onnxruntime", by_onnxruntime(plain, some, folder), images),
        "nncf": answered("openvino-int8", by_nncf(plain, some, folder)["openvino-int8"], images),
    }
    correct = {name: answers == truth for name, answers in found.items()}
    points = {name: 100 * float(each.mean()) for name, each in correct.items()}
    return {
        "network": network.name,
        "data": Path(data).name,
        "images": len(truth),
        "float %": round(points["float"], 2),
        "ours %": round(points["ours"], 2),
        "+ ours": round(points["float"] - points["ours"], 2),
        "at most": BARS.get(network.name, BAR),
        "changed": int((correct["float"] != correct["ours"]).sum()),
        "agree %": round(100 * float((found["float"] == found["ours"]).mean()), 2),
        "+ ours, tuned": None,
        "+ onnxruntime": round(points["float"] - points["onnxruntime"], 2),
        "+ nncf": round(points["float"] - points["nncf"], 2),
        "validation, + ours": None
        if quantized.points_lost is None
        else round(quantized.points_lost, 2),
        "trained": trained(network),
        "tuned": None,
    }


def tuned(run: Path, folder: Path, row: dict[str, Any], finetune: str, epochs: float) -> None:
    """Put what fine-tuning for integers brings into a row that says what the floats get right."""
    network = weights.load(run)
    held = open_test_part(network.known_data or "", network.pictures())
    changes = {"epochs": epochs}
    found = quantize(run, folder / "tuned", finetune=finetune, overrides=changes, timed=False)
    print(found.text(), flush=True)
    tuning = found.finetuning
    assert tuning is not None
    right = 100 * accuracy(leancnn.compile(folder / "tuned"), held.split)
    row["+ ours, tuned"] = round(row["float %"] - right, 2)
    row["tuned"] = f"{epochs:g} {_epochs(epochs)} of {finetune} from {tuning.lr:g}"
    row["tuned"] += "" if tuning.kept else ", not kept"


def there_already(run: Path, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The row of a run's network, whose test part is opened once more."""
    row = rows[weights.load(run).name]
    if round(100 * evaluate(run).accuracy, 2) != row["float %"]:
        raise SystemExit(f"{run} is not the network of its row; measure all of it")
    return row


def trained(network: weights.Network) -> str:
    """How, in words."""
    made = network.trained
    recipe = made.get("recipe", "?")
    name = recipe.get("name", "?") if isinstance(recipe, dict) else recipe
    return f"{network.epochs:g} {_epochs(network.epochs)} of {name}"


def _epochs(many: float) -> str:
    return "epoch" if many == 1 else "epochs"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--finetune", metavar="RECIPE")
    parser.add_argument("--epochs", type=float, default=1.0, help="of --finetune")
    parser.add_argument("--tuned-only", action="store_true", help="of rows that are there")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    for run in args.runs:
        there = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
        rows = {row["network"]: row for row in there.get("rows", [])}
        with tempfile.TemporaryDirectory() as folder:
            row = there_already(run, rows) if args.tuned_only else measured(run, Path(folder))
            if args.finetune:
                tuned(run, Path(folder), row, args.finetune, args.epochs)
        rows[row["network"]] = row
        kept = list(rows.values())
        print(table([row]), flush=True)
        facts = {name: version(name) for name in ("onnxruntime", "openvino", "nncf")}
        write_json(
            args.out,
            {
                "title": "Accuracy on the test part that 8-bit integers cost, in percentage points",
                "command": "python benchmarks/int8_accuracy.py "
                + " ".join(f"runs/{row['network']}" for row in kept)
                + (" --finetune RECIPE --epochs N" if any(r.get("tuned") for r in kept) else ""),
                "machine": {**machine(), **facts},
                "note": "shortened trainings, and what tuned them, said in the last columns; 512 "
                "calibration images or all there are, the same for all three tools",
                "rows": kept,
            },
        )


if __name__ == "__main__":
    main()
