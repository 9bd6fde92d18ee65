"""Figure 18: coverage-guided fuzzing of what reads foreign bytes; a crash is a traceback or a hang.

    python benchmarks/fuzz.py images --seconds 600       decode, and the way to a network's input
    python benchmarks/fuzz.py manifests --seconds 600    network.json, plans and recipes
    python benchmarks/fuzz.py onnx --seconds 600         the importer of ONNX files

Needs `pip install atheris`. Each target runs in a process of its own, so that a crash of a C
library is counted too; an input that takes more than 20 s or 2 GB is one. Before, the control: a
fault that is put in must be found within a minute; `--control` measures that alone again. What a
run found is written to results/reliability-18-TARGET.json, and inputs that crash stay in runs/fuzz.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SLOWEST_S = 20
MOST_MB = 2048
LONGEST = {"images": 16384, "manifests": 512, "onnx": 4096}  # bytes of an input
WHAT = {
    "images": "image files: decode and resize",
    "manifests": "network.json, plans and recipes, sealed after each change",
    "onnx": "ONNX files: import into the compiler's graph",
}


def image_seeds(folder: Path) -> None:
    """Small images of every format, and odd ones."""
    sys.path.insert(0, str(ROOT / "tests"))
    from oddities import odd_files

    with tempfile.TemporaryDirectory() as made:
        for number, case in enumerate(odd_files(Path(made), 1)):
            if case.path.is_file() and case.path.stat().st_size < LONGEST["images"]:
                (folder / f"seed-{number}").write_bytes(case.path.read_bytes())


def images(work: Path) -> Callable[[bytes], None]:
    """Bytes as an image file."""
    from leancnn.errors import LeanCNNError
    from leancnn.preprocess import Preprocessing

    preprocessing = Preprocessing(size=(31, 31), channels=3)

    def one(data: bytes) -> None:
        try:
            found = preprocessing.read(data)
        except LeanCNNError as error:
            check_line(error)
            return
        assert found.image.shape == (31, 31, 3)

    return one


def onnx_seeds(folder: Path) -> None:
    """Small networks of the zoo and of ONNX's helpers."""
    import onnx
    from onnx import TensorProto, helper

    from leancnn.bench import untrained
    from leancnn.targets.onnx import to_onnx

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 3, 3, 3], [0.1] * 54)
    chains: list[list[Any]] = [
        [helper.make_node("Flatten", ["x"], ["y"])],
        [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])],
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("Softmax", ["d"], ["y"]),
        ],
        [
            helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2]),
            helper.make_node("Sigmoid", ["a"], ["b"]),
            helper.make_node("Mul", ["a", "b"], ["c"]),
            helper.make_node("ReduceMean", ["c"], ["y"], axes=[2, 3], keepdims=0),
        ],
    ]
    for number, nodes in enumerate(chains):
        graph = helper.make_graph(nodes, "g", [x], [y], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        (folder / f"seed-{number}").write_bytes(model.SerializeToString())
    whole = onnx.load_from_string(to_onnx(untrained("henet_r2")))
    (folder / "seed-henet").write_bytes(whole.SerializeToString())


def onnx(work: Path) -> Callable[[bytes], None]:
    """Bytes as an ONNX file."""
    from leancnn.compiler.import_onnx import import_onnx
    from leancnn.errors import LeanCNNError

    path = work / "fuzzed.onnx"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            import_onnx(path)
        except LeanCNNError as error:
            check_line(error)

    return one


VALUES = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, -0.5, 1e308, 1e-320, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "../../x", "henet_r2", "x" * 5000, [], {}, [[]], [1, 2],
    [0, 0], [1e9, 1e9], {"a": 1}, ["a", "b"], [["a"]], {"size": [10**6, 10**6]},
]  # fmt: skip


def manifest_seeds(folder: Path) -> None:
    """Bytes that choose what is changed, and to what."""
    for number in range(64):
        (folder / f"seed-{number}").write_bytes(bytes([number, 1, number % 7, number, 3, 9, 12]))


def manifests(work: Path) -> Callable[[bytes], None]:
    """Bytes that choose a manifest, places in it and values for them; digests fit."""
    import os

    import atheris

    os.fsync = lambda fd: None  # a file that is read at once need not outlast the power

    from leancnn import recipes, safe_files, weights
    from leancnn.bench import untrained
    from leancnn.errors import LeanCNNError
    from leancnn.train.plan import TrainingPlan

    weights.save(untrained("resnet8"), work / "net")
    network, tensors = safe_files.load_pair(
        work / "net" / weights.MANIFEST, work / "net" / weights.WEIGHTS
    )
    network = {key: network[key] for key in network if key not in ("file", "tensors", "sha256")}
    recipe = recipes.get("smoke").to_json()
    plan = json.loads((work / "plan.json").read_text(encoding="utf-8"))

    def as_network(value: Any) -> None:
        safe_files.save_pair(
            work / "net" / weights.MANIFEST, work / "net" / weights.WEIGHTS, value, tensors
        )
        weights.load(work / "net")

    def as_recipe(value: Any) -> None:
        (work / "recipe.json").write_text(json.dumps(value), encoding="utf-8")
        recipes.read(work / "recipe.json")

    ways: list[tuple[Any, Callable[[Any], Any]]] = [
        (network, as_network),
        (recipe, as_recipe),
        (plan, TrainingPlan.of_json),
    ]

    def one(data: bytes) -> None:
        chosen = atheris.FuzzedDataProvider(data)
        seed, read = ways[chosen.ConsumeIntInRange(0, len(ways) - 1)]
        value = json.loads(json.dumps(seed))
        for _ in range(chosen.ConsumeIntInRange(1, 4)):
            value = changed(value, chosen)
        if read is as_network and not isinstance(value, dict):
            return  # `save_pair` takes an object
        try:
            read(value)
        except LeanCNNError as error:
            check_line(error)
        except (ValueError, UnicodeEncodeError) as error:
            if "JSON" not in str(error) and not isinstance(error, UnicodeEncodeError):
                raise  # NaN and lone surrogates do not get as far as a file of ours

    return one


def changed(value: Any, chosen: Any) -> Any:
    """A JSON value with one place replaced, taken away or doubled."""
    if isinstance(value, dict) and value and chosen.ConsumeIntInRange(0, 9):
        key = sorted(value)[chosen.ConsumeIntInRange(0, len(value) - 1)]
        if chosen.ConsumeIntInRange(0, 9) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], chosen)}
    if isinstance(value, list) and value and chosen.ConsumeIntInRange(0, 3):
        place = chosen.ConsumeIntInRange(0, len(value) - 1)
        return [*value[:place], changed(value[place], chosen), *value[place + 1 :]]
    number = chosen.ConsumeIntInRange(0, len(VALUES) + 1)
    if number == len(VALUES):
        return chosen.ConsumeUnicode(8)
    return chosen.ConsumeInt(8) if number > len(VALUES) else VALUES[number]


def check_line(error: Exception) -> None:
    """What a user reads is one line of a bounded length with something in it."""
    text = str(error)
    assert text, "an error without a word"


TARGETS = {"images": images, "manifests": manifests, "onnx": onnx}
SEEDS = {"images": image_seeds, "manifests": manifest_seeds, "onnx": onnx_seeds}


class Seeded(Exception):  # noqa: N818 - it is no error of ours
    """The fault that the control puts in."""


def child(target: str, work: Path, seeded: bool, arguments: list[str]) -> None:
    """Fuzz until the time is over or something crashes; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["leancnn", "PIL"], enable_loader_override=False):
        one = TARGETS[target](work)

    @atheris.instrument_func
    def test(data: bytes) -> None:
        if seeded and data[5:7] == b"\x2a\x2a":  # no seed has it: two bytes to be guessed
            raise Seeded
        one(data)

    atheris.Setup([sys.argv[0], *arguments], test)
    atheris.Fuzz()


def fuzz(target: str, seconds: int, seeded: bool, kept: Path) -> dict[str, Any]:
    """Run a child until its time is over; goes on behind a crash, which is kept and counted."""
    corpus, crashes = kept / "corpus", kept / "crashes"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    SEEDS[target](corpus)
    end, inputs, found, first = time.monotonic() + seconds, 0, 0, None
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        prepare(target, Path(work))
        while (left := int(end - time.monotonic())) > 0:
            words = [
                f"-max_total_time={left}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MB}",
                f"-max_len={LONGEST[target]}", f"-artifact_prefix={crashes}/",
                "-print_final_stats=1", str(corpus),
            ]  # fmt: skip
            command = [sys.executable, __file__, "child", target, work, str(int(seeded)), *words]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            ran = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
            inputs += int(ran[-1]) if ran else 0
            if done.returncode == 0:
                continue
            found += 1
            first = time.monotonic() - started if first is None else first
            print(done.stderr[-1500:], file=sys.stderr)
            if seeded or found >= 10:
                break
    return {
        "inputs": inputs,
        "crashes": found,
        "seconds": round(time.monotonic() - started),
        "first_crash_s": None if first is None else round(first, 1),
        "corpus": len(list(corpus.iterdir())),
    }


def prepare(target: str, work: Path) -> None:
    """What a target needs that is better made outside the fuzzed process."""
    if target != "manifests":
        return
    sys.path.insert(0, str(ROOT))
    from leancnn.train import train
    from tests.tiny import RECIPE, make_pictures

    run = train(
        make_pictures(work / "data"), recipe=RECIPE.changed(epochs=0.5), out=work / "run",
        progress=False,
    ).folder  # fmt: skip
    plan = json.loads((run / "run.json").read_text(encoding="utf-8"))["plan"]
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def row(what: str, summary: dict[str, Any]) -> dict[str, object]:
    counts = {"trials": summary["inputs"], "failed": summary["crashes"]}
    return {"what": what, **counts, "at most (95 %)": ""}


def note(found: dict[str, Any], control: dict[str, Any]) -> str:
    return (
        f"atheris, {found['seconds']} s on one core, {found['corpus']} inputs kept for new "
        f"branches; a failure is an exception that is none of ours, a hang of {SLOWEST_S} s or "
        f"{MOST_MB:,} MB; the control's fault was found after {control['first_crash_s']} s"
    )


def anew(target: str, control: dict[str, Any]) -> None:
    """Put a control that was measured again into the results of the hour that stand."""
    from figures import RESULTS

    from leancnn.runs import write_json

    place = RESULTS / f"reliability-18-{target}.json"
    value = json.loads(place.read_text(encoding="utf-8"))
    value["rows"][-1] = row(value["rows"][-1]["what"], control)
    again = f"; the control by fuzz.py {target} --control"
    write_json(place, {**value, "control": control, "note": note(value["found"], control) + again})
    sys.exit(not control["crashes"])


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        target, work, seeded, *arguments = sys.argv[2:]
        child(target, Path(work), seeded == "1", arguments)
        return
    from figures import publish

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=tuple(TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument(
        "--control", action="store_true", help="only the control, put into the results that stand"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "fuzz")
    args = parser.parse_args()
    control = fuzz(args.target, 60, True, args.runs / f"{args.target}-control")
    if args.control:
        anew(args.target, control)
        return
    found = fuzz(args.target, args.seconds, False, args.runs / args.target)
    publish(
        18,
        f"fuzzing {WHAT[args.target]}",
        # inputs that grow from each other are no independent trials: no bound follows from them
        [row(WHAT[args.target], found), row("control: a fault at two bytes of the input", control)],
        part=args.target,
        note=note(found, control),
        found=found,
        control=control,
    )
    sys.exit(bool(found["crashes"]) or not control["crashes"])


if __name__ == "__main__":
    main()
