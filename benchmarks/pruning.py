"""Pruning beside its rivals and its baselines: train, cut by each criterion, train again, compare.

    python benchmarks/pruning.py lbmbnet CIFAR [--wide 20] [--epochs 30] [--images 5000] [--seeds 2]
    python benchmarks/pruning.py resnet56 CIFAR [--criteria l1,bn_scale,fpgm,taylor,random]
    python benchmarks/pruning.py henet CIFAR [--epochs 60]
    python benchmarks/pruning.py clock [--engines c,onnxruntime]

lbmbnet: LB-MBNet-32 of expansion --wide to r = 6 and 3; the LB-MBNet paper's Table 3. resnet56: to
2.1 times fewer MACs, the field's yardstick. henet: henet_r4 to the MACs of henet_r3 and henet_r2,
beside those. clock: the networks that the others left under --runs, timed in turns on one core.

One network is trained, and cut and trained again for as many epochs with each criterion and seed,
no image set apart; accuracy is that of the last epoch on the whole test part. --images trains on a
stratified subset, --batch with other steps, --size (of lbmbnet) on smaller images. Writes
results/pruning-NAME.json after every row; `make readme` shows it in docs/pruning.md. A stopped
experiment goes on, and a finished training is not repeated.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from experiment import chosen, machine, share_of
from henet_table import PRINTED as HENET

from leancnn import models, runs, weights
from leancnn.bench import ENGINES
from leancnn.count import count
from leancnn.errors import LeanCNNError
from leancnn.export import writer
from leancnn.parity import WITHIN, difference, logits_of, trial_images
from leancnn.prune.compare import compare
from leancnn.prune.goal import GoalWords
from leancnn.prune.resume import same_recipe
from leancnn.prune.significance import Comparison, means
from leancnn.recipes import Recipe
from leancnn.tables import table as text_table
from leancnn.timed_worker import Worker
from leancnn.train import resume, train
from leancnn.weights import Network

ROOT = Path(__file__).parent.parent
RIVALS = ("l1", "bn_scale", "fpgm", "taylor", "random")
FEWER = 2.1  # times the MACs, where the field compares criteria on ResNet-56


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A network, what it is cut to, and what was published for each line of the table."""

    title: str
    network: str
    recipe: str
    goals: Mapping[str, GoalWords]
    """By name, which is that of its folder too, as `compare` takes them."""
    criteria: tuple[str, ...]
    baselines: Mapping[str, tuple[str, ...]]
    """By goal."""
    published: Mapping[tuple[str, str], str]
    """By goal and line, percent; the goal of the whole network is "whole"."""
    note: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def experiments(wide: int) -> dict[str, Experiment]:
    """All that train; `wide` is the expansion LB-MBNet begins with."""
    kernels = ("scratch", "kept_kernels", "random_kernels")
    macs = models.card("resnet56").macs
    smaller = ("henet_r3", "henet_r2")
    return {
        "lbmbnet": Experiment(
            title=f"LB-MBNet-32 of r = {wide}, pruned",
            network="lbmbnet32_r6",
            arguments={"expansion": wide},
            recipe="lbmbnet-fast",
            goals={"r6": {"expansion": 6}, "r3": {"expansion": 3}},
            criteria=("se_gate", *RIVALS),
            baselines={"r6": kernels, "r3": kernels},
            published={
                ("whole", "whole"): "95.63 (r80)",
                ("r6", "se_gate"): "94.90 (from r80)",
                ("r6", "scratch"): "92.88 (200 epochs)",
            },
            note="published: the LB-MBNet paper's Tables 2 and 3, original CIFAR-10, 200 epochs, "
            "and 200 again after pruning, one run each; it has no 32-r3 (59-r3 from r80: 93.97)",
        ),
        "resnet56": Experiment(
            title=f"ResNet-56 with {FEWER} times fewer MACs",
            network="resnet56",
            recipe="small-fast",
            goals={f"{FEWER}x": {"macs": macs / FEWER}},
            criteria=RIVALS,
            baselines={f"{FEWER}x": ("scratch",)},
            published={
                (f"{FEWER}x", "l1"): "−0.60",
                (f"{FEWER}x", "bn_scale"): "−0.24",
                (f"{FEWER}x", "fpgm"): "−0.33 at 1.7×",
            },
            note=f"published: changes in points at {FEWER} times fewer MACs, original CIFAR-10; "
            "SFP, which is not here, −0.23. Others choose each layer's share by hand or by the "
            "criterion; here all layers keep the same",
        ),
        "henet": Experiment(
            title="HENet r4, pruned to the MACs of r3 and r2",
            network="henet_r4",
            recipe="henet-fast",
            goals={name: {"macs": float(models.card(name).macs)} for name in smaller},
            criteria=("l1", "taylor", "random"),
            baselines={name: (name, "scratch") for name in smaller},
            published={
                ("whole", "whole"): f"{HENET['henet_r4']}",
                **{(name, name): f"{HENET[name]}" for name in smaller},
            },
            note="published: the HENet paper's Table 3, 166 epochs of the original CIFAR-10",
        ),
    }


def whole(experiment: Experiment, data: Path, recipe: Recipe, folder: Path) -> Path:
    """The run that is pruned, trained to its end."""
    if runs.is_run(folder):
        same_recipe(folder, recipe)
        resume(folder)
    else:
        train(
            data,
            model=experiment.network,
            arguments=experiment.arguments,
            recipe=recipe,
            out=folder,
            val_share=0,
        )
    return folder


def table(experiment: Experiment, found: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    """The whole network once, then each goal's criteria and baselines."""
    lines: list[dict[str, Any]] = []
    for goal, comparison in found.items():
        averages = means(comparison.rows)
        for line in averages[1:] if lines else averages:
            at = "whole" if line["kind"] == "whole" else goal
            lines.append(
                {
                    "cut to": at,
                    "network": line["network"],
                    **{key: line[key] for key in ("runs", "before %", "after %", "± %")},
                    "change": round(line["after %"] - averages[0]["after %"], 2),
                    **{key: line[key] for key in ("epochs", "trainable", "MACs")},
                    "published": experiment.published.get((at, line["network"]), ""),
                }
            )
    return lines


def keep(
    path: Path,
    experiment: Experiment,
    recipe: Recipe,
    command: str,
    how: str,
    found: Mapping[str, Comparison],
) -> None:
    """Write what there is so far: the table, every run, and what each concludes."""
    keys = ("goal", "images", "rows", "left_out", "conclusion")
    conclusions = [f"{goal}: {comparison.conclusion}" for goal, comparison in found.items()]
    runs.write_json(
        path,
        {
            "title": experiment.title,
            "command": command,
            "machine": machine(),
            "made": runs.now(),
            "rows": table(experiment, found),
            "note": "; ".join([how, experiment.note, *conclusions]),
            "runs": {goal: {key: asdict(c)[key] for key in keys} for goal, c in found.items()},
            "recipe": {"arguments": dict(experiment.arguments), **recipe.to_json()},
        },
    )


def run(experiment: Experiment, args: argparse.Namespace, command: str) -> None:
    """Train, prune to each goal, and keep every row."""
    recipe = chosen(  # one precision for all
        experiment.recipe, batch=args.batch, epochs=args.epochs, precision="fp32"
    )
    if args.size:
        recipe = recipe.changed(size=(args.size, args.size), shift=recipe.shift * args.size // 32)
    home = args.runs / f"{args.name}-{command_words(args, short=True)}"
    data, on = share_of(args.data, args.images, args.runs)
    at = f" at {args.size}×{args.size}" if args.size else ""
    how = (
        f"trained on {on}{at}, {args.epochs:g} epochs of {experiment.recipe} with batches of "
        f"{recipe.batch} and a peak rate of {recipe.lr:g} before the cut and after it; one "
        "network was cut, seeds are of what follows; last epoch, whole test part"
    )
    path = whole(experiment, data, recipe, home / "whole")
    found: dict[str, Comparison] = {}

    def on_row(goal: str, comparison: Comparison) -> None:
        found[goal] = comparison
        keep(args.result, experiment, recipe, command, how, found)
        row = comparison.rows[-1]
        print(f"{goal}: {row.label}, seed {row.seed}: {row.after:.2%}", flush=True)

    for goal, wanted in experiment.goals.items():
        compare(
            path,
            out=home / goal,
            criteria=args.criteria.split(",") if args.criteria else experiment.criteria,
            baselines=experiment.baselines[goal],
            seeds=args.seeds,
            data=data,
            timed=False,
            on_row=partial(on_row, goal),
            **wanted,
        )
    print(text_table(table(experiment, found)))


def command_words(args: argparse.Namespace, *, short: bool = False) -> str:
    """The options that make an experiment what it is; `short` as part of a folder's name."""
    wide = [f"r{args.wide}" if short else f"--wide {args.wide}"] if args.name == "lbmbnet" else []
    if short:
        other = [f"{key}{n}" for key, n in (("b", args.batch), ("s", args.size)) if n]
        return "-".join([*wide, str(args.images or "all"), f"{args.epochs:g}", *other])
    images = [f"--images {args.images}"] if args.images else []
    criteria = [f"--criteria {args.criteria}"] if args.criteria else []
    other = [f"--{key} {n}" for key, n in (("batch", args.batch), ("size", args.size)) if n]
    more = [f"--epochs {args.epochs:g}", *other, f"--seeds {args.seeds}", *criteria]
    return " ".join([args.name, args.data.name, *wide, *images, *more])


# The clock


def pruned(home: Path) -> dict[str, Path]:
    """The networks of one experiment: the whole one, and at each goal the first criterion's.

    Other networks that were its baselines stand beside it.
    """
    found = {"whole": home / "whole"}
    for path in sorted(home.glob("*/comparison.json")):
        rows = runs.read_json(path)["rows"]
        labels = [row["label"] for row in rows if row["kind"] == "criterion"][:1]
        labels += [row["label"] for row in rows if row["label"] in models.names()]
        for label in dict.fromkeys(labels):
            name = label if label in models.names() else f"{path.parent.name} by {label}"
            found[name] = path.parent / f"{label}-seed0"
    return found


def times(
    networks: Mapping[str, Network], engines: Sequence[str], rounds: int, folder: Path
) -> tuple[dict[tuple[str, str], list[float]], list[str]]:
    """By network and engine, the median of each round in seconds, all in turns; what is missing."""
    workers: dict[tuple[str, str], Worker] = {}
    missing: list[str] = []
    core = min(os.sched_getaffinity(0))
    try:
        for label, network in networks.items():
            images = trial_images(network, 4)
            expected = logits_of(network, images)
            for engine in engines:
                place = folder / f"{len(workers)}-{engine}"
                place.mkdir()
                np.save(place / "images.npy", images)
                try:
                    artifact = writer(ENGINES[engine])(network, place)[0]
                    worker = Worker(ENGINES[engine], artifact, place / "images.npy", core)
                except LeanCNNError as why:
                    missing.append(f"{label} on {engine}: {why}")
                    continue
                workers[label, engine] = worker
                error = difference(np.array(worker.logits), expected)
                if not error <= WITHIN:
                    workers.pop((label, engine)).close()
                    missing.append(f"{label} on {engine}: its logits differ by {error:.2g}")
        turns: dict[tuple[str, str], list[float]] = {key: [] for key in workers}
        for _ in range(rounds):
            for key, worker in workers.items():
                turns[key].append(median(worker.time(0.15)))
    finally:
        for worker in workers.values():
            worker.close()
    return turns, missing


def clock_table(
    title: str, macs: Mapping[str, int], turns: Mapping[tuple[str, str], Sequence[float]]
) -> list[dict[str, Any]]:
    """How many times fewer MACs and less time than the first network, the median of the rounds."""
    first = next(iter(macs))
    lines = []
    for label, cost in macs.items():
        line: dict[str, Any] = {"experiment": title, "network": label, "MACs": cost}
        line["fewer MACs"] = round(macs[first] / cost, 2)
        for engine in dict.fromkeys(engine for _, engine in turns):
            mine, whole = turns.get((label, engine)), turns.get((first, engine))
            both = [a / b for a, b in zip(whole, mine, strict=True)] if mine and whole else []
            quarters = quantiles(both, n=4) if len(both) > 1 else [0.0, 0.0, 0.0]
            spread = (quarters[2] - quarters[0]) / 2
            line[f"{engine} µs"] = round(1e6 * median(mine), 1) if mine else ""
            line[f"{engine}, times faster"] = round(median(both), 2) if both else ""
            line[f"± {engine}"] = round(spread, 2) if both else ""
        lines.append(line)
    return lines


def clock(args: argparse.Namespace) -> None:
    """Time what the other experiments left."""
    engines = args.on.split(",")
    lines: list[dict[str, Any]] = []
    missing: list[str] = []
    kept: dict[str, dict[str, list[float]]] = {}
    for home in sorted({path.parent.parent for path in args.runs.glob("*/*/comparison.json")}):
        networks = {label: weights.load(path, "last") for label, path in pruned(home).items()}
        sizes = {k: (n.preprocessing.channels, *n.preprocessing.size) for k, n in networks.items()}
        macs = {label: count(n.body, sizes[label]).macs for label, n in networks.items()}
        with tempfile.TemporaryDirectory() as folder:
            turns, why = times(networks, engines, args.rounds, Path(folder))
        lines += clock_table(home.name, macs, turns)
        kept[home.name] = {
            f"{label} on {engine}": [round(1e6 * turn, 1) for turn in them]
            for (label, engine), them in turns.items()
        }
        missing += why
        runs.write_json(
            args.result,
            {
                "title": "Does the clock follow the MACs?",
                "command": f"python benchmarks/pruning.py clock --engines {args.on} "
                f"--rounds {args.rounds}",
                "machine": {**machine(), "threads": 1},
                "made": runs.now(),
                "rows": lines,
                "rounds_us": kept,
                "note": f"one image on one core, median of {args.rounds} rounds in which all "
                "networks and engines of an experiment take turns; times faster: the median of the "
                "rounds' ratios; ± half the distance of the rounds' quartiles"
                + "".join(f"; {text}" for text in missing),
            },
        )
    if not lines:
        raise SystemExit(f"{args.runs} holds no experiment; run lbmbnet, resnet56 or henet first")
    print("\n".join([text_table(lines), *missing]))


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*experiments(6), "clock"])
    parser.add_argument("data", type=Path, nargs="?", help="not for clock")
    parser.add_argument("--wide", type=int, default=20, help="expansion of the whole LB-MBNet")
    parser.add_argument("--epochs", type=float, default=30, help="before the cut, and again after")
    parser.add_argument("--images", type=int, default=0, help="to train on; default: all")
    parser.add_argument("--batch", type=int, default=0, help="and the rate with it")
    parser.add_argument("--size", type=int, default=0, help="side of the images; default: 32")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--criteria", help="with commas; the conclusion is about the first")
    parser.add_argument(
        "--engines", "--on", dest="on", default="c,onnxruntime", help="engines of clock"
    )
    parser.add_argument("--rounds", type=int, default=12, help="of clock")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "pruning")
    parser.add_argument("--result", type=Path, help="default: results/pruning-NAME.json")
    args = parser.parse_args()
    args.result = args.result or ROOT / "results" / f"pruning-{args.name}.json"
    if args.name == "clock":
        clock(args)
    elif args.size and args.name != "lbmbnet":
        parser.error("--size is for lbmbnet: the other goals are MACs at 32×32")
    elif args.data is None:
        parser.error(f"{args.name} needs a folder of images")
    else:
        command = f"python benchmarks/pruning.py {command_words(args)}"
        run(experiments(args.wide)[args.name], args, command)


if __name__ == "__main__":
    main()
