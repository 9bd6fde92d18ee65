"""The C file of a network, for every target that is made of it."""

import json

from leancnn.compiler.frame import GeneratedC, Metadata
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.int8_emit import emit_integers
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.translate import translate
from leancnn.version import __version__
from leancnn.weights import Network


def to_c(
    network: Network, tune: float | None = None, *, small: bool = False, narrow: bool = False
) -> GeneratedC:
    """The C file of a network, with its classes, its normalisation and its preprocessing inside.

    `tune`: seconds for timing register tiles on this machine; None: trust the cost model.
    `small`: the least memory, in plain loops. `narrow`: tiles of four lanes and few registers.
    """
    preprocessing = network.preprocessing
    given = {**network.arguments, "cut": "pruned"} if "cut" in network.arguments else {}
    settings = ", ".join(f"{k}={v}" for k, v in (given or network.arguments).items())
    about = {
        "preprocessing": preprocessing.to_json(),
        "mean": list(network.mean),
        "std": list(network.std),
        "origin": network.origin,
    }
    if isinstance(network.body, IntegerNetwork):
        metadata = Metadata(
            name=network.name,
            classes=network.classes,
            mean=network.mean,
            std=network.std,
            source=f"from {network.name}({settings}), quantized",
            version=__version__,
            about=json.dumps(about),
        )
        return emit_integers(network.body.network, metadata, small=small, narrow=narrow)
    return translate(
        import_torch(network.body, (preprocessing.channels, *preprocessing.size)),
        name=network.file_name,
        classes=network.classes,
        mean=network.mean,
        std=network.std,
        about=json.dumps(about),
        source=f"from {network.name}({settings}), origin {network.origin}",
        tune=tune,
        small=small,
        full_scale=preprocessing.full_scale,
        narrow=narrow,
    )
