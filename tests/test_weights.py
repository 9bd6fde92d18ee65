"""Saved networks: whole, checked, and refused when a bit is wrong."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from leancnn import safe_files, weights
from leancnn.errors import DamagedError, MismatchError, RunError
from leancnn.preprocess import Preprocessing
from leancnn.weights import Network
from tests.tiny import RECIPE, tiny

PREPROCESSING = Preprocessing(size=(8, 8), scale=(10, 10), channels=3)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    body = tiny(classes=3)
    body(torch.randn(4, 3, 8, 8))  # norm statistics that are not the first ones
    return Network(
        body,
        name=RECIPE.network,
        arguments={"width": 16},
        classes=("Ångström", "b", "c/d"),
        preprocessing=PREPROCESSING,
        mean=MEAN,
        std=STD,
        made={"epoch": 3},
    ).eval()


def test_a_network_comes_back_whole(network: Network, tmp_path: Path) -> None:
    weights.save(network, tmp_path / "n")
    loaded = weights.load(tmp_path / "n")
    images = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(loaded(images), network(images))
    assert loaded.classes == network.classes
    assert loaded.preprocessing == PREPROCESSING
    assert (loaded.mean, loaded.std, loaded.made) == (MEAN, STD, {"epoch": 3})
    assert not loaded.training
    names = {path.name for path in (tmp_path / "n").iterdir()}
    assert names == {"network.json", "weights.safetensors"}


def test_normalise_is_pixel_less_mean_by_std(network: Network) -> None:
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    expected = (images.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    normal = network.normalise(images)
    assert normal.dtype == torch.float32
    assert normal.is_contiguous()
    torch.testing.assert_close(normal.double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def test_counts_stand_in_the_manifest(network: Network, tmp_path: Path) -> None:
    weights.save(network, tmp_path)
    counts = json.loads((tmp_path / "network.json").read_text())["counts"]
    assert counts["trainable"] == sum(p.numel() for p in network.body.parameters())


def test_a_run_gives_its_best_else_its_last(network: Network, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        weights.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match="no saved network"):
        weights.load(tmp_path)
    weights.save(network, tmp_path / "last")
    assert weights.load(tmp_path).made == {"epoch": 3}
    network.made = {"epoch": 2}
    weights.save(network, tmp_path / "best")
    assert weights.load(tmp_path).made == {"epoch": 2}
    assert weights.load(tmp_path, "last").made == {"epoch": 3}
    with pytest.raises(RunError, match="no saved network"):
        weights.load(tmp_path / "best", "last")


def test_tensors_of_another_network_are_refused(network: Network, tmp_path: Path) -> None:
    weights.save(network, tmp_path)
    manifest, tensors = safe_files.load_pair(
        tmp_path / "network.json", tmp_path / "weights.safetensors"
    )
    for key in ("file", "tensors", "sha256"):
        manifest.pop(key, None)

    def resealed(changes: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
        paths = tmp_path / "network.json", tmp_path / "weights.safetensors"
        safe_files.save_pair(*paths, {**manifest, **changes}, arrays)

    resealed({}, {**tensors, "fc.bias": np.zeros(4, np.float32)})
    with pytest.raises(DamagedError, match=r"fc.bias \(3,\) against \(4,\)"):
        weights.load(tmp_path)
    resealed({}, {**tensors, "fc.bias": np.zeros(3, np.float64)})
    with pytest.raises(DamagedError, match=r"fc\.bias"):
        weights.load(tmp_path)
    resealed({}, {key: array for key, array in tensors.items() if key != "fc.bias"})
    with pytest.raises(DamagedError, match=r"fc\.bias"):
        weights.load(tmp_path)
    resealed({"classes": ["a", "b"]}, tensors)
    with pytest.raises(DamagedError):
        weights.load(tmp_path)
    resealed({"format": 99}, tensors)
    with pytest.raises(DamagedError, match="newer leancnn"):
        weights.load(tmp_path)
    resealed({"mean": "x"}, tensors)
    with pytest.raises((DamagedError, MismatchError)):
        weights.load(tmp_path)


def test_means_that_do_not_fit_the_channels_are_refused(network: Network) -> None:
    with pytest.raises(MismatchError, match="3 channels"):
        Network(
            nn.Identity(),
            name="x",
            arguments={},
            classes=(),
            preprocessing=PREPROCESSING,
            mean=(0.5,),
            std=(0.5,),
        )


def test_two_hundred_damaged_bits_are_refused(network: Network, tmp_path: Path) -> None:
    assert damage(network, tmp_path, flips=160, cuts=40) == 200


@pytest.mark.slow
def test_five_hundred_bits_and_a_hundred_cuts_are_refused(network: Network, tmp_path: Path) -> None:
    assert damage(network, tmp_path, flips=500, cuts=100) == 600


def test_safetensors_alone_would_not_notice(network: Network, tmp_path: Path) -> None:
    """The control: what the checksums are for."""
    from safetensors.numpy import load

    weights.save(network, tmp_path)
    whole = (tmp_path / "weights.safetensors").read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    dice = random.Random(3)
    silent = 0
    for _ in range(50):
        bad = bytearray(whole)
        place = dice.randrange(8 * start, 8 * len(whole))
        bad[place // 8] ^= 1 << place % 8
        load(bytes(bad))
        silent += 1
    assert silent == 50


def damage(network: Network, folder: Path, *, flips: int, cuts: int) -> int:
    """Save, damage one place, load, again and again: how often `DamagedError` was the answer."""
    weights.save(network, folder)
    dice = random.Random(1)
    paths = [folder / "network.json", folder / "weights.safetensors"]
    wholes = [path.read_bytes() for path in paths]
    sizes = [len(whole) for whole in wholes]
    refused = 0
    for trial in range(flips + cuts):
        which = dice.choices((0, 1), sizes)[0]
        bad = bytearray(wholes[which])
        place = dice.randrange(len(bad))
        if trial < flips:
            bad[place] ^= 1 << dice.randrange(8)
        else:
            del bad[place:]
        paths[which].write_bytes(bad)
        with pytest.raises(DamagedError) as caught:
            weights.load(folder)
        refused += str(folder) in str(caught.value) and "\n" not in str(caught.value)
        paths[which].write_bytes(wholes[which])
    weights.load(folder)
    return refused
