"""Images per second of our training step against the plain loop anyone would write.

    python benchmarks/training_speed.py       prints a table, writes results/training-speed-*.json

The plain loop is fp32 torch with the allocator as it comes. Ours keeps pages and runs forward and
backward in the vector lanes, as `leancnn train` does where the network allows. Same network, batch,
loss and optimiser on random images, threads as torch counts the cores; augmentation is in neither.
Each way runs in a process of its own, the processes take turns in rounds, and the median over
rounds is quoted.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

WAYS = ("plain", "plain, pages kept", "lanes fp32", "lanes bf16")
RESULT = Path(__file__).parent.parent / "results" / "training-speed.json"


def steps(way: str, network: str, batch: int, count: int) -> float:
    """Median images per second over `count` training steps, after two to warm up."""
    import torch
    from torch.nn import functional as F

    from leancnn import models
    from leancnn.cpu_training import accelerate
    from leancnn.process import keep_pages

    if way != "plain":
        keep_pages()
    body = models.create_model(network, seed=0).train()
    forward = accelerate(body, half=way.endswith("bf16")) if way.startswith("lanes") else body
    optimizer = torch.optim.SGD(
        body.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    source = torch.Generator().manual_seed(0)
    images = torch.randn(batch, *models.card(network).image, generator=source)
    labels = torch.randint(models.card(network).classes, (batch,), generator=source)
    seconds = []
    for _ in range(count + 2):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return batch / median(seconds[2:])


def measure(network: str, batch: int, rounds: int, count: int) -> dict[str, list[float]]:
    """Images per second of each way in each round."""
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            words = [sys.executable, __file__, "--way", way, "--network", network]
            words += ["--batch", str(batch), "--steps", str(count)]
            speeds[way].append(float(subprocess.check_output(words)))
            print(f"round {number + 1}: {way}: {speeds[way][-1]:,.0f}", file=sys.stderr)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="henet_r3")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--way", choices=WAYS, help="run this one and print its speed")
    asked = parser.parse_args()
    if asked.way:
        print(steps(asked.way, asked.network, asked.batch, asked.steps))
        return

    from leancnn.runs import machine, write_json

    speeds = measure(asked.network, asked.batch, asked.rounds, asked.steps)
    plain = median(speeds["plain"])
    rows = [
        {
            "way": way,
            "images/s": round(median(found)),
            "least": round(min(found)),
            "most": round(max(found)),
            "times plain": round(median(found) / plain, 2),
        }
        for way, found in speeds.items()
    ]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    result = RESULT.with_stem(f"training-speed-{asked.network}")
    write_json(
        result,
        {
            "title": f"Training speed of {asked.network}, batch {asked.batch}",
            "command": f"python benchmarks/training_speed.py --network {asked.network}",
            "machine": {**machine(), "torch": version("torch"), "threads": os.cpu_count()},
            "rows": rows,
            "note": f"training steps without augmentation, median of {asked.rounds} rounds",
        },
    )
    print(f"{result}; 'make readme' writes it into the tables", file=sys.stderr)


if __name__ == "__main__":
    main()
