"""HENet r2 to r4 against ShuffleNet r2 to r5 under one recipe: the HENet paper's Table 3.

    python benchmarks/henet_table.py CIFAR [--epochs 50] [--seeds 1] [--networks henet_r3,…]
        [--images 10000] [--batch 64]

--images trains on a stratified subset and tests on the whole test part, --batch with other steps,
the rate with them. Writes results/network-henet-table.json, or -henet-table-IMAGES.json, after
every run.
"""

import argparse
from pathlib import Path

from experiment import Trial, all_of, chosen, command, share_of

ROOT = Path(__file__).parent.parent
PRINTED = {
    "henet_r2": 88.67,
    "henet_r3": 89.40,
    "henet_r4": 89.83,
    "shufflenet_r2": 87.07,
    "shufflenet_r3": 88.03,
    "shufflenet_r4": 88.23,
    "shufflenet_r5": 88.57,
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=float, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--recipe", default="henet-fast")
    parser.add_argument("--networks", default=",".join(PRINTED))
    parser.add_argument("--images", type=int, default=0, help="to train on; default: all")
    parser.add_argument("--batch", type=int, default=0, help="and the rate with it")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "henet-table")
    parser.add_argument("--result", type=Path)
    args = parser.parse_args()
    data, named = share_of(args.data, args.images, args.runs)
    usual = f"network-henet-table{f'-{args.images}' if args.images else ''}.json"
    recipe = chosen(args.recipe, batch=args.batch, epochs=args.epochs)
    networks = args.networks.split(",")
    title = "HENet against ShuffleNet" if len(networks) > 1 else networks[0]
    printed = ", ".join(f"{name} {PRINTED[name]}" for name in networks)
    all_of(
        [Trial(label=name, network=name, recipe=recipe) for name in networks],
        dict.fromkeys(range(args.seeds), data),
        args.runs,
        args.result or ROOT / "results" / usual,
        title=f"{title} on {named}",
        command=command(__file__, parser, args),
        note=f"{args.epochs:g} epochs of {args.recipe} with batches of {recipe.batch}, network of "
        f"the last epoch, seeds: {args.seeds}; the paper's Table 3, 166 epochs, the original "
        f"CIFAR-10: {printed}",
    )


if __name__ == "__main__":
    main()
