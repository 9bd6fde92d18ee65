"""The command line: parse, run one command, print its answer as text or as JSON.

The commands are the members of `commands/`. Progress and errors go to stderr; stdout holds the
answer and nothing else, one JSON value with `--json`.

Exit status, of every command:
  0    done, and in full
  1    the words were understood, and something stood in the way: data, a file, the disk, a network
       that does not fit, what is not installed; or the answer is no (`check` finds no go), or not
       all of it is there (a file that `predict` cannot read, an engine that `bench` cannot time)
  2    the words alone are wrong, on every machine and with any data: a command, option or name that
       does not exist, a value out of range or of another type, options that exclude or need others
  3    training met a number that is not finite
  130  interrupted; what can be saved is saved
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from leancnn.commands import Answer, commands, flags, renew
from leancnn.errors import LeanCNNError, UsageError
from leancnn.process import ended_by_sigterm
from leancnn.progress import tell
from leancnn.tables import printable
from leancnn.version import __version__

INTERRUPTED = 130

FIRST_STEPS = """\
a first session:
  leancnn check photos/
  leancnn train photos/ --model henet_r3 --out runs/a
  leancnn evaluate runs/a
  leancnn predict runs/a picture.jpg

'leancnn COMMAND --help' explains a command."""


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are errors of ours, printed as one line."""

    verbs: dict[str, "Parser"]
    """Of the whole command line: by name, what each command takes."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    words = sys.argv[1:] if words is None else words
    _prepare_streams()
    try:
        with ended_by_sigterm():
            answer, as_json = _answer(words)
        text = (
            json.dumps(answer.value, indent=2, allow_nan=False) if as_json else _safe(answer.text)
        )
        if text and _speaks():
            print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read us has read enough; without this the exit would flush, and complain, again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except (LeanCNNError, MemoryError, RuntimeError, OSError) as error:
        line = None if "--debug" in words else _line(error, words)
        if line is None:
            raise
        if "--json" in words and (details := getattr(error, "details", None)) and _speaks():
            print(json.dumps({"error": str(error), **details}, indent=2))
        return _complain(line, getattr(error, "exit_status", 1))
    return answer.exit_status


def _prepare_streams() -> None:
    """Let every text be printed, also where who started us closed a stream."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - to our end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _line(error: Exception, words: Sequence[str]) -> str | None:
    """What went wrong in one line; None for what is a fault of ours, whose trace is wanted."""
    if isinstance(error, LeanCNNError):
        return _with_options(str(error), words)
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{'' if error.filename is None else f'{error.filename}: '}{error.strerror}"
    if isinstance(error, MemoryError | RuntimeError) and _no_memory(error):
        advice = "a smaller --batch or --size needs less, if the command has them"
        reason = "".join(f" ({text})" for text in str(error).splitlines()[:1])
        return f"not enough memory; {advice}{reason}"
    return None


def _no_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch, which says it in words, could not have what it asked for."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(
        text in words for text in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _speaks() -> bool:
    """Of torchrun's processes one prints; a process of none always does."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def _complain(text: object, status: int) -> int:
    tell(text)
    return status


def _safe(text: str) -> str:
    """An answer in which no line steers the terminal, whatever the names in it."""
    return "\n".join(map(printable, text.split("\n")))


def _with_options(text: str, words: Sequence[str]) -> str:
    """A message in the words of the command that was typed."""
    verb = next((word for word in words if word in commands), None)
    return text if verb is None else flags(text, build_parser().verbs[verb])


def _answer(words: Sequence[str]) -> tuple[Answer, bool]:
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None:
        commands[verb]  # a misspelt one ends here, with the nearest name
    parser = build_parser()
    if verb is not None:
        words, old = renew(words, options(parser.verbs[verb]))
        for was, now in old.items() if _speaks() else ():
            tell(f"{was} is called {now} now; the old word goes with version 0.3")
    args, unknown = parser.parse_known_args(words or ["--help"])
    if unknown:
        word, known = unknown[0].split("=")[0], options(args.parser)
        if word in known:  # argparse looks for a command's options behind its name only
            raise UsageError(f"'{word}' stands before its command; write it after '{verb}'")
        near = get_close_matches(word, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"see '{args.parser.prog} --help'"
        raise UsageError(f"'{unknown[0]}' is one word too many; {hint}")
    return commands[args.command].run(args), args.json


def build_parser() -> Parser:
    """The parser of the whole command line, with one subparser for each command."""
    parser = Parser(
        prog="leancnn",
        description="Small convolutional networks: train on your images, measure, run anywhere.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"leancnn {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in commands.items():
        verb = verbs.add_parser(
            name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.arguments(verb)
        verb.add_argument("--json", action="store_true", help="print JSON instead of text")
        verb.add_argument("--debug", action="store_true", help="show where an error came from")
        verb.set_defaults(parser=verb)
    parser.verbs = verbs.choices
    return parser


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option that `parser` takes, such as `--json`."""
    return [text for action in parser._actions for text in action.option_strings]
