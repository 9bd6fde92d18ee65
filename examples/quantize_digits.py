"""Eight-bit integers: quantize a network, compile it, and compare both answers."""

import leancnn

wide = leancnn.train(
    "digits", model="henet_r2", recipe="digits", overrides={"epochs": 0.2}, out="runs/float"
)
found = leancnn.quantize(wide.folder, "runs/int8", images=64)
print(f"{found.accuracy:.1%} in float, {found.accuracy_int8:.1%} in integers")

digits = leancnn.load_dataset(
    "digits", leancnn.load("runs/int8").preprocessing, parts=("test",)
).test
window = leancnn.load("runs/int8").preprocessing.window(digits.images[:8])
integers, floats = leancnn.compile("runs/int8"), leancnn.compile(wide.folder)
print("alike:", (integers(window).argmax(1) == floats(window).argmax(1)).sum(), "of 8")
