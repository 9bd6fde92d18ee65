"""What commands print with `--json`, and leave as such files: field by field, to be read again.

`manifests` says the same of the files that commands read; here stands what a report is made of.
"""

from typing import Any, NotRequired, TypedDict

from leancnn import manifests
from leancnn.manifests import Count, Names, Number, Share


class Made(TypedDict, total=False):
    """How a saved network came to be, as far as a report says it."""

    data: str
    val_accuracy: Share | None
    quantized: dict[str, Any]


class SavedNetwork(manifests.Saved):
    """network.json"""

    counts: NotRequired[dict[str, Count]]


class Finding(TypedDict):
    kind: str
    text: str
    files: Names


class Check(TypedDict):
    """`leancnn check --json`"""

    ok: bool
    source: str
    kind: str
    counts: dict[str, dict[str, Count]]
    modes: dict[str, Count]
    sizes: dict[str, Count]
    problems: list[Finding]
    warnings: list[Finding]


class BenchRow(TypedDict):
    model: str
    engine: str
    median_us: Number
    low_us: Number
    high_us: Number
    p95_us: Number
    share_of_peak: Number | None
    peak_mb: Number | None
    artifact_bytes: Count
    startup_s: Number
    difference: Number
    agreement: NotRequired[Share | None]
    accuracy: NotRequired[Share | None]


class Absent(TypedDict):
    model: str
    engine: str
    reason: str


class Bench(TypedDict):
    """`leancnn bench --json`"""

    rows: list[BenchRow]
    winners: dict[str, str | None]
    summaries: dict[str, str]
    missing: list[Absent]


class ClassFigures(TypedDict):
    name: str
    images: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Mistake(TypedDict):
    file: str
    true: str
    answer: str
    probability: Share


class Evaluation(TypedDict):
    """`leancnn evaluate --json`"""

    network: str
    which: str
    data: str
    images: Count
    correct: Count
    accuracy: Share
    low: Share
    high: Share
    loss: Number
    classes: list[ClassFigures]
    confusion: list[list[Count]]
    uses: Count | None
    all_uses: Count | None
    changed: bool
    recut: bool
    skipped: Count
    copies: NotRequired[Names]
    unfinished: NotRequired[str]
    mistakes: NotRequired[list[Mistake]]
    pictures: NotRequired[list[Mistake]]


class KeptEvaluation(Evaluation, manifests.Pair):
    """evaluation-best.json, with the tensors of its pictures beside"""


class Finetuning(TypedDict):
    """Of quantization.json: a training in fake quantization, kept or not."""

    recipe: str
    epochs: Number
    lr: Number
    accuracy_int8: Share | None
    accuracy_int8_without: Share | None
    kept: bool


class Quantization(TypedDict):
    """quantization.json"""

    network: str
    out: str
    images: Count
    seed: int
    accuracy: Share | None
    accuracy_int8: Share | None
    val_images: Count
    bytes: Count
    bytes_int8: Count
    us: Number | None
    us_int8: Number | None
    layers: list[tuple[str, Number]]
    errors: NotRequired[list[tuple[str, Number]]]
    clipped: list[tuple[str, Share]]
    ten_bit: NotRequired[list[str]]
    floats: NotRequired[list[str]]
    finetuned: NotRequired[str | None]
    finetuning: NotRequired[Finetuning | None]
    points_lost: Number | None


class Plans(TypedDict):
    """`leancnn prune --json`"""

    folder: str
    plans: list[manifests.Pruning]


ComparisonRow = TypedDict(
    "ComparisonRow",
    {
        "network": str,
        "kind": str,
        "runs": Count,
        "before %": Number | str,
        "after %": Number,
        "trainable": Count,
        "MACs": Count,
        "epochs": Number,
    },
)


"""And µs and ± %, numbers or empty; msgspec finds no key of a TypedDict that is not ASCII."""


class Comparison(TypedDict):
    """comparison.json"""

    folder: str
    goal: dict[str, Number]
    images: Count
    means: list[ComparisonRow]
    left_out: Names
    conclusion: str


Session = TypedDict(
    "Session",
    {
        "source": str,
        "decoder": str,
        "decisions": Count,
        "decided": Count,
        "asked": Count,
        "correct": Count,
        "no decision": dict[str, Count],
        "latency ms": dict[str, Number] | None,
        "compute ms": dict[str, Number] | None,
        "seconds": Number,
        "ended": str | None,
    },
)
"""`leancnn eeg run --json`"""


class Baseline(TypedDict):
    name: str
    accuracy: Share
    won: Count
    lost: Count
    p: Number


EegEvaluation = TypedDict(
    "EegEvaluation",
    {
        "decoder": str,
        "split": str,
        "window": Number,
        "targets": list[Number],
        "trials": Count,
        "chance": Share,
        "accuracy": Share,
        "interval": tuple[Number, Number],
        "per person": dict[str, Share],
        "baselines": list[Baseline],
        "bits per minute": Number,
        "log loss": Number,
        "calibration error": Number,
        "undecided": list[dict[str, Number | None]],
        "shuffled": dict[str, Number | None],
    },
)
"""evaluation.json of an EEG run"""


class EegCheck(TypedDict):
    """`leancnn eeg check --json`"""

    source: str
    fit: bool
    problems: Names
    warnings: Names


class Decoder(manifests.Pair):
    """decoder.json of an EEG run"""

    data: str
    split: str
    window: Number
    decoder: str
    seed: int
    fs: Number
    channels: Names
    trials: Count
    people: Count
    leancnn: str
    quantized: NotRequired[dict[str, Any]]


class Front(TypedDict):
    """front.json of a search"""

    folder: str
    members: list[manifests.Member]
    winner: manifests.Member | None
    reached: bool
    sentence: str
    trials: Count
    failed: Count
    spent: Number
    budget: dict[str, Number | None]


class Rows(TypedDict):
    """A file of results/."""

    title: str
    command: str
    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    made: NotRequired[str]


KINDS: dict[str, Any] = {
    "check": Check,
    "bench": Bench,
    "evaluation": Evaluation,
    "quantization": Quantization,
    "plan": manifests.Pruning,
    "plans": Plans,
    "comparison": Comparison,
    "session": Session,
    "eeg-evaluation": EegEvaluation,
    "eeg-check": EegCheck,
    "front": Front,
    "rows": Rows,
}
"""Of a JSON value by its name; in this order, the first whose fields are all there."""
