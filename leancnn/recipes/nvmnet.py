"""Recipes for NVMNet and for the networks the NVM paper compares it with, at 224×224."""

from leancnn.recipes._base import Recipe, recipe

recipe(
    Recipe(
        name="nvmnet-paper",
        source=(
            "NVM paper, ORL faces: 40 epochs, 224×224, softmax + centre loss, nothing else given. "
            "Ours: SGD at 0.01 with momentum 0.9, weight decay 5e-4, batch 32 (128 of 300 images "
            "would be two steps an epoch), weight of the centres 0.003, their share 0.5"
        ),
        network="nvmnet_g4",
        epochs=40,
        batch=32,
        lr=0.01,
        schedule="constant",
        nesterov=False,
        loss="softmax+center",
        loss_arguments={"gamma": 0.003, "alpha": 0.5},
    )
)

NVMNET_FAST = recipe(
    Recipe(
        name="nvmnet-fast",
        source="ours: the paper's 40 epochs for a few hundred images, small batches, moved images",
        network="nvmnet_g4",
        epochs=40,
        batch=10,
        lr=0.02,
        schedule="one-cycle",
        warmup=0.2,
        label_smoothing=0.1,
        shift=16,
        border="reflect",
        flip=True,
    ),
    default_for=tuple(f"nvmnet_g{groups}" for groups in (1, 2, 4, 8, 16)),
)

recipe(
    NVMNET_FAST.changed(
        name="plain-224",
        source="ours: networks without batch norm need a lower rate and bounded gradients",
        network="squeezenet1_1",
        batch=32,
        lr=0.01,
        warmup=0.1,
        clip=2.0,
    ),
    default_for=("squeezenet1_0", "squeezenet1_1", "alexnet", "vgg16"),
)

recipe(
    NVMNET_FAST.changed(
        name="norm-224",
        source="ours: networks with batch norm at 224×224",
        network="resnet18",
        epochs=30,
        batch=64,
        lr=0.1,
    ),
    default_for=(
        "resnet18",
        "resnet50",
        "mobilenetv1",
        "mobilenetv2_224",
        "mobilenetv3_small",
        "shufflenetv1",
        "shufflenetv2",
    ),
)
