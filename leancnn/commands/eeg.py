"""`leancnn eeg check|train|evaluate|run|page|bench`"""

import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leancnn.commands._base import Answer, Command, register
from leancnn.errors import RunError, StoppedError, StreamError, UsageError
from leancnn.progress import tell

UNITS = ("V", "mV", "uV", "nV")
FREQUENCIES = (7.5, 60 / 7, 10.0, 12.0)  # whole numbers of frames of a screen of 60 Hz


def frequencies(text: str) -> tuple[float, ...]:
    """`7.5,8.57,10,12` as numbers."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"'{text}' are no frequencies such as 7.5,8.57,10,12") from None
    if len(set(found)) != len(found) or not all(0 < hz < 1000 for hz in found):
        raise ArgumentTypeError(f"'{text}': frequencies are different numbers above 0")
    return found


def positive(text: str) -> float:
    """A number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise ArgumentTypeError(f"'{text}' is no number above 0")
    return found


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise ArgumentTypeError(f"'{text}' is no number from 0 to 1")
    return found


def meaning(text: str) -> tuple[str, str]:
    """`33025=13` as code and what it means."""
    code, equals, value = text.rpartition("=")
    number = value.removesuffix("Hz").strip()
    if not (code and equals and (value == "rest" or number.replace(".", "", 1).isdigit())):
        raise ArgumentTypeError(f"'{text}' is no CODE=HZ such as 33025=13, or 33024=rest")
    return code, number if value != "rest" else value


def arguments(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (summary, add, _) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        add(verb)
        for option, text in (("--json", "print JSON instead of text"), ("--debug", SUPPRESS)):
            verb.add_argument(option, action="store_true", default=SUPPRESS, help=text)
        verb.set_defaults(parser=verb)


def run(args: Namespace) -> Answer:
    """Run one of the verbs."""
    made: Answer = VERBS[args.verb][2](args)
    return made


def _file_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", help="files of signals: .npz, .csv, .xdf, .edf, .fif …")
    parser.add_argument("--unit", choices=UNITS, help="of a file that does not say it")
    parser.add_argument("--fs", type=positive, help="rate in Hz of a csv without times")
    parser.add_argument("--board", type=int, help="BrainFlow's number, for a csv of BrainFlow")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        type=meaning,
        metavar="CODE=HZ",
        help="what an event's code means, as 33025=13; may be given again",
    )


def _how(args: Namespace) -> dict[str, Any]:
    labels = dict(args.label)
    return {"unit": args.unit, "fs": args.fs, "board": args.board, "labels": labels or None}


# check


def _check(args: Namespace) -> Answer:
    """Go (0) or no-go (1) for each file."""
    from leancnn.eeg.doctor import check
    from leancnn.eeg.read import load

    reports = [check(load(path, **_how(args))) for path in args.data]
    value: Any = [report.to_json() for report in reports]
    text = "\n\n".join(report.text() for report in reports)
    status = 0 if all(report.fit for report in reports) else 1
    return Answer(value[0] if len(value) == 1 else value, text, status)


# train, evaluate


def _train_arguments(parser: ArgumentParser) -> None:
    _file_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the run goes")
    parser.add_argument(
        "--split",
        choices=("subject", "session"),
        default="subject",
        help="what is held out; default: subject",
    )
    parser.add_argument("--window", type=positive, default=2.0, help="seconds, default 2")
    parser.add_argument(
        "--decoder",
        default="logit",
        help="logit, ssvepnet, ensemble, or a network of leancnn models on spectrograms; "
        "default: logit",
    )
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--keep-ratio",
        type=share,
        help="prune its networks to this share of channels and train again",
    )


def _train(args: Namespace) -> Answer:
    from leancnn.eeg.provenance import save_provenance
    from leancnn.eeg.read import load_epochs
    from leancnn.eeg.training import train
    from leancnn.progress import Progress

    epochs = load_epochs(args.data, **_how(args))
    with Progress("folds", 100) as bar:
        decoder, held = train(
            epochs,
            args.out,
            split=args.split,
            window=args.window,
            decoder=args.decoder,
            seed=args.seed,
            keep_ratio=args.keep_ratio,
            progress=lambda done, of: bar.to(100 * done // of, fold=f"{done} of {of}"),
        )
    save_provenance(args.out, args.data, _how(args))
    seen = held.tested & (held.labels >= 0)
    accuracy = float((held.scores.argmax(1) == held.labels)[seen].mean())
    value = {
        "out": args.out,
        "decoder": args.decoder,
        "split": args.split,
        "window": args.window,
        "frequencies": list(decoder.frequencies),
        "trials": int(seen.sum()),
        "accuracy": accuracy,
    }
    text = (
        f"{args.out}: {args.decoder} for {', '.join(f'{hz:g}' for hz in decoder.frequencies)} Hz, "
        f"windows of {args.window:g} s\n"
        f"held-out {args.split}s: {accuracy:.3f} of {int(seen.sum())} trials; "
        f"leancnn eeg evaluate {args.out} compares"
    )
    return Answer(value, text)


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument(
        "--shuffles", type=int, default=20, help="repeats with shuffled labels, default 20"
    )


def _evaluate(args: Namespace) -> Answer:
    from leancnn.eeg.evaluation import evaluate
    from leancnn.eeg.held_out import load_held_out
    from leancnn.eeg.provenance import load_trials
    from leancnn.progress import Progress
    from leancnn.runs import write_json

    if args.shuffles < 0:
        raise UsageError(f"--shuffles is 0 or more, not {args.shuffles}")
    held, about = load_held_out(args.run)
    epochs = load_trials(args.run)
    with Progress("evaluation", 100) as bar:
        report = evaluate(
            held,
            epochs,
            split=about["split"],
            window=about["window"],
            decoder=about["decoder"],
            shuffles=args.shuffles,
            progress=lambda what, done, of: bar.to(100 * done // of, step=what),
        )
    write_json(Path(args.run) / "evaluation.json", report.to_json())
    return Answer(report.to_json(), report.text())


# run


def _run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--source", required=True, help="replay:FILE, synthetic, lsl:NAME or brainflow:BOARD"
    )
    parser.add_argument("--decoder", default="fbcca", help="a run, or fbcca; default: fbcca")
    parser.add_argument(
        "--freqs", type=frequencies, help="candidates for fbcca, default 7.5,8.57,10,12"
    )
    parser.add_argument("--window", type=positive, help="seconds, default the run's, or 2")
    parser.add_argument(
        "--every", type=positive, help="seconds between decisions; default: one at each cue"
    )
    parser.add_argument("--seconds", type=positive, help="stop after so much signal")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of a replay or synthetic; 0: as fast as it goes"
    )
    parser.add_argument("--snr", type=float, default=-8.0, help="dB of a synthetic; default -8")
    parser.add_argument(
        "--threshold", type=share, default=0.0, help="no decision below this probability"
    )
    parser.add_argument("--agree", type=int, default=1, help="decisions in a row that must agree")
    parser.add_argument("--notch", type=positive, metavar="HZ", help="of the mains, as 50")
    parser.add_argument("--record", metavar="CSV", help="keep what comes; check reads it")
    parser.add_argument("--unit", choices=UNITS, help="of a replayed file that does not say it")
    parser.add_argument(
        "--page", type=int, metavar="PORT", help="show flickers and decisions there"
    )
    parser.add_argument("--lsl-out", action="store_true", help="decisions out as an LSL stream")
    parser.add_argument(
        "--board-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of a BrainFlow board, as serial_port=/dev/ttyUSB0; may be given again",
    )


def _decoder(args: Namespace) -> tuple[Any, float]:
    """The decoder and its window in seconds."""
    from leancnn.eeg.decoders import fbcca
    from leancnn.eeg.session import load_decoder

    if args.decoder == "fbcca":
        return fbcca(args.freqs or FREQUENCIES), args.window or 2.0
    if args.freqs:
        raise UsageError(
            "a trained decoder knows its frequencies; --freqs is for --decoder fbcca, which "
            "decodes any"
        )
    decoder, about = load_decoder(args.decoder)
    trained = float(about["window"])
    if args.window is not None and args.window != trained:
        raise UsageError(f"{args.decoder} was trained on windows of {trained:g} s; leave --window")
    return decoder, trained


def _run(args: Namespace) -> Answer:
    from leancnn.eeg.session import Options, run_live

    if args.speed < 0:
        raise UsageError(f"--speed is 0 or more, not {args.speed:g}")
    if args.agree < 1:
        raise UsageError(f"--agree is 1 or more, not {args.agree}")
    decoder, window = _decoder(args)
    options = Options(
        source=args.source,
        window=window,
        every=args.every,
        seconds=args.seconds,
        speed=args.speed,
        snr_db=args.snr,
        threshold=args.threshold,
        agree=args.agree,
        mains=args.notch,
        record=args.record,
        unit=args.unit,
        page=args.page,
        lsl_out=args.lsl_out,
        board_args=tuple(args.board_arg),
    )
    return _account(run_live(decoder, options, _show(args)))


def _account(value: dict[str, Any]) -> Answer:
    """What a session came to. Ctrl-C is its ordinary end, SIGTERM and a dead source are not."""
    from leancnn.eeg.display import facts
    from leancnn.eeg.session import TERMINATED

    status = StoppedError.exit_status if value["ended"] == TERMINATED else 0
    if "error" in value:
        tell(value["error"])
        status = StreamError.exit_status
    return Answer(value, facts(value), status)


def _show(args: Namespace) -> Callable[[str, str], None]:
    """Decisions on stderr: a panel that is redrawn on a terminal, else a line each."""
    drawn = 0

    def show(panel: str, line: str) -> None:
        nonlocal drawn
        if not sys.stderr.isatty():
            tell(line)
            return
        back = f"\033[{drawn}A\033[J" if drawn else ""
        sys.stderr.write(f"{back}{panel}\n")
        sys.stderr.flush()
        drawn = panel.count("\n") + 1

    return show


# page, bench


def _page_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--freqs", type=frequencies, default=FREQUENCIES, help="default 7.5,8.57,10,12"
    )
    parser.add_argument("--port", type=int, default=8765, help="default 8765; 0: a free one")
    parser.add_argument("--size", type=int, default=120, help="side of a target in pixels")
    parser.add_argument("--seconds", type=positive, help="stop after so long")
    parser.add_argument("--lsl-out", action="store_true", help="onsets out as an LSL stream")


def _page(args: Namespace) -> Answer:
    from leancnn.eeg.session import serve_page

    if not 20 <= args.size <= 400:
        raise UsageError(f"--size is 20 to 400 pixels, not {args.size}")
    value = serve_page(
        args.freqs,
        port=args.port,
        size=args.size,
        seconds=args.seconds,
        lsl_out=args.lsl_out,
        say=tell,
    )
    return _account(value)


def _bench_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", help="the recorded trials: ssvep_exo_epochs.npz")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the results go")
    parser.add_argument("--docs", metavar="PAGE", help="a page that takes the tables, docs/eeg.md")
    parser.add_argument("--only", metavar="NAMES", help="tables, with commas; default: all")
    parser.add_argument("--shuffles", type=int, default=20, help="default 20")
    parser.add_argument(
        "--networks", type=int, default=4, help="seeds of ssvepnet in the yardstick, default 4"
    )
    parser.add_argument("--minutes", type=positive, default=1.0, help="of each live session")
    parser.add_argument(
        "--windows", type=frequencies, default=(2.0, 4.0, 1.0), help="seconds, of the yardstick"
    )


def _bench(args: Namespace) -> Answer:
    from leancnn.eeg.bench import TABLES, Sizes, bench

    names = args.only.split(",") if args.only else list(TABLES)
    if odd := [name for name in names if name not in TABLES]:
        raise UsageError(f"no table '{odd[0]}'; there are {', '.join(TABLES)}")
    if not Path(args.data).is_file():
        raise RunError(f"{args.data}: no such file")
    sizes = Sizes(
        shuffles=args.shuffles,
        networks=args.networks,
        minutes=args.minutes,
        windows=args.windows,
    )
    page = None if args.docs is None else Path(args.docs)
    if page is not None and not page.is_file():
        raise RunError(f"{page}: no such page")
    written = bench(args.data, Path(args.out), names, sizes=sizes, page=page)
    return Answer({"written": [str(path) for path in written]}, "\n".join(map(str, written)))


VERBS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], Answer]]] = {
    "check": ("say whether signals are fit for use", _file_arguments, _check),
    "train": ("train a decoder, scored on people not seen", _train_arguments, _train),
    "evaluate": ("what a decoder is worth, beside untrained ones", _evaluate_arguments, _evaluate),
    "run": ("decode a live source", _run_arguments, _run),
    "page": ("serve the page that flickers", _page_arguments, _page),
    "bench": ("write the tables of docs/eeg.md", _bench_arguments, _bench),
}

register(Command("eeg", "decode flickers from EEG, recorded or live", arguments, run))
