"""The smallest recipe: seconds on a CPU, to see that every part still fits."""

from leancnn.recipes._base import Recipe, recipe

recipe(
    Recipe(
        name="smoke",
        source="none: for trying, no accuracy meant",
        network="henet_r2",
        epochs=2,
        batch=16,
        lr=0.05,
        schedule="one-cycle",
        warmup=0.25,
        label_smoothing=0.1,
        ema=0.9,
        clip=5.0,
        scale=(32, 32),
        pad=2,
        flip=True,
    )
)
