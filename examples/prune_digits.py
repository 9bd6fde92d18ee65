"""Prune a network by its squeeze-and-excitation gates, and train what is left again."""

import leancnn

wide = leancnn.train(
    "digits",
    model="lbmbnet32_r6",
    recipe="smoke",
    arguments={"repeats": 1, "expansion": 3},
    overrides={"epochs": 0.5},
    out="runs/wide",
)
pruned = leancnn.prune(
    wide.folder, out="runs/narrow", expansion=2, finetune="smoke", overrides={"epochs": 0.5}
)
print(pruned.plans[0].text())
for folder in (wide.folder, pruned.folder):
    print(folder, f"{leancnn.evaluate(folder).accuracy:.2%}")
