"""Train, measure, save, load, predict, report: python examples/train_digits.py [epochs] [folder]"""

import sys
from pathlib import Path

from PIL import Image

import leancnn

epochs = float(sys.argv[1]) if len(sys.argv) > 1 else 12
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/digits")

try:
    trained = leancnn.train("digits", recipe="digits", out=folder, overrides={"epochs": epochs})
except leancnn.LeanCNNError as error:  # a folder in use, a wrong name …
    sys.exit(f"train_digits: {error}")
print(f"{trained.images_per_s:.0f} images/s over {len(trained.history)} epochs")

tested = leancnn.evaluate(folder)
print(f"test accuracy {tested.accuracy:.1%}, 95 % interval {tested.low:.1%} to {tested.high:.1%}")

network = leancnn.load(folder)  # the best of the run, with its classes and its preprocessing
digits = leancnn.load_dataset("digits", network.preprocessing, parts=("test",)).test
Image.fromarray(digits.images[0, :, :, 0]).save(folder / "digit.png")
for prediction in leancnn.predict(network, folder / "digit.png"):
    print(f"{prediction.path}: {prediction.label} ({prediction.probability:.1%})")

print("all of it on one page:", leancnn.report(folder, folder / "report.html").out)
