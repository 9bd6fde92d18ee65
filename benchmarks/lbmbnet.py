"""LB-MBNet with 32 layers on CIFAR-10: the LB-MBNet paper's Table 2.

    python benchmarks/lbmbnet.py CIFAR [--expansions 6] [--epochs 30] [--seeds 1] [--images 10000]

r80 takes a GPU. --images trains on a stratified subset and tests on the whole test part. Writes
results/network-lbmbnet.json after every run.
"""

import argparse
from pathlib import Path

from experiment import Trial, all_of, chosen, command, share_of

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--expansions", type=int, nargs="+", default=[6])
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=0, help="to train on; default: all")
    parser.add_argument("--recipe", default="lbmbnet-fast")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "lbmbnet")
    where = ROOT / "results" / "network-lbmbnet.json"
    parser.add_argument("--result", type=Path, default=where)
    args = parser.parse_args()
    recipe = chosen(args.recipe, epochs=args.epochs)
    data, named = share_of(args.data, args.images, args.runs)
    all_of(
        [
            Trial(
                label=f"lbmbnet32_r{r}",
                network="lbmbnet32_r6",
                recipe=recipe,
                arguments={"expansion": r},
            )
            for r in args.expansions
        ],
        dict.fromkeys(range(args.seeds), data),
        args.runs,
        args.result,
        title=f"LB-MBNet-32 on {named}",
        command=command(__file__, parser, args),
        note=f"{args.epochs:g} epochs of {args.recipe}, seeds: {args.seeds}, network of the last "
        "epoch; the paper, 200 epochs: r6 92.88, r80 95.63",
    )


if __name__ == "__main__":
    main()
