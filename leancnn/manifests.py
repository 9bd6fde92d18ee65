"""What stands in every JSON file of ours, field by field, and the one check of it.

A file may come from a stranger: what is read is first held against its kind here, so that a list
in the place of an object or a size beyond reason is one `DamagedError` with the file and the field.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, is_typeddict

import msgspec
from msgspec import Meta

from leancnn.errors import DamagedError
from leancnn.renamed_keys import with_preprocessing

SIDE = 4096  # pixels; a larger image is no input of these networks
MOST = 2**53  # of a whole number that others count with
Count = Annotated[int, Meta(ge=0, le=MOST)]
Side = Annotated[int, Meta(ge=0, le=SIDE)]
Byte = Annotated[int, Meta(ge=0, le=255)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Names = Annotated[list[str], Meta(max_length=1_000_000)]
Values = Annotated[list[Annotated[float, Meta(ge=-1e6, le=1e6)]], Meta(max_length=64)]
Arguments = dict[str, Any]


class Preprocessing(TypedDict, total=False):
    size: tuple[Side, Side]
    scale: tuple[Side, Side]
    channels: int
    fit: str
    background: tuple[Byte, Byte, Byte]
    kind: str
    """Of a network's input, where it is no picture."""


class File(TypedDict):
    """The tensors beside a manifest."""

    name: str
    bytes: Count
    sha256: str


class Pair(TypedDict):
    """The manifest of a pair with checksums."""

    file: File
    tensors: dict[str, str]


class Saved(Pair):
    """network.json"""

    format: Count
    name: str
    arguments: Arguments
    classes: Names
    preprocessing: Preprocessing
    mean: Values
    std: Values
    made: dict[str, Any]
    quantized: NotRequired[dict[str, Any]]


class Plan(TypedDict):
    """What is decided before the first step, in run.json and in every checkpoint."""

    data: str
    data_sha256: dict[str, str]
    val_share: Share
    classes: Names
    images: Count
    model: str
    arguments: Arguments
    recipe: dict[str, Any]
    preprocessing: Preprocessing
    mean: Values
    std: Values
    seed: Seed
    split_seed: NotRequired[Seed | None]
    epochs_before: NotRequired[Number]
    backend: NotRequired[str]
    backend_why: NotRequired[str]
    engine: NotRequired[str]
    """Of 0.1, as `engine_why`: the backend."""
    engine_why: NotRequired[str]
    precision: str
    threads: Annotated[int, Meta(ge=1, le=4096)]
    processes: Annotated[int, Meta(ge=1, le=65536)]
    rule: NotRequired[dict[str, Any]]
    machine: dict[str, Any]
    save_every_s: Number
    save_every_steps: Count | None


class Epoch(TypedDict, total=False):
    """A row of metrics.jsonl."""

    epoch: Count
    step: Count
    lr: Number
    train_loss: Number
    train_accuracy: Share
    val_loss: Number | None
    val_accuracy: Share | None
    images: Count
    images_per_s: Number
    train_seconds: Number
    seconds: Number


class Counters(TypedDict, total=False):
    """Where a run stands."""

    step: Count
    epoch: Count
    loss: Number
    correct: Count
    right: Count
    """Of 0.1: correct."""
    seen: Count
    seconds: Number
    best: Number
    best_epoch: Count
    history: list[Epoch]


class Numbered(Pair):
    """checkpoints/step-XXXXXXXX.json, whatever it is a checkpoint of."""

    step: Count


class Checkpoint(Numbered):
    """That of a training."""

    plan: Plan
    counters: Counters


class Cut(TypedDict):
    """How a part was cut out of another."""

    names: NotRequired[str]


class Data(TypedDict):
    """Of run.json: the images of the run, of which the train and val parts were read."""

    source: str
    kind: NotRequired[str]
    classes: NotRequired[Names]
    parts: NotRequired[Names]
    counts: NotRequired[dict[str, dict[str, Count]]]
    sha256: NotRequired[dict[str, str]]
    cuts: NotRequired[dict[str, dict[str, Any]]]
    skipped: NotRequired[list[dict[str, str]]]
    notes: NotRequired[Any]


class Finetuned(TypedDict, total=False):
    """finetune.json: what the run in fake quantization beside it was asked for."""

    network: str
    recipe: str | dict[str, str]
    """Its fields; a name in earlier versions."""
    seed: int
    overrides: dict[str, str]
    """Of earlier versions."""


class RunFile(TypedDict, total=False):
    """run.json, for whom the plan does not concern."""

    format: Count
    plan: dict[str, Any]
    machine: dict[str, Any]
    data: Data
    warnings: Names
    notes: Names
    """Of 0.1: warnings."""
    began: str
    at: str
    state: str
    step: Count
    diverged: dict[str, Any]
    result: dict[str, Any]


class Run(TypedDict):
    """run.json, with its plan."""

    format: NotRequired[Count]
    plan: Plan
    machine: NotRequired[dict[str, Any]]
    data: NotRequired[Data]
    warnings: NotRequired[Names]
    notes: NotRequired[Names]
    began: NotRequired[str]
    at: NotRequired[str]
    state: NotRequired[str]
    step: NotRequired[Count]
    diverged: NotRequired[dict[str, Any]]
    result: NotRequired[dict[str, Any]]


class UseOfTestSet(TypedDict, total=False):
    """One use of a test set."""

    when: str
    which: str | None
    data: str
    sha256: str | None
    images: Count
    accuracy: Share
    weights: str


class Evaluations(TypedDict):
    """evaluations.json"""

    evaluations: list[UseOfTestSet]


class Layer(TypedDict):
    """Of a pruning: what a layer keeps."""

    path: str
    before: Count
    kept: list[Count]
    importance: NotRequired[list[Number]]


class Pruning(TypedDict):
    """plan.json"""

    network: str
    criterion: str
    goal: dict[str, Number]
    layers: list[Layer]
    before: dict[str, Count]
    after: dict[str, Count]
    microseconds: tuple[Number, Number] | None
    warnings: NotRequired[list[str]]
    notes: NotRequired[list[str]]
    """Of 0.1, as `told`: warnings and what was observed."""
    seed: NotRequired[Seed]
    within: NotRequired[list[str] | None]
    reconstructed: NotRequired[bool]
    mended: NotRequired[bool]
    """Of 0.1: reconstructed."""
    images: NotRequired[str | None]
    observed: NotRequired[dict[str, Any]]
    told: NotRequired[dict[str, Any]]


class Scores(Pair):
    """scores.json in the cache"""

    observed: dict[str, Any]


class ArtifactMetadata(TypedDict):
    """What stands beside an exported network."""

    name: NotRequired[str]
    classes: Names
    mean: Values
    std: Values
    preprocessing: NotRequired[Preprocessing]


class About(TypedDict):
    """What a compiled library says of itself."""

    prefix: str
    name: str
    classes: Annotated[int, Meta(ge=1, le=10_000_000)]
    image: tuple[Annotated[int, Meta(ge=1, le=65536)], Side, Side]
    scratch_bytes: NotRequired[Annotated[int, Meta(ge=1, le=2**40)]]
    dtype: NotRequired[Literal["uint8", "float32"]]
    about: NotRequired[dict[str, Any] | None]


class LatencyModel(TypedDict):
    """latency-model-….json in the cache: microseconds for a cycle of each kind of kernel."""

    factors: dict[str, Annotated[float, Meta(ge=0, le=1e6)]]
    median_error: Number
    worst_error: Number
    programs: Count
    fastest: Number


class Cycles(TypedDict):
    """cycles-….json in the cache: by shape, cycles of each kind of kernel."""

    shapes: dict[str, dict[str, Number]]


class Search(TypedDict):
    """search.json"""

    data: str
    data_sha256: dict[str, str]
    classes: Names
    images: Count
    val_images: Count
    val_share: Share | None
    budget: dict[str, Number | None]
    asked: dict[str, Any]
    seed: Seed
    rungs: Annotated[list[Count], Meta(min_length=1)]
    found: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    latency_model: NotRequired[dict[str, Any]]
    clock: NotRequired[dict[str, Any]]  # what the latency model was called first
    machine: dict[str, Any]
    tested: bool
    training_s: NotRequired[Number]
    pace: NotRequired[dict[str, Number]]
    format: Count


class Member(TypedDict):
    """front-N.json: what was measured of a trial of N epochs."""

    trial: Count
    network: str
    change: str
    epochs: Count
    val_accuracy: Share
    microseconds: Number
    low_us: Number
    high_us: Number
    predicted_us: Number | None
    bytes: Count
    macs: Count
    disturbed: Names
    test_accuracy: Share | None
    test_low: Share | None
    test_high: Share | None
    form: NotRequired[Literal["float32", "int8", "pruned"]]


class Costs(TypedDict):
    """What a network cost once it was cut: time as foreseen, bytes and MACs as counted."""

    microseconds: NotRequired[Number]
    bytes: Number
    macs: Number


class Rung(TypedDict):
    """rung-N.json: what a trial came to after N epochs."""

    number: Count
    epochs: Count
    accuracy: Share
    seconds: Number
    error: str
    lost: bool
    form: NotRequired[Literal["float32", "int8", "pruned"]]
    costs: NotRequired[Costs | None]


def check(value: Any, kind: Any, where: Path | str, *, closed: bool = False) -> Any:
    """`value` as it is, once it is what `kind` says.

    With `closed` an object must hold nothing else. Raises `DamagedError` with file and field.

    >>> check({"path": "fc", "before": 3, "kept": [0, 2]}, Layer, "plan.json")["kept"]
    [0, 2]
    """
    value = with_preprocessing(value)
    try:
        msgspec.convert(value, kind)
    except (msgspec.MsgspecError, RecursionError, OverflowError, ValueError) as error:
        raise DamagedError(f"{where} is not what leancnn writes: {error}") from error
    if closed and is_typeddict(kind):
        odd = sorted(map(str, value.keys() - kind.__annotations__.keys()))
        if odd:
            raise DamagedError(f"{where} is not what leancnn writes: it holds {odd[0]!r}, too")
    return value
