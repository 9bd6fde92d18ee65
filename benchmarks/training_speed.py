"""Images per second of our training step against every faster way that torch itself has.

    python benchmarks/training_speed.py --all            results/training-speed.json, and a table
    python benchmarks/training_speed.py mobilenetv2      one network; the others' rows stay

The rivals are torch's plain calls, the same with channels last, both with bfloat16 autocast, and
with `--compiled` torch.compile; ours are SIMD batches that keep activations as floats or as
bfloat16. All have the allocator keep its pages. Same network, batch, loss and optimiser on random
images; augmentation is in none. Every way runs in a process of its own, ways take turns in rounds,
and a way's figure is its fastest step. The machine's peak is that of fused multiply-adds in
registers, measured here too; a training step counts as three forward passes. Memory is what a step
of the way adds to the process, at its highest, without the network's first allocation.

A way of torch that was far behind has no other turn, and bfloat16 where the processor is slow at it
is not tried with channels last too. Networks that stand in the result are kept, unless named: a run
that was stopped goes on where it was.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from leancnn import models
from leancnn.cpu_training import accelerate
from leancnn.process import keep_pages
from leancnn.runs import machine, write_json
from leancnn.toolchain import compile_library
from leancnn.train.backend import ChannelsLast

RESULT = Path(__file__).parent.parent / "results" / "training-speed.json"
NETWORKS: dict[str, tuple[int, int, float]] = {  # side, batch, and the times we aim at
    "henet_r3": (31, 128, 5),
    "shufflenet_r3": (31, 128, 4),
    "shufflenetv2_x0_5": (32, 128, 3),
    "mobilenetv2": (32, 64, 2.2),
    "rsenet": (64, 32, 2.2),
    "lbmbnet32_r6": (32, 64, 2),
    "nvmnet_g4": (64, 30, 2),
    "squeezenet1_1": (64, 32, 1.3),
    "resnet18": (64, 32, 1.3),
    "resnet20": (32, 128, 1.1),
}
OURS = {"floats": False, "bfloat16": True}
RIVALS = ("plain", "channels last", "bf16", "bf16, channels last")
COMPILED = "torch.compile"
HOPELESS = 1.4  # times the fastest way of torch: once is enough
PEAK = """
typedef float vec __attribute__((vector_size(%d)));
float simd_peak(long count) {
    vec sums[10], a = (vec){0} + 0.999f, b = (vec){0} + 0.001f;
    for (int i = 0; i < 10; i++) sums[i] = b;
    for (long k = 0; k < count; k++)
        for (int i = 0; i < 10; i++) sums[i] = sums[i] * a + b;
    float all = 0;
    for (int i = 0; i < 10; i++) all += sums[i][0];
    return all;
}
"""


def peak() -> float:
    """G multiply-adds a second of one core, in floats: the best of vectors of 32 and 64 bytes."""
    found = []
    for size in (32, 64):
        function = ctypes.CDLL(str(compile_library(PEAK % size, name="peak"))).simd_peak
        function.argtypes, function.restype = (ctypes.c_long,), ctypes.c_float
        count = 20_000_000
        for _ in range(3):
            started = time.perf_counter()
            function(count)
            found.append(count * 10 * size / 4 / (time.perf_counter() - started) / 1e9)
    return max(found)


def run(way: str, network: str, threads: int, count: int) -> tuple[float, float]:
    """Seconds of the fastest of some training steps after one to warm up, and MiB of memory."""
    side, batch, _ = NETWORKS[network]
    torch.set_num_threads(threads)
    body = models.create_model(network, seed=0).train()
    forward: Any = body
    if way in OURS:
        forward = accelerate(body, half=OURS[way], threads=threads).train()
    elif way == COMPILED:
        forward = torch.compile(body)
    elif way.endswith("channels last"):
        forward = ChannelsLast(body)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    source = torch.Generator().manual_seed(0)
    images = torch.randn(batch, models.card(network).image[0], side, side, generator=source)
    labels = torch.randint(models.card(network).classes, (batch,), generator=source)
    before = _resident()
    seconds = []
    for _ in range(count + 1):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=way.startswith("bf16")):
            logits = forward(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    if way in OURS and forward.why_not:
        raise SystemExit(f"{network}: {forward.why_not}")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return min(seconds[1:]), most - before


def _resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _child(pipe: Any, *words: Any) -> None:
    pipe.send(run(*words))


def in_own_process(*words: Any) -> tuple[float, float]:
    """`run` in a process of its own; infinite seconds where that fails."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(there, *words))
    process.start()
    there.close()
    try:
        return here.recv()  # type: ignore[no-any-return]
    except EOFError:
        return float("inf"), float("nan")
    finally:
        process.join()


def macs(network: str) -> float:
    """Multiply-adds of a forward pass of one image at the side that is measured here."""
    from leancnn.count import count

    side = NETWORKS[network][0]
    body = models.create_model(network, seed=0)
    return float(count(body, (models.card(network).image[0], side, side)).macs)


def row(network: str, threads: int, asked: argparse.Namespace, gigas: float) -> dict[str, Any]:
    """A network's line of the table, with its ways measured in turns."""
    side, batch, bar = NETWORKS[network]
    ways = [*RIVALS, *([COMPILED] if asked.compiled else []), *OURS]
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way in ways:
            if not _hopeless(way, found):
                found[way].append(in_own_process(way, network, threads, asked.steps))
                print(network, threads, way, found[way][-1], file=sys.stderr, flush=True)
    nothing = [(float("inf"), float("nan"))]
    found = {way: each or nothing for way, each in found.items()}
    seconds = {way: min(each)[0] for way, each in found.items()}
    memory = {way: min(each)[1] for way, each in found.items()}
    rival = min((way for way in ways if way not in OURS), key=seconds.__getitem__)
    ours = min(OURS, key=seconds.__getitem__)
    speed = 3 * macs(network) * batch / seconds[ours] / 1e9
    return {
        "network": network,
        "side": side,
        "batch": batch,
        "threads": threads,
        **{f"{way}, images/s": _rate(batch, seconds[way]) for way in ways},
        "fastest of torch": rival,
        "times it": round(seconds[rival] / seconds[ours], 2),
        "aimed at": bar,
        "G MAC/s": round(speed, 1),
        "peak of a core": round(gigas, 1),
        "of the peak %": round(100 * speed / (gigas * threads)),
        "memory of plain": round(memory[ours] / memory["plain"], 2),
    }


def _hopeless(way: str, found: dict[str, list[tuple[float, float]]]) -> bool:
    """Whether a way of torch was so slow that another turn would only take time."""
    best = min((min(found[each])[0] for each in RIVALS if found[each]), default=0.0)
    alike = found[way] or (found["bf16"] if way == "bf16, channels last" else [])
    return way not in OURS and bool(alike) and alike[0][0] > HOPELESS * best


def _rate(batch: int, seconds: float) -> float:
    return round(batch / seconds) if seconds < float("inf") else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", help="measured again, also where they stand")
    parser.add_argument("--all", action="store_true", help="all that do not stand in the result")
    parser.add_argument("--compiled", action="store_true", help="torch.compile is a rival too")
    parser.add_argument("--threads", type=int, help="default: 1, and all cores")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    asked = parser.parse_args()
    if unknown := set(asked.networks) - set(NETWORKS):
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    cores = os.cpu_count() or 1
    counts = [asked.threads] if asked.threads else sorted({1, cores})
    keep_pages()
    kept = json.loads(RESULT.read_text("utf-8"))["rows"] if RESULT.exists() else []
    stand = {(each["network"], each["threads"]) for each in kept}
    wanted = asked.networks or (list(NETWORKS) if asked.all else [])
    again = set(asked.networks)
    gigas = peak()
    print(f"one core: {gigas:.1f} G multiply-adds a second", file=sys.stderr)
    for network in wanted:
        for threads in counts:
            if (network, threads) in stand and network not in again:
                continue
            new = row(network, threads, asked, gigas)
            kept = [r for r in kept if (r["network"], r["threads"]) != (network, threads)] + [new]
            order = list(NETWORKS)
            kept.sort(key=lambda r: (r["threads"], order.index(r["network"])))
            _write(kept)
            print("  ".join(f"{key} {value}" for key, value in new.items()), flush=True)


def _write(rows: list[dict[str, Any]]) -> None:
    known = {**machine(), "torch": version("torch")}
    write_json(
        RESULT,
        {
            "title": "Training steps in SIMD batches and in torch",
            "command": "python benchmarks/training_speed.py --all",
            "machine": known,
            "rows": rows,
            "note": "floats and bfloat16 are ours, by what they keep; the fastest step of each "
            "way; peaks are G multiply-adds a second, of the run that the row is of",
        },
    )


if __name__ == "__main__":
    main()
