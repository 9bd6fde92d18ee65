"""`leancnn bench runs/a --engines c,onnxruntime`"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from leancnn.commands._base import Answer, Command, check_picture, register
from leancnn.errors import UsageError
from leancnn.plots import bench_picture
from leancnn.tables import table

COLUMNS = [
    "network", "engine", "median µs", "p95 µs", "of peak", "MB", "artifact bytes", "start s",
    "difference", "agrees", "accuracy", "not timed",
]  # fmt: skip
TOLD = ("agrees", "accuracy")  # columns of other precisions


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="runs or saved networks")
    parser.add_argument(
        "--model", metavar="NAMES", help="untrained networks by name, with commas; or all"
    )
    parser.add_argument(
        "--engines", dest="engines", metavar="ENGINES", help="with commas; default: all there are"
    )
    parser.add_argument("--rounds", type=int, default=12, help="turns of each engine, default 12")
    parser.add_argument("--seconds", type=float, default=0.15, help="of one turn, default 0.15")
    parser.add_argument(
        "--tune", type=float, metavar="SECONDS", help="first time register tiles of the C program"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "any"),
        default="float32",
        help="any: also in those that engines offer, with accuracy beside; default: float32",
    )
    parser.add_argument("--core", type=int, help="the core everything runs on; default: the first")
    parser.add_argument("--picture", metavar="PNG", help="draw the medians")


def run(args: Namespace) -> Answer:
    """Latencies of networks on engines, in turns on one core."""
    from leancnn.bench import ENGINES, bench, summary, to_json

    rows, missing = bench(
        _networks(args),
        engines=list(ENGINES) if args.engines is None else args.engines.split(","),
        rounds=args.rounds,
        seconds=args.seconds,
        core=args.core,
        tune=args.tune,
        precision=args.precision,
        progress=True,
    )
    shown = [*map(_figures, rows), *map(_gap, missing)]
    columns = COLUMNS if missing else COLUMNS[:-1]
    if args.precision != "any":
        columns = [name for name in columns if name not in TOLD]
    lines = [table(shown, columns)]
    for name in dict.fromkeys(row.model for row in rows):
        lines.append(f"{name}: {summary([row for row in rows if row.model == name])}")
    if args.picture:
        from leancnn.runs import atomic_write

        figures = to_json(rows, missing)["rows"]
        atomic_write(Path(args.picture), bench_picture(figures))
    # Without --engines what is not installed was not asked for.
    failed = [each for each in missing if args.engines is not None or not each.not_installed]
    return Answer(to_json(rows, missing), "\n".join(lines), int(bool(failed) or not rows))


def _networks(args: Namespace) -> list[Any]:
    """The saved networks, and those of the zoo with random weights."""
    from leancnn import models
    from leancnn.bench import untrained
    from leancnn.predict import open_classifier

    names = args.model.split(",") if args.model else []
    if names == ["all"]:
        names = models.names()
    if not names and not args.networks:
        raise UsageError("bench needs a saved network, or --model with names")
    check_picture(args, "picture")
    saved = (open_classifier(path) for path in args.networks)
    return [*saved, *(untrained(name) for name in names)]


def _figures(row: Any) -> dict[str, object]:
    return {
        "network": row.model,
        "engine": row.engine,
        "median µs": round(row.median_us, 1),
        "p95 µs": round(row.p95_us, 1),
        "of peak": "" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
        "MB": "" if row.peak_mb is None else round(row.peak_mb),
        "artifact bytes": row.artifact_bytes,
        "start s": round(row.startup_s, 2),
        "difference": f"{row.difference:.1e}",
        "agrees": "" if row.agreement is None else f"{row.agreement:.1%}",
        "accuracy": "" if row.accuracy is None else f"{row.accuracy:.1%}",
    }


def _gap(missing: Any) -> dict[str, object]:
    return {"network": missing.model, "engine": missing.engine, "not timed": missing.reason}


register(Command("bench", "time networks on several engines, one core", arguments, run))
