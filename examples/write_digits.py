"""Handwritten digits as a folder of pictures: python examples/write_digits.py [folder]

The 1,797 digits that come with scikit-learn, enlarged to 32×32, one subfolder for each class.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import leancnn

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "photos")
digits = load_digits()
for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    place = folder / str(label)
    place.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((255 - 15.9 * pixels).astype(np.uint8)).convert("RGB")
    image.resize((32, 32), Image.Resampling.BICUBIC).save(place / f"{number:04}.png")
print(leancnn.check(folder).text())
