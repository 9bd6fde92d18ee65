"""Figure 19: what is equal to the bit, and how far apart the rest is.

    python benchmarks/determinism.py --runs 20

The same training with the same seed, each in a process of its own, must give the same weights and
metrics. With another number of threads, and for images one by one instead of in batches, sums are
taken in another order: there the largest difference is reported, and nothing is claimed. The
control draws its augmentation from a generator that nobody seeded.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figures import at_most, publish

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kill_training import result  # noqa: E402 - it lies beside the tests
from tiny import RECIPE, make_pictures  # noqa: E402

from leancnn import models, state_arrays, weights  # noqa: E402
from leancnn.bench import untrained  # noqa: E402
from leancnn.compile import compile  # noqa: E402
from leancnn.parity import trial_images  # noqa: E402
from leancnn.train import train  # noqa: E402

NETWORKS = ("henet_r3", "shufflenet_r3", "resnet20", "mobilenetv2")


def unseeded() -> None:
    """Let the training draw what it augments from numbers that nobody seeded."""
    from leancnn.data import _augment

    draw = _augment.draw
    _augment.draw = lambda seed, *where: draw(int.from_bytes(os.urandom(4)), *where)


def trained(data: Path, folder: Path, threads: int, before: Callable[[], None] | None) -> Path:
    """One training in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            torch.set_num_threads(threads)
            if before is not None:
                before()
            train(data, recipe=RECIPE, arguments={"width": 256}, out=folder, progress=False)
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"{folder}: the training did not end")
    return folder


def max_error(one: Path, other: Path) -> float:
    """The largest difference of two runs' last weights, relative to the largest weight."""
    first, second = (
        state_arrays.to_arrays(weights.load(run, "last").body.state_dict()) for run in (one, other)
    )
    scale = max(float(np.abs(array).max()) for array in first.values())
    return max(float(np.abs(first[k] - second[k]).max(initial=0)) for k in first) / scale


def batch_errors(name: str) -> tuple[float, float]:
    """Logits of images one by one against eight at once: of PyTorch, and of our C."""
    network = untrained(name)
    images = trial_images(network, 8)
    with torch.inference_mode():
        together = network(torch.from_numpy(images)).numpy()
        single = np.concatenate(
            [network(torch.from_numpy(image[None])).numpy() for image in images]
        )
    native = compile(network)
    ours, alone = native(images), np.concatenate([native(image[None]) for image in images])
    scale = float(np.abs(together).max())
    return float(np.abs(together - single).max()) / scale, float(np.abs(ours - alone).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        data = make_pictures(place / "pictures")
        expected = result(trained(data, place / "first", 1, None))
        different = sum(
            result(trained(data, place / f"run {n}", 1, None)) != expected for n in range(args.runs)
        )
        control = sum(
            result(trained(data, place / f"control {n}", 1, unseeded)) != expected
            for n in range(args.runs)
        )
        threads = {
            n: max_error(place / "first", trained(data, place / f"threads {n}", n, None))
            for n in (2, 4)
        }
    batch = {name: batch_errors(name) for name in NETWORKS if name in models.names()}
    torchs, ours = (max(pair[i] for pair in batch.values()) for i in (0, 1))
    rows = [
        {
            "what": "trainings of one seed, one thread: equal weights and metrics",
            "trials": args.runs,
            "failed": different,
            "at most (95 %)": at_most(different, args.runs),
        },
        {
            "what": "our C: eight images at once against one by one, networks",
            "trials": len(batch),
            "failed": sum(pair[1] != 0 for pair in batch.values()),
            "at most (95 %)": "",
        },
        {
            "what": "control: augmentation that nobody seeded",
            "trials": args.runs,
            "failed": control,
            "at most (95 %)": "",
        },
    ]
    publish(
        19,
        "determinism",
        rows,
        note="not equal, and not claimed: weights after 2 and 4 threads differ by "
        f"{threads[2]:.1g} and {threads[4]:.1g} of the largest weight, PyTorch's logits of one "
        f"image from those of a batch of 8 by {torchs:.1g} of their scale, our C's probabilities "
        f"by {ours:.1g} ({', '.join(batch)})",
        threads=threads,
        batches={name: {"torch": pair[0], "c": pair[1]} for name, pair in batch.items()},
    )
    sys.exit(bool(different) or not control)


if __name__ == "__main__":
    main()
