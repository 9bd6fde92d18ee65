"""Recipes for ResNets and other networks at 32×32."""

from leancnn.recipes._base import Recipe, epochs_of, recipe

RESNET_PAPER = recipe(
    Recipe(
        name="resnet-paper",
        source=(
            "He et al., CVPR 2016, section 4.2, CIFAR-10: 64,000 steps of 128 over 45,000 images "
            "(--val-share 0.1), rate 0.1, a tenth at 32,000 and 48,000, weight decay 1e-4 (theirs "
            "on all weights), pad 4, mirrored"
        ),
        network="resnet20",
        epochs=epochs_of(64_000, images=45_000, batch=128),
        batch=128,
        lr=0.1,
        schedule="multistep",
        milestones=(1 / 2, 3 / 4),
        nesterov=False,
        weight_decay=1e-4,
        scale=(32, 32),
        pad=4,
        flip=True,
    )
)

recipe(
    RESNET_PAPER.changed(
        name="resnetv2-paper",
        source=(
            "He et al., ECCV 2016, appendix: as resnet-paper, at 0.01 for the first 400 steps "
            "(a linear rise here)"
        ),
        network="resnetv2_164",
        warmup=400 / 64_000,
    )
)

recipe(
    Recipe(
        name="small-fast",
        source="ours: one short cycle for networks of 32×32",
        network="resnet20",
        epochs=30,
        batch=128,
        lr=0.2,
        schedule="one-cycle",
        warmup=0.2,
        label_smoothing=0.1,
        scale=(32, 32),
        pad=4,
        flip=True,
    ),
    default_for=(
        "resnet8",
        "resnet20",
        "resnet56",
        "resnetv2_56",
        "resnetv2_164",
        "resnetv2_1001",
        "mobilenetv2",
        "shufflenetv2_x0_5",
    ),
)
