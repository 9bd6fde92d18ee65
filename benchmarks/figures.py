"""What the scripts of reliability figures share: the bound, and results/FAMILY-NN.json.

docs/reliability.md and docs/serve.md show those files; `make readme` writes their tables.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from leancnn import runs

RESULTS = Path(__file__).parent.parent / "results"


def at_most(failed: int, trials: int) -> str:
    """The 95 % upper bound of a share of failures where none was seen: the rule of three, 3 / N."""
    if failed or not trials:
        return ""
    share = min(3 / trials, 1.0)
    return f"{share:.2%}" if share >= 0.0001 else f"{share:.0e}"


def publish(
    figure: int,
    title: str,
    rows: Sequence[Mapping[str, object]],
    *,
    note: str,
    part: str = "",
    family: str = "reliability",
    **more: Any,
) -> Path:
    """Write a figure's file; rows hold what, trials, failed and the bound, the control last."""
    place = RESULTS / f"{family}-{figure:02d}{f'-{part}' if part else ''}.json"
    script = Path(sys.argv[0]).name
    value = {
        "title": f"Figure {figure}: {title}",
        "command": f"python benchmarks/{script} {shlex.join(sys.argv[1:])}".rstrip(),
        "machine": {**runs.machine(), "torch": torch.__version__},
        "made": runs.now(),
        "rows": list(rows),
        "note": note,
        **more,
    }
    runs.write_json(place, value)
    print(json.dumps(value["rows"], indent=1, ensure_ascii=False))
    return place
