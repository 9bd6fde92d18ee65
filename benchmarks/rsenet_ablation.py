"""R-SeNet, one change after another: the NVM paper's Table 8 on CIFAR-10.

    python benchmarks/rsenet_ablation.py CIFAR [--size 32] [--epochs 20] [--seeds 3] [--images 2000]

Base (one group, plain gate), grouped convolutions, R-MAC in the gate, focal loss. With --size 224
as in the paper; the stem for small images below 100, or --stem. --images trains on a stratified
subset, --batch with smaller steps; the whole test part is tested. Writes
results/network-rsenet-ablation.json after every run.
"""

import argparse
from pathlib import Path

from experiment import Trial, all_of, chosen, command, share_of

ROOT = Path(__file__).parent.parent
STEPS = (  # label, arguments, loss; the paper's accuracy
    ("base", {"groups": 1, "rmac_at": "nowhere"}, "cross_entropy", "88.1 ± 0.3"),
    ("+ grouped", {"groups": 4, "rmac_at": "nowhere"}, "cross_entropy", "87.0 ± 0.5"),
    ("+ R-MAC", {"groups": 4, "rmac_at": "squeeze"}, "cross_entropy", "87.8 ± 0.1"),
    ("+ focal", {"groups": 4, "rmac_at": "squeeze"}, "focal", "90.3 ± 0.1"),
)


def trials(epochs: float, size: int, stem: str = "", batch: int = 0) -> list[Trial]:
    """The four steps under one recipe."""
    stem = stem or ("cifar" if size < 100 else "imagenet")
    recipe = chosen(
        "rsenet-fast", batch=batch, epochs=epochs, size=(size, size), label_smoothing=0.0
    )
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
    parser.add_argument("--images", type=int, default=0, help="to train on; default: all")
    parser.add_argument("--stem", choices=("cifar", "imagenet"), default="")
    parser.add_argument("--batch", type=int, default=0, help="and the rate with it; default: 128")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "rsenet-ablation")
    where = ROOT / "results" / "network-rsenet-ablation.json"
    parser.add_argument("--result", type=Path, default=where)
    args = parser.parse_args()
    printed = ", ".join(f"{label} {accuracy}" for label, _, _, accuracy in STEPS)
    data, named = share_of(args.data, args.images, args.runs)
    all_of(
        trials(args.epochs, args.size, args.stem, args.batch),
        dict.fromkeys(range(args.seeds), data),
        args.runs,
        args.result,
        title=f"R-SeNet's ablation on {named} at {args.size}×{args.size}",
        command=command(__file__, parser, args),
        note=f"{args.epochs:g} epochs, {args.seeds} seeds, network of the last epoch; "
        f"the paper's Table 8: {printed}",
        val_share=0,
    )


if __name__ == "__main__":
    main()
