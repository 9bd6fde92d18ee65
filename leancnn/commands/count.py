"""`leancnn count henet_r3`"""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from leancnn.commands._base import Answer, Command, add_model_arg, network_arguments, register, size
from leancnn.errors import UsageError
from leancnn.tables import table

UNITS = {"macs": "multiply-accumulates for one image", "bytes": "of the trainable, as float32"}


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a network's name, a run, or the folder of a saved network")
    parser.add_argument("--classes", type=int, help="default: those of the network's source")
    parser.add_argument("--channels", type=int, help="1 for gray, 3 for colour")
    parser.add_argument("--size", type=size, metavar="HxW", help="of the image, such as 31")
    add_model_arg(parser)


def run(args: Namespace) -> Answer:
    """Weights and multiply-accumulates of a network, for one image."""
    import torch

    from leancnn import models
    from leancnn.count import count

    if Path(args.network).is_dir():
        from leancnn.weights import load

        if args.arguments or args.classes is not None or args.channels is not None:
            raise UsageError(
                "a saved network is counted as it is; --model-arg and the like are for names"
            )
        saved = load(args.network)
        module, name, channels = saved.body, saved.name, saved.preprocessing.channels
        height, width = args.size or saved.preprocessing.size
    else:
        card = models.card(args.network)
        changes = network_arguments(args.arguments, models.arguments(args.network))
        sizes = {"classes": args.classes, "channels": args.channels}
        with torch.device("meta"):  # shapes are enough
            module = models.create_model(args.network, **sizes, **changes)
        name = card.name
        channels = card.image[0] if args.channels is None else args.channels
        height, width = args.size or card.image[1:]
    cost = asdict(count(module, (channels, height, width)))
    rows = [{name: key, "": number, " ": UNITS.get(key, "")} for key, number in cost.items()]
    return Answer(
        {"network": name, "image": [channels, height, width], **cost},
        f"one image of {channels}×{height}×{width}\n{table(rows)}",
    )


register(Command("count", "count a network's weights and operations", arguments, run))
