"""`leancnn quantize runs/a --out runs/a8`"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from leancnn.commands._base import (
    Answer,
    Command,
    add_checkpoint,
    add_override,
    recipe_fields,
    register,
)
from leancnn.errors import UsageError
from leancnn.progress import Waiting


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="a run, or the folder of a saved network")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where it is saved")
    parser.add_argument("--data", help="images to calibrate with; default: the run's")
    parser.add_argument(
        "--images", type=int, default=512, help="of the train part that set ranges; default 512"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images; default 0")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="POINTS",
        help="of accuracy that may go: layers that hurt most get weights of 10 bits till it holds",
    )
    parser.add_argument(
        "--finetune",
        metavar="RECIPE",
        help="first train on in fake quantization by this recipe, at a hundredth of its rate; kept "
        "only if better",
    )
    add_override(parser, "a field of that recipe, such as epochs=4")
    add_checkpoint(parser)


def run(args: Namespace) -> Answer:
    """A network in 8-bit integers, with accuracy, size and time before and after."""
    from leancnn.quantize import quantize

    if args.overrides and args.finetune is None:
        raise UsageError("--override is for the recipe of --finetune; name one")
    if (Path(args.network) / "decoder.json").is_file():
        return _decoder(args)

    with Waiting("quantize"):
        found = quantize(
            args.network,
            args.out,
            data=args.data,
            images=args.images,
            seed=args.seed,
            budget=args.budget,
            which=args.which,
            finetune=args.finetune,
            overrides=recipe_fields(args.overrides),
        )
    return Answer(found.to_json(), found.text())


def _decoder(args: Namespace) -> Answer:
    """The networks of a decoder of signals, with accuracy on people not seen before and after."""
    from leancnn.eeg.integers import quantize
    from leancnn.eeg.provenance import load_trials
    from leancnn.progress import Progress

    for option in ("data", "budget", "finetune", "which"):
        if getattr(args, option) is not None:
            raise UsageError(
                f"--{option} is for networks of images; a decoder of signals is quantized by the "
                "windows that it was trained on, and judged on people that nothing was chosen by"
            )
    epochs = load_trials(args.network)
    with Progress("folds", 100) as bar:
        found = quantize(
            args.network,
            args.out,
            epochs,
            windows=args.images,
            seed=args.seed,
            progress=lambda done, of: bar.to(100 * done // of, fold=f"{done} of {of}"),
        )
    return Answer(found.to_json(), found.text())


register(Command("quantize", "turn a trained network into 8-bit integers", arguments, run))
