"""`leancnn train photos/ --model henet_r3 --out runs/a`, and `leancnn train --resume runs/a`"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from leancnn.commands._base import (
    Answer,
    Command,
    add_model_arg,
    add_override,
    network_arguments,
    recipe_fields,
    register,
    size,
)
from leancnn.errors import UsageError
from leancnn.tables import printable

# fields of the recipe with an option of their own
SHORTCUTS = ("size", "epochs", "batch", "lr", "loss", "patience")
OF_A_RESUMED = ("epochs", "patience")  # what may be changed when a run goes on
MOST_THREADS = 1024


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", help="a folder of images in class folders, or 'digits'")
    parser.add_argument("--model", help="'leancnn models' lists them; default: the recipe's")
    parser.add_argument(
        "--recipe", help="'leancnn recipes' lists them; or a recipe.json; default: the model's"
    )
    parser.add_argument("--out", metavar="RUN", help="a new folder; default: one in runs/")
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with a run; DATA only if it has moved"
    )
    parser.add_argument(
        "--init-from",
        dest="start",
        metavar="NETWORK",
        help="begin with the weights of a run or a saved network, in the place of --model; or of a "
        "file for --model: .pt, .safetensors or .onnx",
    )
    add_model_arg(parser)
    add_override(parser, "a field of the recipe, such as ema=0.999")
    parser.add_argument(
        "--size", type=size, metavar="HxW", help="of the images; default: as in 'leancnn models'"
    )
    _recipe_arguments(parser)
    parser.add_argument("--seed", type=int, help="of everything random; default 0")
    parser.add_argument(
        "--val-share",
        type=float,
        help="of the train part, set apart for validation; default a tenth or about 2,000 images",
    )
    parser.add_argument("--threads", type=int, help="processor threads; default: all")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _recipe_arguments(parser: ArgumentParser) -> None:
    """Fields of the recipe that have options of their own."""
    parser.add_argument("--epochs", type=float, help="how often every image is seen")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--loss", help="cross_entropy, focal or softmax+center")
    parser.add_argument(
        "--patience", type=int, help="epochs without a better validation after which it ends"
    )


def run(args: Namespace) -> Answer:
    """Train, or go on training; Ctrl-C saves and stops."""
    if args.resume is None and args.data is None:
        raise UsageError("train needs a folder of images, or --resume and a run")
    if args.resume is not None:
        _refuse_changes(args)
    if args.threads is not None and not 1 <= args.threads <= MOST_THREADS:
        raise UsageError(f"--threads is 1 to {MOST_THREADS}, not {args.threads}")
    import torch

    from leancnn.train import resume, train

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.resume is not None:
        longer = {key: getattr(args, key) for key in OF_A_RESUMED}
        return answer(resume(args.resume, data=args.data, progress=not args.quiet, **longer))
    return answer(_begun(args, train))


def _refuse_changes(args: Namespace) -> None:
    """A run goes on as it began. Raises `UsageError`."""
    named = ("model", "recipe", "out", "start", "seed", "val_share", "threads", *SHORTCUTS)
    given = {key for key in named if getattr(args, key) is not None} - {*OF_A_RESUMED}
    if given or args.arguments or args.overrides:
        raise UsageError(
            "a run goes on as it began: --resume takes no option that changes it but --epochs "
            "and --patience"
        )


def _begun(args: Namespace, train: Callable[..., Any]) -> Any:
    """A new run, by the words of the command."""
    from leancnn import models, recipes
    from leancnn.pretrained import is_file_of_weights

    model = args.model
    own = args.start is not None and not is_file_of_weights(args.start)
    if own and (args.arguments or model is not None):
        raise UsageError("--init-from brings its own network: leave out --model and --model-arg")
    if args.arguments and model is None:
        model = recipes.read(args.recipe).network if args.recipe else "henet_r3"
    changes = recipe_fields(args.overrides)
    changes |= {key: getattr(args, key) for key in SHORTCUTS if getattr(args, key) is not None}
    given = args.arguments
    return train(
        args.data,
        model=model,
        recipe=args.recipe,
        out=args.out,
        arguments=network_arguments(given, models.arguments(model)) if given else {},
        start=args.start,
        seed=args.seed or 0,
        val_share=args.val_share,
        overrides=changes,
        progress=not args.quiet,
    )


def answer(trained: Any) -> Answer:
    """A trained run in a few figures; the rest stands in its folder."""
    known = [row["val_accuracy"] for row in trained.history if row["val_accuracy"] is not None]
    best = max(known, default=None)
    last = trained.history[-1] if trained.history else {}
    value = {
        "run": str(trained.folder),
        "epochs": len(trained.history),
        "best_val_accuracy": best,
        "last": last,
        "seconds": trained.seconds,
        "images_per_s": trained.images_per_s,
    }
    where = printable(trained.folder)
    found = "no validation" if best is None else f"best validation accuracy {best:.2%}"
    return Answer(
        value,
        f"{where}: {len(trained.history)} epochs in {trained.seconds:.0f} s, "
        f"{trained.images_per_s:.0f} images/s, {found}\n"
        f"next: leancnn evaluate {where}",
    )


register(Command("train", "train a network on a folder of images", arguments, run))
