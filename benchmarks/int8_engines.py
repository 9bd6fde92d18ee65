"""Any precision: our C in floats and integers against what each engine offers, on one core.

    python benchmarks/int8_engines.py                      all networks; results/engines-int8.json
    python benchmarks/int8_engines.py henet_r3 resnet20    some; those of the file stay in it
    python benchmarks/int8_engines.py --files FOLDER --build; --files FOLDER   in two steps

ONNX Runtime in float32 and quantized by its own tool (QDQ, per channel, unsigned activations);
OpenVINO in float32, in the precision it takes by default (bfloat16 where the processor has it) and
quantized by NNCF through `convert_model` (a model read from a file keeps groups in float); our C
also built for AVX2 alone. `of peak` is the share of the products of bytes a core can do, measured
between the turns. Each in a process of its own with one thread, in turns; the ratio is taken turn
by turn. Weights are random: this is about time. `differ`: from PyTorch's logits, by their spread.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leancnn.bench import untrained
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.peak import IntegerPeak
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.count import count
from leancnn.parity import trial_images
from leancnn.runs import machine, now, write_json
from leancnn.tables import table
from leancnn.targets._c_text import to_c
from leancnn.targets.onnx import to_onnx
from leancnn.toolchain import FAST_FLAGS, PORTABLE_FLAGS, compile_library, find_compiler
from leancnn.weights import Network

RESULT = Path(__file__).parent.parent / "results" / "engines-int8.json"
BARS = {  # against the best engine at any precision, and against our own floats
    "henet_r2": (4.0, 1.7),
    "henet_r3": (4.0, 1.7),
    "henet_r4": (4.0, 1.7),
    "shufflenet_r3": (2.5, 1.4),
    "shufflenet_r5": (2.5, 1.4),
    "resnet8": (1.4, 1.4),
    "resnet20": (1.4, 1.4),
    "mobilenetv2": (1.3, 2.0),
    "shufflenetv2_x0_5": (1.3, 2.0),
    "lbmbnet32_r6": (1.3, 2.0),
    "nvmnet_g4": (1.2, 1.8),
    "rsenet": (1.2, 1.8),
    "squeezenet1_1": (1.2, 1.8),
}
CALIBRATION = 24  # made images
AVX2 = (*PORTABLE_FLAGS, "-mavx2", "-mfma")


def integers(network: Network, images: np.ndarray) -> Network:
    """A network in integers, its ranges from these images."""
    graph = simplify(
        import_torch(network.body, (network.preprocessing.channels, *network.preprocessing.size))
    )
    with torch.no_grad():
        normal = network.normalise(torch.from_numpy(images))
    made = quantize(graph, measure(graph, [normal]), network.mean, network.std)
    return network.with_body(IntegerNetwork(made), made={})


def artifacts(network: Network, images: np.ndarray, folder: Path) -> dict[str, Path]:
    """A file for each engine and precision."""
    found: dict[str, Path] = {}
    flags = FAST_FLAGS
    for kind, made in (("c", network), ("c-int8", integers(network, images))):
        written = to_c(made)
        found[kind] = compile_library(written.source, name=written.prefix, flags=flags)
        if platform.machine() in ("x86_64", "AMD64"):
            name = f"{written.prefix}_avx2"
            found[f"{kind}-avx2"] = compile_library(written.source, name=name, flags=AVX2)
    plain = folder / "float.onnx"
    plain.write_bytes(to_onnx(network))
    found["onnxruntime"] = plain
    found["onnxruntime-int8"] = by_onnxruntime(plain, images, folder)
    found |= by_nncf(plain, images, folder)
    return found


def by_onnxruntime(plain: Path, images: np.ndarray, folder: Path) -> Path:
    """A file quantized by ONNX Runtime's own tool on these images."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"image": image[None]} for image in images])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    ready, out = folder / "ready.onnx", folder / "int8.onnx"
    try:
        quant_pre_process(str(plain), str(ready))
    except TypeError:  # its symbolic shapes fail at the regions of R-SeNet
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
    q.quantize_static(
        str(ready),
        str(out),
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
    )
    return out


def by_nncf(plain: Path, images: np.ndarray, folder: Path) -> dict[str, Path]:
    """OpenVINO's files in floats, and quantized by NNCF on these images."""
    import nncf
    import openvino

    model = openvino.convert_model(str(plain))
    found = {"openvino": folder / "ov.xml", "openvino-int8": folder / "ov8.xml"}
    openvino.save_model(model, found["openvino"], compress_to_fp16=False)
    data = nncf.Dataset([image[None] for image in images])
    openvino.save_model(nncf.quantize(model, data, subset_size=len(images)), found["openvino-int8"])
    return found | {"openvino-default": found["openvino"]}


def prepared(kind: str, path: Path) -> Callable[[np.ndarray], Callable[[], Any]]:
    """An engine with a file, as a function from an image to the call that is timed."""
    if kind.startswith("c"):
        return CompiledNetwork(path).bare
    if kind.startswith("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        return lambda image: lambda: session.run(None, {"image": image})[0]
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    if kind == "openvino":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

    def call(image: np.ndarray) -> Callable[[], Any]:
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(image)))

        def run() -> Any:
            request.infer()
            return request.get_output_tensor().data

        return run

    return call


def work(kind: str, path: str, images: str) -> None:
    """A worker: logits first, then one turn for each number of seconds it reads."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = np.load(images)
    engine = prepared(kind, Path(path))
    answers = [np.array(engine(image[None])()).ravel().tolist() for image in given]
    run = engine(given[1:2])
    print(json.dumps(answers), file=out, flush=True)
    for line in sys.stdin:
        for _ in range(3):
            run()
        times: list[float] = []
        until = time.perf_counter() + float(line)
        while not times or time.perf_counter() < until:
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
        print(1e6 * statistics.median(times), file=out, flush=True)


def built(network: Network, images: np.ndarray, folder: Path) -> dict[str, Path]:
    """The artifacts in a folder, made unless it has them."""
    index = folder / "files.json"
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", images)
        made = artifacts(network, images, folder)
        index.write_text(json.dumps({kind: str(path) for kind, path in made.items()}))
    return {kind: Path(path) for kind, path in json.loads(index.read_text()).items()}


def timed(name: str, rounds: int, seconds: float, files_in: Path) -> Iterator[dict[str, Any]]:
    """One row for each engine and precision of a network; without rounds, only its files."""
    network = untrained(name)
    images = trial_images(network, CALIBRATION)
    folder = files_in / name
    files = built(network, images, folder)
    if not rounds:
        return
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    workers = {kind: _start(kind, path, folder / "images.npy") for kind, path in files.items()}
    outputs = {kind: np.array(json.loads(_line(worker))) for kind, worker in workers.items()}
    turns: dict[str, list[float]] = {kind: [] for kind in workers}
    peak, most = IntegerPeak(), []
    for _ in range(rounds):
        most.append(rate(peak))
        for kind, worker in workers.items():
            assert worker.stdin is not None
            print(seconds, file=worker.stdin, flush=True)
            turns[kind].append(float(_line(worker)))
    for worker in workers.values():
        worker.communicate()
    for kind, found in turns.items():
        answers = outputs[kind]
        if kind.startswith("c"):  # probabilities: their logarithms differ from logits by a number
            answers = np.log(np.maximum(answers, 1e-12))
        error = (answers - answers.mean(1, keepdims=True)) - (
            expected - expected.mean(1, keepdims=True)
        )
        differ = float(np.linalg.norm(error) / np.linalg.norm(expected - expected.mean(0)))
        row = {"network": name, "engine": kind, "turns_us": found, "differ": differ}
        if kind == "c-int8":
            row["of_peak"] = macs(network) / statistics.median(found) / statistics.median(most)
        yield row


def rate(peak: IntegerPeak) -> float:
    """Multiply-adds of bytes a microsecond that this core can do; the best of some calls."""
    times = []
    for _ in range(9):
        before = time.perf_counter()
        peak()
        times.append(time.perf_counter() - before)
    return peak.macs / (1e6 * min(times))


def macs(network: Network) -> float:
    """Multiply-accumulates of an image."""
    size = network.preprocessing.size
    return float(count(network.body, (network.preprocessing.channels, *size)).macs)


def _start(kind: str, path: Path, images: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--worker", kind, str(path), str(images)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def _line(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each network: our integers, the best other engine at any precision, our floats."""
    lines = []
    for name in dict.fromkeys(row["network"] for row in found):
        turns = {
            row["engine"]: np.array(row["turns_us"]) for row in found if row["network"] == name
        }
        middle = {kind: float(np.median(us)) for kind, us in turns.items()}
        best = min((kind for kind in turns if not kind.startswith("c")), key=middle.__getitem__)
        bars = BARS.get(name, (0.0, 0.0))
        of_peak = next(
            (row["of_peak"] for row in found if row["network"] == name and "of_peak" in row), None
        )
        lines.append(
            {
                "network": name,
                "int8 C µs": round(middle["c-int8"], 1),
                "of peak": None if of_peak is None else round(of_peak, 2),
                "float C µs": round(middle["c"], 1),
                "best other": best,
                "its µs": round(middle[best], 1),
                "times faster": round(float(np.median(turns[best] / turns["c-int8"])), 2),
                "at least": bars[0],
                "than our floats": round(float(np.median(turns["c"] / turns["c-int8"])), 2),
                "at least ": bars[1],
            }
        )
    return lines


def by_default(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Floats again, and the precision that OpenVINO takes by default; and both of ours for AVX2."""
    lines = []
    for name in dict.fromkeys(row["network"] for row in found):
        turns = {
            row["engine"]: np.array(row["turns_us"]) for row in found if row["network"] == name
        }
        middle = {kind: round(float(np.median(us)), 1) for kind, us in turns.items()}
        other = turns["openvino-default"]
        lines.append(
            {
                "network": name,
                "float C µs": middle["c"],
                "OpenVINO float32": middle["openvino"],
                "OpenVINO by default": middle["openvino-default"],
                "times faster": round(float(np.median(other / turns["c"])), 2),
                "float C, AVX2": middle.get("c-avx2"),
                "int8 C, AVX2": middle.get("c-int8-avx2"),
                "than our floats, AVX2": None
                if "c-avx2" not in turns
                else round(float(np.median(turns["c-avx2"] / turns["c-int8-avx2"])), 2),
            }
        )
    return lines


def kept(out: Path, anew: Sequence[str]) -> list[dict[str, Any]]:
    """What the file has of other networks, if the same machine and versions measured it."""
    if not out.is_file():
        return []
    there = json.loads(out.read_text(encoding="utf-8"))
    if there["machine"] != {**machine(), "threads": 1, **versions()}:
        return []
    return [row for row in there["engines"] if row["network"] not in anew]


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("networks", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--files", type=Path, help="keep what the engines run in this folder")
    parser.add_argument("--build", action="store_true", help="only make those files")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    names = args.networks or list(BARS)
    with tempfile.TemporaryDirectory() as folder:
        measure_all(names, args, args.files or Path(folder))


def measure_all(names: list[str], args: argparse.Namespace, folder: Path) -> None:
    """Each network, written down as soon as it is measured."""
    found = kept(args.out, names)
    for name in names:
        made = list(timed(name, 0 if args.build else args.rounds, args.seconds, folder))
        if not made:
            continue
        found = sorted(
            [*found, *made], key=lambda row: [*BARS, row["network"]].index(row["network"])
        )
        print(table(rows(made)), file=sys.stderr)
        done = list(dict.fromkeys(row["network"] for row in found))
        words = [*done, "--rounds", str(args.rounds), "--seconds", str(args.seconds)]
        facts = {
            "command": " ".join(["python benchmarks/int8_engines.py", *words]),
            "machine": {**machine(), "threads": 1, **versions()},
            "made": now(),
            "note": f"random weights, one thread, median of {args.rounds} turns",
        }
        title = f"One image on one core at any precision: our C in 8-bit integers{products()}"
        write_json(args.out, {"title": title, **facts, "rows": rows(found), "engines": found})
        title = f"Floats beside these integers{products()}, and what OpenVINO takes by default"
        beside = args.out.with_name(f"{args.out.stem}-default.json")
        write_json(beside, {"title": title, **facts, "rows": by_default(found)})
    print(table(rows(found)))


def products() -> str:
    """How this processor multiplies bytes: four at once, or in pairs that 16 bits must hold."""
    sets = str(machine().get("instructions", ""))
    return ", with VNNI" if "vnni" in sets else ", AVX2 alone" if "avx2" in sets else ""


def versions() -> dict[str, str]:
    """Of all that was timed."""
    packages = ("onnxruntime", "openvino", "nncf")
    return {"compiler": find_compiler().version} | {name: version(name) for name in packages}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:5])
    else:
        main()
