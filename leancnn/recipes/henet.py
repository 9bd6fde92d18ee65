"""Recipes for HENet and its comparator, ShuffleNet, at 31×31 out of images stored at 32×32."""

from leancnn.recipes._base import Recipe, epochs_of, recipe

recipe(
    Recipe(
        name="henet-fast",
        source="ours, for an hour on two cores; docs/log.md says what was tried",
        network="henet_r3",
        epochs=60,
        batch=128,
        lr=0.15,
        schedule="one-cycle",
        warmup=0.2,
        label_smoothing=0.1,
        scale=(32, 32),
        pad=4,
        border="reflect",
        flip=True,
    )
)

HENET_PAPER = recipe(
    Recipe(
        name="henet-paper",
        source=(
            "HENet paper, section 4.1, and the authors' Caffe solver: 65,000 steps of 128, "
            "rate 0.01, a tenth at 32,000 and 48,000; in proportion where a part is set apart "
            "for validation. Their first weights: --model-arg init=gaussian001. Silent: what "
            "stands outside the image (black)"
        ),
        network="henet_r3",
        epochs=epochs_of(65_000, images=50_000, batch=128),  # CIFAR's; 166.4 with parts of batches
        batch=128,
        lr=0.01,
        schedule="multistep",
        milestones=(32 / 65, 48 / 65),
        decay_on="caffe",
        scale=(32, 32),
        pad=4,
        flip=True,
        precision="fp32",
    )
)

recipe(
    HENET_PAPER.changed(
        name="henet-paper-svhn",
        source="as henet-paper, for SVHN: 65,000 steps over its 73,257 images, nothing augmented",
        epochs=epochs_of(65_000, images=73_257, batch=128),
        pad=0,
        flip=False,
    )
)

recipe(
    Recipe(
        name="digits",
        source="ours: scikit-learn's 1,797 digits of 8×8, in about a minute on two slow cores",
        network="henet_r2",
        epochs=12,
        batch=64,
        lr=0.1,
        schedule="one-cycle",
        warmup=0.25,
        label_smoothing=0.1,
        scale=(32, 32),
        channels=1,
        pad=4,
        precision="fp32",  # a minute of training does not earn a second set of kernels
    )
)
