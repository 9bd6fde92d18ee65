"""Our C against the other engines, on the networks that have a bar to clear.

    python benchmarks/engines.py                            all of them; results/engines.json
    python benchmarks/engines.py henet_r3 shufflenet_r3     some

Each network runs on every engine that is installed, in turns on one core (see docs/bench.md). The
ratio is taken round by round, the best other engine's turn over ours beside it, and the median is
quoted with its quartiles: a machine that changes its speed changes both. The last lines are the
HENet paper's own claim, HENet r2 against ShuffleNet r5, native against native and each on its best
other engine.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import leancnn
from leancnn.bench import ENGINES, Missing, Row, bench, to_json, untrained
from leancnn.plots import bench_picture
from leancnn.runs import atomic_write, machine, now, write_json
from leancnn.tables import table
from leancnn.toolchain import find_compiler

RESULT = Path(__file__).parent.parent / "results" / "engines.json"
PICTURE = RESULT.parent.parent / "docs" / "engines.png"
BARS = {
    "henet_r2": 3.5,
    "henet_r3": 3.5,
    "henet_r4": 3.5,
    "shufflenet_r3": 2.0,
    "shufflenet_r5": 2.0,
    "rsenet": 1.4,
    "lbmbnet32_r6": 1.1,
    "nvmnet_g4": 1.1,
    "squeezenet1_1": 1.0,
    "mobilenetv2": 1.0,
    "shufflenetv2_x0_5": 1.0,
    "resnet8": 1.0,
    "resnet20": 1.0,
}
"""How many times faster than the best other engine ours has to be."""
PACKAGES = ("torch", "onnxruntime", "openvino", "ncnn", "ai-edge-litert")
PAPER = 0.347  # seconds of HENet r2 over those of ShuffleNet r5, HENet paper, Table 3


def ratios(rows: Sequence[Row]) -> list[dict[str, object]]:
    """For each network: ours, the best other, and the ratio beside its bar."""
    lines: list[dict[str, object]] = []
    for name in dict.fromkeys(row.model for row in rows):
        ours = [row for row in rows if (row.model, row.engine) == (name, "c")]
        others = [row for row in rows if row.model == name and row.engine != "c"]
        if ours and others:
            best = min(others, key=lambda row: row.median_us)
            share = ours[0].share_of_peak
            middle, low, high = ours[0].times_faster(best)
            lines.append(
                {
                    "network": name,
                    "C µs": round(ours[0].median_us, 1),
                    "of peak": None if share is None else round(share, 3),
                    "best other": best.engine,
                    "its µs": round(best.median_us, 1),
                    "times faster": round(middle, 2),
                    "quartiles": f"{low:.2f} to {high:.2f}",
                    "at least": BARS.get(name),
                }
            )
    return lines


def claim(lines: Sequence[dict[str, object]]) -> dict[str, float]:
    """Time of HENet r2 over ShuffleNet r5: ours, the other engines', and the paper's."""
    found = {line["network"]: line for line in lines}
    if not {"henet_r2", "shufflenet_r5"} <= found.keys():
        return {}
    first, second = found["henet_r2"], found["shufflenet_r5"]
    return {
        key: round(float(str(first[column])) / float(str(second[column])), 3)
        for key, column in (("native", "C µs"), ("best_other", "its µs"))
    } | {"paper": PAPER}


def versions() -> dict[str, str]:
    """Of all that was timed and is installed, and of the compiler."""
    found = {"leancnn": leancnn.__version__, "compiler": find_compiler().version}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("networks", nargs="*", default=list(BARS))
    parser.add_argument("--engines", "--on", dest="engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    rows: list[Row] = []
    missing: list[Missing] = []
    for name in args.networks or BARS:
        found, reasons = bench(
            [untrained(name)], engines=args.engines.split(","), rounds=args.rounds
        )
        rows += found
        missing += reasons
        print(table(ratios(found)), file=sys.stderr)
        keep(args, rows, missing)  # a stop loses one network
    lines = ratios(rows)
    print(table(lines))
    print(
        "\n".join([*map(str, missing), *(f"{key}: {value}" for key, value in claim(lines).items())])
    )


def keep(args: argparse.Namespace, rows: Sequence[Row], missing: Sequence[Missing]) -> None:
    """Write what there is so far."""
    lines = ratios(rows)
    some = args.networks if args.networks != list(BARS) else []
    engines = [] if args.engines == ",".join(ENGINES) else ["--engines", args.engines]
    words = [*some, *engines, "--rounds", str(args.rounds)]
    lacking = [f"missing: {reason}" for reason in missing]
    value: dict[str, Any] = {
        "title": "One image on one core: our C against the best other engine",
        "command": " ".join(["python benchmarks/engines.py", *words]),
        "machine": {**machine(), "threads": 1, **versions()},
        "made": now(),
        "rows": lines,
        "note": "; ".join(
            [
                f"float32, one thread, median of {args.rounds} turns; engines: {args.engines}",
                *lacking,
            ]
        ),
        "claim": claim(lines),
        "engines": to_json(rows, missing),
    }
    write_json(args.out, value)
    if args.out == RESULT:
        atomic_write(PICTURE, bench_picture(value["engines"]["rows"]))


if __name__ == "__main__":
    main()
