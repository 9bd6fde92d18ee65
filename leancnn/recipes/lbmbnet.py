"""Recipes for LB-MBNet, at 32×32."""

from leancnn.recipes._base import Recipe, recipe

recipe(
    Recipe(
        name="lbmbnet-paper",
        source=(
            "LB-MBNet paper, Electronics 2021, 10, 1329, CIFAR-10: SGD at 0.1, a tenth at epochs "
            "80, 140 and 180 of 200, moves of up to 4 pixels, mirrored; the same again after "
            "pruning. Ours: batch 128, momentum 0.9, weight decay 5e-4"
        ),
        network="lbmbnet59_r6",
        epochs=200,
        batch=128,
        lr=0.1,
        schedule="multistep",
        milestones=(80 / 200, 140 / 200, 180 / 200),
        nesterov=False,
        shift=4,
        flip=True,
    )
)

recipe(
    Recipe(
        name="lbmbnet-fast",
        source="ours: the paper's augmentation in one short cycle",
        network="lbmbnet32_r6",
        epochs=30,
        batch=128,
        lr=0.1,
        schedule="one-cycle",
        warmup=0.2,
        label_smoothing=0.1,
        shift=4,
        flip=True,
    ),
    default_for=(
        *(f"lbmbnet59_r{r}" for r in (3, 6, 10, 18, 20, 30, 40, 60, 80)),
        *(f"lbmbnet32_r{r}" for r in (6, 80)),
    ),
)
