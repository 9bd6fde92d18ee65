"""Recipes for R-SeNet."""

from leancnn.recipes._base import Recipe, epochs_of, recipe

RSENET_PAPER = recipe(
    Recipe(
        name="rsenet-paper",
        source=(
            "NVM paper, CIFAR-10 at 224×224: SGD at 0.01, factor 0.1, at most 400,000 steps, focal "
            "loss. Ours: the steps of the factor (half and three quarters), batch 128, momentum "
            "0.9, weight decay 5e-4, gamma 2, alpha 1"
        ),
        network="rsenet",
        epochs=epochs_of(400_000, images=50_000, batch=128),
        batch=128,
        lr=0.01,
        schedule="multistep",
        milestones=(0.5, 0.75),
        nesterov=False,
        loss="focal",
        loss_arguments={"gamma": 2.0, "alpha": 1.0},
    )
)

recipe(
    Recipe(
        name="rsenet-fast",
        source="ours: one short cycle; with --model-arg stem=cifar for images of 32×32",
        network="rsenet",
        epochs=20,
        batch=128,
        lr=0.1,
        schedule="one-cycle",
        warmup=0.2,
        label_smoothing=0.1,
        shift=4,
        flip=True,
    ),
    default_for=("rsenet",),
)
