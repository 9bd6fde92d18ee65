"""The whole way on real images that come inside a dependency: check, train, test, count, predict.

scikit-learn's 1,797 handwritten digits of 8×8 pixels; nothing is fetched from anywhere.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leancnn.check import check
from leancnn.count import count
from leancnn.errors import DataError
from leancnn.evaluate import Evaluation, evaluate
from leancnn.held_out import open_test_part
from leancnn.plots import demo_picture
from leancnn.predict import Prediction, predict
from leancnn.runs import atomic_write
from leancnn.tables import printable
from leancnn.train import Trained, train

DATA = RECIPE = "digits"
SHOWN = 16  # test pictures in the picture


def demo(
    out: str | Path = "leancnn-demo", *, epochs: float | None = None, progress: bool = True
) -> dict[str, Any]:
    """Do it all in a new folder below `out`, tell it on stderr, and return the figures.

    `epochs` shortens the recipe. Raises what the steps raise.
    """
    folder = _free(Path(out))

    def say(text: str) -> None:
        if progress:
            print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)

    report = check(DATA)
    if not report.ok:
        raise DataError(f"{DATA} did not pass the check: {report.problems[0]}")
    say("check     the digits are fit for training")
    overrides = {} if epochs is None else {"epochs": epochs}
    trained = train(DATA, recipe=RECIPE, out=folder, overrides=overrides, progress=progress)
    say(f"train     {len(trained.history)} epochs in {trained.seconds:.0f} s → {folder}")
    tested = evaluate(folder)
    say(
        f"evaluate  {tested.accuracy:.2%} of {tested.images} test images, "
        f"95 % interval {tested.low:.2%} to {tested.high:.2%}"
    )
    preprocessing = trained.network.preprocessing
    cost = count(trained.network.body, (preprocessing.channels, *preprocessing.size))
    say(f"count     {cost.trainable:,} weights, {cost.macs:,} multiply-accumulates for an image")
    files, truth, images = _pictures(folder, preprocessing)
    found = predict(folder, files)
    correct = [item.label == name for item, name in zip(found, truth, strict=True)]
    say(f"predict   {sum(correct)} of {len(correct)} pictures correct")
    _draw(folder / "demo.png", trained, tested, images, found, correct)
    say(f"picture   {folder / 'demo.png'}")
    return {
        "run": str(folder),
        **_figures(trained, tested),
        "count": asdict(cost),
        "predictions": [item.to_json() for item in found],
        "picture": str(folder / "demo.png"),
    }


def _figures(trained: Trained, tested: Evaluation) -> dict[str, Any]:
    keys = ("images", "accuracy", "low", "high")
    return {
        "epochs": len(trained.history),
        "seconds": trained.seconds,
        "images_per_s": trained.images_per_s,
        "test": {key: getattr(tested, key) for key in keys},
    }


def _draw(
    path: Path,
    trained: Trained,
    tested: Evaluation,
    images: Sequence[NDArray[np.uint8]],
    found: Sequence[Prediction],
    correct: Sequence[bool],
) -> None:
    """Write the picture: curves, confusion matrix, images with their answers."""
    captions = [f"{item.label}  {item.probability:.0%}" for item in found]
    title = f"{trained.network.name} on handwritten digits: {tested.accuracy:.2%} of the test set"
    names = [figures.name for figures in tested.classes]
    counts = np.array(tested.confusion)
    png = demo_picture(trained.history, names, counts, images, captions, correct, title)
    atomic_write(path, png)


def _free(out: Path) -> Path:
    """The first of run-1, run-2 … below `out` that does not exist."""
    number = 1
    while (out / f"run-{number}").exists():
        number += 1
    return out / f"run-{number}"


def _pictures(folder: Path, preprocessing: Any) -> tuple[list[Path], list[str], list[Any]]:
    """Some test images as files, one of each class and more; their labels; their pixels."""
    test = open_test_part(DATA, preprocessing)
    labels = test.split.labels
    rows = [
        int(np.flatnonzero(labels == place % len(test.classes))[place // len(test.classes)])
        for place in range(SHOWN)
    ]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    files = []
    for row in rows:
        image = test.split.images[row]
        path = folder / "pictures" / f"{row}.png"
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
        files.append(path)
    return (
        files,
        [test.classes[labels[row]] for row in rows],
        [test.split.images[row] for row in rows],
    )
