"""A run on photos of three classes, with networks that were never trained."""

import numpy as np
import torch
from PIL import Image

from leancnn import models, runs
from leancnn.preprocess import Preprocessing
from leancnn.weights import Network, save

PREPROCESSING = Preprocessing(size=(31, 31), scale=(32, 32))


def network(classes, seed=0):
    return Network(
        models.create_model("henet_r2", classes=len(classes), init="kaiming", seed=seed),
        name="henet_r2",
        arguments={"repeat": 2},
        classes=classes,
        preprocessing=PREPROCESSING,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    ).eval()


def photos(folder, classes, parts=("train", "test"), each=4):
    for part in parts:
        for number, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for i in range(each):
                rng = np.random.default_rng([number, i, len(part)])
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def made_photo_run(tmp_path):
    """A run with an untrained best and another last network, on photos of three classes."""
    torch.set_num_threads(1)
    data = photos(tmp_path / "photos", ["s2", "s10", "éa"])
    folder = tmp_path / "run"
    runs.write_json(folder / "run.json", {"data": {"source": str(data)}})
    save(network(("s2", "s10", "éa")), folder / "best")
    save(network(("s2", "s10", "éa"), seed=1), folder / "last")
    return folder
