"""What the projects for boards share: the C of a network in little memory, a picture, and a program
in the words of Arduino, which is what Arduino's own tools and PlatformIO both build."""

from pathlib import Path

import numpy as np
import torch

from leancnn.compiled import CompiledNetwork
from leancnn.compiler.frame import GeneratedC, commented
from leancnn.modes import evaluating
from leancnn.runs import atomic_write
from leancnn.targets._base import EngineSession
from leancnn.targets._c_text import to_c
from leancnn.targets._compiled import loaded
from leancnn.toolchain import compile_library
from leancnn.weights import Network

PROGRAM = """// Classifies the picture stored beside it; prints class, probability and time.
#include <Arduino.h>
#include "@NAME@.h"
#include "picture.h"

alignas(64) static unsigned char scratch[@SCRATCH@];  // all the memory that the network needs
static float probabilities[@NAME@_classes];

void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 3000) {
  }
}

void loop() {
  const unsigned long before = micros();
  @NAME@_run(picture, probabilities, scratch);
  const unsigned long took = micros() - before;
  int best = 0;
  for (int i = 1; i < @NAME@_classes; i++)
    if (probabilities[i] > probabilities[best]) best = i;
  Serial.print(@NAME@_class_names[best]);
  Serial.print(' ');
  Serial.print(probabilities[best], 4);
  Serial.print(F(" in "));
  Serial.print(took);
  Serial.println(F(" us"));
  delay(1000);
}
"""


def sketch(network: Network) -> tuple[GeneratedC, dict[str, str]]:
    """The C of a network and the texts beside it: `program`, `picture`."""
    written = to_c(network, small=True)
    program = PROGRAM.replace("@NAME@", written.prefix)
    program = program.replace("@SCRATCH@", str(written.scratch_bytes))
    return written, {"program": program, "picture": picture(network)}


@torch.inference_mode()
def picture(network: Network) -> str:
    """A made picture as constant pixels, with the answer that the network gives it."""
    height, width = network.preprocessing.size
    y, x = np.mgrid[0:height, 0:width]
    rings = 128 + 127 * np.cos(0.5 * np.hypot(y - height / 2, x - width / 3))
    planes = [np.roll(rings, 3 * c, axis=1) for c in range(network.preprocessing.channels)]
    pixels = np.stack(planes, 2).astype(np.uint8)
    with evaluating(network):
        logits = network(torch.from_numpy(pixels[None]))[0]
    best = int(logits.argmax())
    words = commented(f"class {best}, {network.classes[best]}, logit {float(logits[best]):.5f}")
    rows = [", ".join(map(str, row.ravel())) + "," for row in pixels]
    return (
        f"/* {height}x{width}x{network.preprocessing.channels} pixels; "
        f"{network.name} answers {words} */\n"
        "#include <stdint.h>\nstatic const uint8_t picture[] = {\n    "
        + "\n    ".join(rows)
        + "\n};\n"
    )


def put_texts(folder: Path, texts: dict[str, str]) -> None:
    """Write files below a folder, folders made."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, text.encode())


def load(path: Path) -> EngineSession:
    """The network of a project as a function, built for this machine from its C."""
    (source,) = (place for place in path.rglob("*.c"))
    native = CompiledNetwork(compile_library(source.read_text(encoding="utf-8"), name=source.stem))
    return loaded(native)
