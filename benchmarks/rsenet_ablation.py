"""R-SeNet, one change after another: the NVM paper's Table 8 on CIFAR-10.

    python benchmarks/rsenet_ablation.py CIFAR [--size 32] [--epochs 20] [--seeds 3]

Base (one group, plain gate), grouped convolutions, R-MAC in the gate, focal loss. With --size 224
as in the paper; below 100 the stem for small images. For a subset give a smaller folder. Writes
results/network-rsenet-ablation.json after every run.
"""

import argparse
from pathlib import Path

from experiment import Trial, all_of, chosen, command

ROOT = Path(__file__).parent.parent
STEPS = (  # label, arguments, loss; the paper's accuracy
    ("base", {"groups": 1, "rmac_at": "nowhere"}, "cross_entropy", "88.1 ± 0.3"),
    ("+ grouped", {"groups": 4, "rmac_at": "nowhere"}, "cross_entropy", "87.0 ± 0.5"),
    ("+ R-MAC", {"groups": 4, "rmac_at": "squeeze"}, "cross_entropy", "87.8 ± 0.1"),
    ("+ focal", {"groups": 4, "rmac_at": "squeeze"}, "focal", "90.3 ± 0.1"),
)


def trials(epochs: float, size: int) -> list[Trial]:
    """The four steps under one recipe."""
    stem = "cifar" if size < 100 else "imagenet"
    recipe = chosen("rsenet-fast", epochs=epochs, size=(size, size), label_smoothing=0.0)
    return [
        Trial(
            label=f"rsenet {label}",
            network="rsenet",
            recipe=recipe.changed(loss=loss),
            arguments={**arguments, "stem": stem},
        )
        for label, arguments, loss, _ in STEPS
    ]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "rsenet-ablation")
    where = ROOT / "results" / "network-rsenet-ablation.json"
    parser.add_argument("--result", type=Path, default=where)
    args = parser.parse_args()
    printed = ", ".join(f"{label} {accuracy}" for label, _, _, accuracy in STEPS)
    all_of(
        trials(args.epochs, args.size),
        dict.fromkeys(range(args.seeds), args.data),
        args.runs,
        args.result,
        title=f"R-SeNet's ablation at {args.size}×{args.size}",
        command=command(__file__, parser, args),
        note=f"{args.epochs:g} epochs, {args.seeds} seeds, network of the last epoch; "
        f"the paper's Table 8: {printed}",
    )


if __name__ == "__main__":
    main()
