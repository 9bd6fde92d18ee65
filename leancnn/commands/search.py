"""`leancnn search photos/ --time 150us --bytes 100k --hours 2 --out runs/search`"""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from leancnn.commands._base import Answer, Command, above, register, size
from leancnn.errors import UsageError
from leancnn.tables import printable

UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
LONGEST_S = 3600.0  # for one image


def time_of(text: str) -> float:
    """`150us`, `1.5ms` or `0.002` in seconds."""
    found = re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?)\s*([a-zµμ]*)", text.strip().lower())
    try:
        value = float(found[1]) * UNITS[found[2]] if found else 0.0
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value <= LONGEST_S:
        raise ArgumentTypeError(f"'{text}' is no time such as 150us, 1.5ms or 0.002s")
    return value


def share(text: str) -> float:
    """`0.95` or `95%` as a share."""
    number = text.strip()
    try:
        value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"'{text}' is no share such as 0.95 or 95%")
    return value


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", help="a folder of images in class folders, or 'digits'")
    _budget_arguments(parser)
    parser.add_argument("--hours", type=float, help="of training, all calls together")
    parser.add_argument(
        "--out", metavar="FOLDER", help="a new folder, or that of a search to go on"
    )
    _space_arguments(parser)
    parser.add_argument("--epochs", type=int, help="the longest training; default: by the hours")
    parser.add_argument("--val-share", type=float, help="of the train part, for validation")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; default 0")
    _machine_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="which networks can meet the budget, by the latency model",
    )
    parser.add_argument("--classes", type=int, help="with --dry-run, without data; default 10")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _budget_arguments(parser: ArgumentParser) -> None:
    """What the network may cost, and must reach."""
    limits = parser.add_argument_group("budget")
    limits.add_argument(
        "--time", type=time_of, help="at most so long for one image on one core, as 150us"
    )
    limits.add_argument("--bytes", type=above(0), help="the most bytes of weights, as 100k")
    limits.add_argument("--macs", type=above(0), help="the most multiply-accumulates, as 8e6")
    limits.add_argument("--accuracy", type=share, help="at least this share correct, as 0.95")


def _space_arguments(parser: ArgumentParser) -> None:
    """Which networks are searched among."""
    parser.add_argument(
        "--networks", metavar="NAMES", help="to search among, as henet_r3,resnet8; default: all"
    )
    parser.add_argument(
        "--size",
        type=size,
        action="append",
        metavar="HxW",
        help="of the images; may be given again; default: each network's own and a few more",
    )
    parser.add_argument(
        "--floats-only", action="store_true", help="no network of 8-bit integers may win"
    )
    parser.add_argument(
        "--no-pruning", action="store_true", help="train narrow networks; prune no wide ones"
    )


def _machine_arguments(parser: ArgumentParser) -> None:
    """Where networks are timed and trained."""
    parser.add_argument(
        "--clock-on",
        metavar="COMMAND",
        help="times a C file on the machine whose time counts, and prints seconds; default: here",
    )
    parser.add_argument("--workers", type=int, help="trainings at a time; default: one a core")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="train on a Ray cluster: ray://head:10001, or 'local' for one of this machine",
    )


def run(args: Namespace) -> Answer:
    """Search for the network that fits, or with --dry-run say which could."""
    _check(args)
    from leancnn.search import Budget, can_meet, search

    budget = Budget(
        microseconds=None if args.time is None else 1e6 * args.time,
        bytes=args.bytes,
        macs=args.macs,
        accuracy=args.accuracy,
    )
    named = None if args.networks is None else [each for each in args.networks.split(",") if each]
    where: dict[str, Any] = {"sizes": args.size, "networks": named, "clock_on": args.clock_on}
    where["progress"] = not args.quiet
    if args.dry_run:
        classes = args.classes if args.data is None else _classes(args.data)
        answer = can_meet(
            budget,
            classes=classes or 10,
            integers=False if args.floats_only else None,
            pruning=not args.no_pruning,
            **where,
        )
        return Answer(answer.to_json(), answer.text())
    found = search(
        args.data,
        out=args.out,
        hours=args.hours,
        budget=budget,
        epochs=args.epochs,
        seed=args.seed,
        val_share=args.val_share,
        integers=not args.floats_only,
        pruning=not args.no_pruning,
        pool=_pool(args),
        **where,
    )
    place = printable(found.folder)
    text = f"{found.text()}\nthe front: {place}/front.png, front.json"
    if found.winner is not None:
        text += f"\nthe network and its C file: {place}/winner"
    return Answer(found.to_json(), text, 0 if found.reached else 1)


def _check(args: Namespace) -> None:
    """Refuse words that do not go together."""
    if args.dry_run:
        given = [
            word
            for word in ("hours", "out", "epochs", "workers", "cluster")
            if getattr(args, word) is not None
        ]
        if given:
            raise UsageError(f"--dry-run trains nothing; leave out --{given[0]}")
        if args.classes is not None and args.data is not None:
            raise UsageError("the data say how many classes there are; leave out --classes")
        return
    if args.classes is not None:
        raise UsageError("--classes is for --dry-run without data")
    if args.data is None:
        raise UsageError("search needs a folder of images, or --dry-run")
    for word, what in (("hours", "how long it may train"), ("out", "where its files go")):
        if getattr(args, word) is None:
            raise UsageError(f"search needs --{word}: {what}")
    if args.cluster == "slurm":
        raise UsageError(
            "slurm itself is not spoken to: start Ray within a job of yours ('ray start --head' on "
            "one node, 'ray start --address' on the others) and give --cluster ray://HEAD:10001"
        )
    if args.epochs is not None and args.epochs < 1:
        raise UsageError(f"--epochs is 1 or more, not {args.epochs}")


def _classes(data: str) -> int:
    from leancnn.data import open_source

    return len(open_source(data).classes)


def _pool(args: Namespace) -> Any:
    from leancnn.search.pool import LocalPool

    if args.cluster is not None:
        from leancnn.search.ray_pool import RayPool

        if args.workers is not None and args.workers < 1:
            raise UsageError(f"--workers is 1 or more, not {args.workers}")
        return RayPool(args.cluster, args.workers)
    cores = LocalPool().cores
    many = len(cores) if args.workers is None else args.workers
    if not 1 <= many <= len(cores):
        raise UsageError(f"--workers is 1 to {len(cores)}, the cores of this process, not {many}")
    return LocalPool(cores[:many])


register(Command("search", "find the network that keeps a budget", arguments, run))
