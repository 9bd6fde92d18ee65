"""A network as machine code: compile, compare with PyTorch, write the C file and time it."""

import numpy as np

import leancnn
from leancnn.bench import untrained

network = untrained("shufflenet_r2")
classify = leancnn.compile(network)
images = (
    np.random.default_rng(0).integers(0, 256, (4, *network.preprocessing.shape)).astype(np.uint8)
)
print(classify(images, threads=2).argmax(1))

for path in leancnn.export(network, to="c", out="build"):
    print(path, path.stat().st_size, "bytes")

again = leancnn.CompiledNetwork(classify.path)  # the library alone is enough
print(again.name, again.classes[:2], (again(images) == classify(images)).all())

rows, missing = leancnn.bench([network], engines=["c"], rounds=2, seconds=0.02)
for row in rows:
    print(f"{row.model} on {row.engine}: {row.median_us:.0f} µs")
