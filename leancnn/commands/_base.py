"""What a command is to the command line: its arguments, and a function from them to an answer.

Members import torch, and whatever loads it, inside that function, so that `--help` answers at once.
"""

import json
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leancnn.errors import MismatchError, UsageError, WriteError
from leancnn.registry import Registry


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say: a JSON value for programs, text for people, and an exit status."""

    value: dict[str, Any] | list[Any]
    text: str
    exit_status: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A verb of the command line; `arguments` adds its options to a parser of its own."""

    name: str
    summary: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Answer]


commands: Registry[Command] = Registry("command")

RENAMED = {
    "--set": "--model-arg",
    "--change": "--override",
    "--start": "--init-from",
    "--on": "--engines",
    "--keep": "--keep-ratio",
    "--which": "--checkpoint",
    "--gates": "--plot-gates",
    "--controls": "--baselines",
}
"""Options of 0.1 to what they are called now; the old words work until 0.3, and are not listed."""

ARGUMENT = re.compile(r"`(\w+)`")  # of a function, in a message
SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
OF_THE_DATA = ("classes", "channels")  # arguments of every network that are not free to choose


def register(command: Command) -> None:
    """Register a command."""
    commands.register(command.name, command)


def no_arguments(parser: ArgumentParser) -> None:
    """For commands that take nothing but what every command takes."""


def check_picture(args: Namespace, name: str) -> None:
    """Refuse, before any work, to draw the picture of an option where no file can be written.

    Raises `WriteError` for a folder that is not there, so that a misspelt path makes none.
    """
    text = getattr(args, name)
    if text is None:
        return
    if text == "":
        raise UsageError(f"{flag(args, name)} is empty; name the picture that is drawn")
    folder = Path(text).parent
    if not folder.is_dir():
        raise WriteError(f"{text}: there is no folder {folder}; make it, or choose another")
    if Path(text).is_dir():
        raise WriteError(f"{text} is a folder; name the picture in it")


def renew(words: Sequence[str], options: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """The words with options that were renamed called as one of `options`; and which were, to what.

    What stands behind `--` is no option.
    """
    end = words.index("--") if "--" in words else len(words)
    found: dict[str, str] = {}
    renewed = []
    for word in words[:end]:
        old, *value = word.split("=", 1)
        new = RENAMED.get(old, old)
        if old not in options and new in options and old != new:
            found[old] = new
            word = "=".join([new, *value])
        renewed.append(word)
    return [*renewed, *words[end:]], found


def flag(args: Namespace, name: str) -> str:
    """The option whose value is `args.NAME`, as a user types it."""
    actions = [action for action in args.parser._actions if action.dest == name]
    texts: list[str] = actions[0].option_strings
    return texts[0]


def flags(text: str, parser: ArgumentParser) -> str:
    """A message of the library with its arguments, in backticks, as the options of a command.

    A field of a recipe without an option of its own is `--override NAME`, where there is one.
    """
    if not ARGUMENT.search(text):
        return text
    from leancnn.recipes import Recipe  # it loads numpy, and most messages have no field of it

    known = {a.dest: a.option_strings[0] for a in parser._actions if a.option_strings}
    recipe = {field.name for field in fields(Recipe)} if "overrides" in known else set()

    def option(name: re.Match[str]) -> str:
        field = f"--override {name[1]}" if name[1] in recipe else name[0]
        return known.get(name[1], field)

    return ARGUMENT.sub(option, text)


def add_checkpoint(parser: ArgumentParser) -> None:
    """`--checkpoint`: which of a run's networks."""
    parser.add_argument(
        "--checkpoint",
        dest="which",
        choices=("best", "last"),
        help="of a run's networks; default: best",
    )


def add_model_arg(parser: ArgumentParser) -> None:
    """Let a command take arguments of a network."""
    parser.add_argument(
        "--model-arg",
        dest="arguments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the network, such as repeat=5; may be given again",
    )


def add_override(parser: ArgumentParser, field: str = "a field of that recipe") -> None:
    """`--override`: fields of a recipe; `recipe_fields` reads them."""
    parser.add_argument(
        "--override",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"{field}; may be given again",
    )


def number(text: str) -> float:
    """`200k`, `5e6`, `1.5M` as a number."""
    factor = SUFFIXES.get(text[-1:], 1.0)
    try:
        return float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is no number such as 200k, 5e6 or 1.5M") from None


def above(least: float) -> Callable[[str], float]:
    """A finite number above `least`."""

    def read(text: str) -> float:
        if not least < (found := number(text)) < float("inf"):
            raise ArgumentTypeError(f"a finite number above {least:g}, not {text}")
        return found

    return read


def size(text: str) -> tuple[int, int]:
    """`31` or `31x47` as (height, width)."""
    parts = text.lower().replace("×", "x").split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ArgumentTypeError(f"'{text}' is no size; write 31, or 31x47 for height x width")
    return int(parts[0]), int(parts[-1])


def network_arguments(pairs: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` texts as typed values, each of the type its default has.

    Raises `UnknownNameError` for a key without default, `MismatchError` for a value that cannot be
    read as its type.
    """
    known: Registry[Any] = Registry("argument of this network")
    known.update(defaults)
    chosen = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--model-arg takes key=value, not '{pair}'")
        if key in OF_THE_DATA:
            raise UsageError(
                f"'{key}' is no argument for --model-arg: training takes it from the data and the "
                f"recipe, and count from --{key}"
            )
        chosen[key] = _typed(key, text, known[key])
    return chosen


def _typed(key: str, text: str, default: object) -> object:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in {"true", "false"}:
            raise MismatchError(f"{key} is true or false, not '{text}'")
        return text.lower() == "true"
    if isinstance(default, tuple) and default:
        return tuple(_typed(key, part, default[0]) for part in text.split(","))
    if isinstance(default, int | float):
        kind, words = (int, "a whole number") if isinstance(default, int) else (float, "a number")
        try:
            return kind(text)
        except ValueError:
            raise MismatchError(f"{key} is {words}, not '{text}'") from None
    try:
        return json.loads(text)
    except ValueError:
        return text


def recipe_fields(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as JSON values; the recipe itself checks their names and types."""
    changes = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--override takes key=value, not '{pair}'")
        try:
            changes[key] = json.loads(text)
        except (ValueError, RecursionError):
            changes[key] = text
    return changes
