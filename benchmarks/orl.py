"""The NVM paper's experiment on ORL faces: 40 persons, 10 images each, 300 to train, 100 to test.

    python benchmarks/orl.py FACES [--splits 5] [--epochs 40] [--size 224] [--only nvmnet_g4 ...]

FACES holds a folder of images for each person. The paper gives 40 epochs and 224×224, and no seeds
or split; here every split is stratified and seeded: 7 or 8 images of each person are trained on.
The faces are 92×112: --size 112 takes a quarter of the time. Writes results/network-orl.json, or
-orl-SIZE.json, after every run. About 5 minutes a run of nvmnet_g4 on two cores at 224×224.
"""

import argparse
import random
import shutil
from pathlib import Path
from typing import Any

from experiment import Trial, all_of, chosen, command

ROOT = Path(__file__).parent.parent
TEST = 100  # images, as in the paper


def cut(faces: Path, where: Path, seed: int) -> Path:
    """Copy one stratified split into `where`: a function of the seed and of the files' names."""
    if where.exists():
        return where
    draw = random.Random(seed)
    people = sorted(path for path in faces.iterdir() if path.is_dir())
    share, more = divmod(TEST, len(people))
    three = set(draw.sample(people, more))  # 20 of 40 give three images to the test, 20 two
    making = where.with_name(f"{where.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    for person in people:
        files = sorted(path for path in person.iterdir() if path.is_file())
        draw.shuffle(files)
        tested = share + (person in three)
        for place, file in enumerate(files):
            part = making / ("test" if place < tested else "train") / person.name
            part.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, part / file.name)
    making.rename(where)
    return where


def trials(epochs: float, size: int) -> list[Trial]:
    """NVMNet by groups with and without batch norm, the comparators, and the joint loss.

    Smaller images are moved by as large a share of their side.
    """
    same: dict[str, Any] = {"epochs": epochs, "size": (size, size), "shift": round(size / 14)}
    fast = chosen("nvmnet-fast", **same)
    no_norm = chosen("plain-224", batch=10, lr=0.005, **same)
    joint = fast.changed(
        name="nvmnet-centre", loss="softmax+center", loss_arguments={"gamma": 0.003, "alpha": 0.5}
    )
    return [
        *(Trial(label=f"nvmnet_g{g}", network=f"nvmnet_g{g}", recipe=fast) for g in (2, 4, 8, 16)),
        *(
            Trial(
                label=f"nvmnet_g{g} without norm",
                network=f"nvmnet_g{g}",
                recipe=no_norm,
                arguments={"bn": "none"},
            )
            for g in (2, 4, 8, 16)
        ),
        Trial(
            label="nvmnet_g4 norm everywhere",
            network="nvmnet_g4",
            recipe=fast,
            arguments={"bn": "all"},
        ),
        Trial(label="nvmnet_g4 softmax+centre", network="nvmnet_g4", recipe=joint),
        Trial(label="squeezenet1_0", network="squeezenet1_0", recipe=no_norm),
        Trial(label="alexnet", network="alexnet", recipe=no_norm),
        Trial(label="resnet18", network="resnet18", recipe=fast.changed(name="orl", lr=0.02)),
        Trial(
            label="nvmnet_g4 as the paper says",
            network="nvmnet_g4",
            recipe=chosen("nvmnet-paper", **{**same, "shift": 0}),
        ),
    ]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    labels = [trial.label for trial in trials(40, 224)]
    parser.add_argument("--only", nargs="*", choices=labels, help="labels to train; default: all")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "orl")
    parser.add_argument("--result", type=Path)
    args = parser.parse_args()
    smaller = f"-{args.size}" if args.size != 224 else ""
    result = args.result or ROOT / "results" / f"network-orl{smaller}.json"
    splits = range(args.splits)
    all_of(
        trials(args.epochs, args.size),
        {seed: cut(args.faces, args.runs / f"split{seed}", seed) for seed in splits},
        args.runs / str(args.size),
        result,
        title=f"ORL faces at {args.size}×{args.size}, 300 images to train and 100 to test",
        command=command(__file__, parser, args),
        note=f"up to {args.splits} stratified splits, {args.epochs:g} epochs, network of the last "
        "epoch; the paper: 70.6 to 71.4 %",
        val_share=0,
        only=args.only,
    )


if __name__ == "__main__":
    main()
