"""Check a data set, then load it as arrays: python examples/look_at_data.py [folder]"""

import sys

import leancnn

source = sys.argv[1] if len(sys.argv) > 1 else "digits"
report = leancnn.check(source)
print("go" if report.ok else f"no go: {report.problems}")

preprocessing = leancnn.Preprocessing(size=(31, 31), scale=(32, 32), channels=3)
data = leancnn.load_dataset(source, preprocessing, parts=("train", "val"))
print(data.name, "with classes", ", ".join(data.classes))
for name, part in (("train", data.train), ("val", data.val)):
    print(f"{name:6}{part.images.shape} {part.images.dtype}, mean {part.images.mean():.1f}")
