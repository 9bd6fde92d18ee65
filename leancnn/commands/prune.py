"""`leancnn prune runs/wide --to-expansion 6 --criterion se_gate --finetune lbmbnet-paper`"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from contextlib import suppress
from typing import Any

from leancnn.commands._base import (
    Answer,
    Command,
    above,
    add_checkpoint,
    add_override,
    check_picture,
    flag,
    number,
    recipe_fields,
    register,
)
from leancnn.errors import DamagedError, RunError, UsageError
from leancnn.progress import Waiting, tell
from leancnn.tables import printable

GOALS = ("keep", "expansion", "macs", "bytes", "flash", "ram", "speedup")
CHOICES = (
    "criterion", "keep", "expansion", "schedule", "macs", "bytes", "flash", "ram", "speedup",
    "out", "finetune", "overrides", "data", "which", "seed", "dry_run", "no_time", "gates",
    "compare", "criteria", "baselines", "seeds",
)  # fmt: skip
"""All options that say what is done."""


def share(text: str) -> float:
    """A share above 0 and below 1."""
    if not 0 < (found := number(text)) < 1:
        raise ArgumentTypeError(
            f"the share of channels that stay is above 0 and below 1, not {text}; 1 cuts nothing"
        )
    return found


def whole_numbers(text: str) -> list[int]:
    """`80,40,20` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"'{text}' are no whole numbers such as 80,40,20") from None


def names(text: str) -> list[str]:
    """`l1,random` as a list."""
    if found := [part.strip() for part in text.split(",") if part.strip()]:
        return found
    raise ArgumentTypeError(f"'{text}' are no names such as l1,random; leave the option out")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "network",
        nargs="+",
        help="a run, or the folder of a saved network; several for --plot-gates",
    )
    parser.add_argument(
        "--criterion", help="how channels are scored; default: se_gate with gates, else taylor"
    )
    _goal_arguments(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where it goes; default: beside the run")
    parser.add_argument("--finetune", metavar="RECIPE", help="train again by this recipe")
    add_override(parser)
    parser.add_argument("--data", help="the images; default: those of the run")
    add_checkpoint(parser)
    parser.add_argument("--seed", type=int, help="of what is random; default 0")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--no-time", action="store_true", help="do not compile and time it")
    parser.add_argument(
        "--plot-gates", dest="gates", metavar="PNG", help="draw the gates of the networks, and stop"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _comparison_arguments(parser)


def _goal_arguments(parser: ArgumentParser) -> None:
    goal = parser.add_argument_group("how much (one of)")
    goal.add_argument(
        "--keep-ratio", dest="keep", type=share, help="the share of channels that stays, as 0.5"
    )
    goal.add_argument(
        "--to-expansion",
        dest="expansion",
        type=int,
        metavar="R",
        help="of LB-MBNet: the r it ends at",
    )
    goal.add_argument(
        "--schedule",
        type=whole_numbers,
        metavar="R,R,…",
        help="expansions, one step after the other, each retrained: 80,40,20,10,6",
    )
    goal.add_argument("--macs", type=above(0), help="the most multiply-accumulates, as 5e6")
    goal.add_argument("--bytes", type=above(0), help="the most bytes of weights, as 200k")
    goal.add_argument(
        "--flash", type=above(0), help="the most bytes of constants and code of its C, as 256k"
    )
    goal.add_argument("--ram", type=above(0), help="the most bytes of scratch of its C, as 64k")
    goal.add_argument("--speedup", type=above(1), help="times faster here, compiled, as 2")


def _comparison_arguments(parser: ArgumentParser) -> None:
    several = parser.add_argument_group("comparison")
    several.add_argument(
        "--compare", action="store_true", help="criteria and baselines under one protocol"
    )
    several.add_argument(
        "--criteria", type=names, metavar="NAME,…", help="default: all that apply at once"
    )
    several.add_argument(
        "--baselines",
        type=names,
        metavar="NAME,…",
        help="scratch, kept_kernels, random_kernels, smaller_model, or a network's name; "
        "default: scratch",
    )
    several.add_argument("--seeds", type=int, help="runs of each; default 1")


def run(args: Namespace) -> Answer:
    """Score channels, cut the least of them, train again."""
    with Waiting("prune", shown=not args.quiet):
        return _run(args)


def _run(args: Namespace) -> Answer:
    goal = {key: getattr(args, key) for key in GOALS}
    if args.gates is not None:
        _refuse(args, "--plot-gates", *(key for key in CHOICES if key not in ("gates", "data")))
        return _gates(args)
    if len(args.network) > 1:
        raise UsageError(f"prune takes one network, not {len(args.network)}")
    args.network = args.network[0]
    _one_goal(args)
    _tell_unfinished(args.network)
    if args.compare:
        return _compare(args, goal)
    if args.criteria or args.baselines or args.seeds is not None:
        raise UsageError("--criteria, --baselines and --seeds belong to --compare")
    if args.overrides and args.finetune is None:
        raise UsageError("--override is for the recipe of --finetune; name one")
    criterion, timed = args.criterion or _criterion(args), not args.no_time
    if args.dry_run:
        return _plan(args, goal, criterion, timed)
    from leancnn.prune import prune

    pruned = prune(
        args.network,
        out=_place(args, criterion, goal),
        criterion=criterion,
        schedule=args.schedule or (),
        finetune=args.finetune,
        overrides=recipe_fields(args.overrides),
        data=args.data,
        which=args.which,
        seed=args.seed or 0,
        timed=timed,
        progress=not args.quiet,
        **goal,
    )
    return _answer(pruned)


def _answer(pruned: Any) -> Answer:
    """What was cut and where it is."""
    where = printable(pruned.folder)
    plans = "\n\n".join(plan.text() for plan in pruned.plans)
    text = [plans, "", f"saved in {where}"]
    value: dict[str, Any] = {"folder": str(pruned.folder)}
    value["plans"] = [plan.to_json() for plan in pruned.plans]
    if pruned.trained is None:
        text.append(
            "not trained again: --finetune RECIPE does, and 'leancnn train --init-from' too"
        )
    else:
        last = pruned.trained.history[-1]
        value["trained"] = {"epochs": len(pruned.trained.history), "last": last}
        text.append(f"{len(pruned.trained.history)} epochs; next: leancnn evaluate {where}")
    return Answer(value, "\n".join(text))


def _tell_unfinished(network: str) -> None:
    """Say on stderr that a run has not come to its end; what it has so far can be cut."""
    from pathlib import Path

    from leancnn import manifests, runs

    run, _ = runs.run_of(Path(network))
    if run is None:
        return
    with suppress(DamagedError, RunError, AttributeError):  # whoever needs it will complain
        if (state := runs.read_run(run, manifests.RunFile).get("state", "finished")) != "finished":
            tell(f"{run} is {state}; 'leancnn train --resume {run}' goes on with it")


def _criterion(args: Namespace) -> str:
    from leancnn.prune.run import default_criterion
    from leancnn.weights import load

    return default_criterion(load(args.network, args.which))


def _one_goal(args: Namespace) -> None:
    """Refuse, with `UsageError`, no goal or several, by the names of the options."""
    flags = {flag(args, key): getattr(args, key) for key in (*GOALS, "schedule")}
    given = [one for one, value in flags.items() if value is not None]
    if len(given) > 1 or not (given or args.compare):  # which has one of its own
        known, found = ", ".join(flags), " and ".join(given) or "none"
        raise UsageError(f"name one goal of {known}; not {found}")


def _refuse(args: Namespace, what: str, *odd: str) -> None:
    """Refuse, with `UsageError`, options that `what` would not heed."""
    values = {flag(args, key): getattr(args, key) for key in odd}
    given = [k for k, v in values.items() if v is not None and v is not False and v != []]
    if given:
        raise UsageError(f"{what} has no use for {', '.join(given)}; leave it out")


def _plan(args: Namespace, goal: dict[str, Any], criterion: str, timed: bool) -> Answer:
    from pathlib import Path

    from leancnn.prune import plan
    from leancnn.prune.run import images_for_pruning
    from leancnn.weights import load

    if args.schedule:
        raise UsageError("a schedule cannot be planned without training; plan its first step")
    _refuse(args, "--dry-run", "out", "finetune", "overrides")
    path = Path(args.network)
    network = load(path, args.which)
    images = images_for_pruning(path, network, criterion, args.data, trains=False)
    found = plan(
        network,
        criterion=criterion,
        images=images,
        seed=args.seed or 0,
        timed=timed,
        progress=not args.quiet,
        **goal,
    )
    return Answer(found.to_json(), found.text())


def _compare(args: Namespace, goal: dict[str, Any]) -> Answer:
    from leancnn.prune.compare import compare

    _refuse(args, "--compare", "schedule", "criterion", "seed", "which", "dry_run")
    if all(value is None for value in goal.values()):
        goal["keep"] = 0.5
    found = compare(
        args.network,
        criteria=args.criteria,
        baselines=args.baselines or ["scratch"],
        seeds=1 if args.seeds is None else args.seeds,
        out=_place(args, "compared", goal),
        finetune=args.finetune,
        overrides=recipe_fields(args.overrides),
        data=args.data,
        timed=not args.no_time,
        progress=not args.quiet,
        **goal,
    )
    return Answer(found.to_json(), found.text())


def _gates(args: Namespace) -> Answer:
    from leancnn.prune.gates import gates

    check_picture(args, "gates")
    found: dict[str, Any] = gates(args.network, args.gates, data=args.data, progress=not args.quiet)
    return Answer(found, f"drawn: {printable(args.gates)}")


def _place(args: Namespace, word: str, goal: dict[str, Any]) -> str:
    """--out, else beside the network: `runs/wide` → `runs/wide-se_gate-expansion6`."""
    from pathlib import Path

    from leancnn import runs

    if args.out == "":
        raise UsageError("--out is empty; name a folder, or . for this one")
    if args.out is not None:
        return str(args.out)
    path = Path(args.network)
    path = runs.run_of(path)[0] or path
    path = path if path.name.strip(".") else path.resolve()
    if not path.name:
        raise RunError(f"{path}: no run and no saved network")
    given = [f"{key}{value:g}" for key, value in goal.items() if value is not None]
    given += [f"schedule{'-'.join(map(str, args.schedule))}"] if args.schedule else []
    return str(path.with_name("-".join([path.name, word, *given])))


register(Command("prune", "cut channels out of a trained network", arguments, run))
