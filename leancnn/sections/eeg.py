"""Decoders of EEG: accuracy on people not seen, beside others, and live sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

from leancnn.errors import DamagedError
from leancnn.records import Record, recognise
from leancnn.sections._base import (
    Bar,
    Block,
    Cell,
    Details,
    Missing,
    Options,
    Table,
    Text,
    command,
    parts,
    percent,
    section,
    side_by_side,
    value_text,
)


@section("eeg", "EEG", place=60)
def make(records: Sequence[Record], options: Options) -> list[Block]:
    """Each EEG run, session and check."""
    return parts([(record.name, _blocks(record)) for record in records])


def _blocks(record: Record) -> list[Block]:
    if record.kind == "eeg-check":
        return _check(record.value)
    if record.kind == "session":
        return _session(record.value)
    if record.kind == "eeg-evaluation":
        return _evaluation(record.value)
    return _run(record) if record.kind == "eeg" else []


def _run(record: Record) -> list[Block]:
    value = record.value
    blocks: list[Block] = [
        Text(
            f"{value['decoder']} on {value['data']}: {value['trials']:,} trials of "
            f"{value['people']} people, windows of {value['window']:g} s at {value['fs']:g} Hz, "
            f"{len(value['channels'])} channels; each {value['split']} was decoded by what the "
            "others taught."
        )
    ]
    if "quantized" in value:
        blocks.append(
            Text(
                f"Its networks are in 8-bit integers, with ranges from "
                f"{value['quantized']['windows']:,} windows of training; so are those of the "
                "held-out scores."
            )
        )
    path = record.path / "evaluation.json"
    if path.exists():
        kind, found = recognise(path)
        if kind != "eeg-evaluation":
            raise DamagedError(f"{path} holds no evaluation of signals; move it away")
        blocks += _evaluation(found)
    else:
        line = command("leancnn", "eeg", "evaluate", record.path)
        blocks.append(Missing("The held-out scores were not compared with other decoders.", line))
    blocks += _doctor(record)
    session = record.holds("session")
    if session is not None:
        blocks += _session(session)
    else:
        words = "leancnn", "eeg", "run", "--source", "SOURCE", "--decoder", record.path, "--json"
        line = command(*words, into=record.path / "session.json")
        blocks.append(Missing("No live session is on disk.", line))
    return blocks


def _doctor(record: Record) -> list[Block]:
    """What the doctor of signals found, where it was kept in the run."""
    path = record.path / "check.json"
    if not path.exists():
        words = "leancnn", "eeg", "check", record.value["data"], "--json"
        text = "What the doctor found in the signals is not on disk."
        return [Missing(text, command(*words, into=path))]
    kind, found = recognise(path)
    if kind != "eeg-check":
        raise DamagedError(f"{path} holds no check of signals; move it away")
    return _check(found)


def _evaluation(value: Mapping[str, Any]) -> list[Block]:
    people: list[list[Cell]] = [
        [name, Bar(percent(share), share)] for name, share in value["per person"].items()
    ]
    blocks: list[Block] = [
        Text(
            f"{value['trials']:,} trials of {len(value['targets'])} targets; chance is "
            f"{percent(value['chance'])}; {value['bits per minute']:.1f} bits a minute; log loss "
            f"{value['log loss']:.3f} nats, calibration error {value['calibration error']:.3f}."
        ),
        _accuracies(value),
        Table("Each person", ("person", "accuracy"), people),
    ]
    if value["shuffled"].get("repeats"):
        blocks.append(Text(f"With shuffled labels: {value_text(value['shuffled'])}."))
    if value["undecided"]:
        keys = list(value["undecided"][0])
        rows: list[list[Cell]] = [
            [value_text(row.get(key)) for key in keys] for row in value["undecided"]
        ]
        blocks.append(Details("What refusing to decide gives", [Table("Thresholds", keys, rows)]))
    return blocks


def _accuracies(value: Mapping[str, Any]) -> Table:
    """The decoder beside its baselines."""
    low, high = value["interval"]
    shown = Bar(percent(value["accuracy"]), value["accuracy"], max(low, 0.0), min(high, 1.0))
    rows: list[list[Cell]] = [
        ["this decoder", shown, f"{percent(low)} to {percent(high)}", "–", "–"]
    ]
    rows += [
        [
            one["name"],
            Bar(percent(one["accuracy"]), one["accuracy"]),
            "–",
            f"{one['won']} won, {one['lost']} lost",
            f"{one['p']:.2g}",
        ]
        for one in value["baselines"]
    ]
    head = ("decoder", "accuracy", "95 % interval over people", "trials against it", "McNemar p")
    return Table(f"Accuracy on {value['split']}s that were not seen", head, rows)


def _session(value: Mapping[str, Any]) -> list[Block]:
    reasons = value_text(value["no decision"])
    correct = f"; {value['correct']} of {value['asked']} cued correct" if value["asked"] else ""
    blocks: list[Block] = [
        Text(
            f"A session of {value['seconds']:g} s with {value['decoder']} on {value['source']}: "
            f"{value['decided']} of {value['decisions']} windows decided{correct}; not decided: "
            f"{reasons}; ended: {value_text(value['ended'])}."
        )
    ]
    clocks = {key: value[key] for key in ("latency ms", "compute ms") if value[key]}
    if clocks:
        blocks.append(side_by_side("Milliseconds", list(clocks), list(clocks.values())))
    return blocks


def _check(value: Mapping[str, Any]) -> list[Block]:
    kind = "good" if value["fit"] else "warning"
    fit = "fit for use" if value["fit"] else "not fit for use"
    findings = [f"problem: {one}" for one in value["problems"]]
    findings += [f"warning: {one}" for one in value["warnings"]]
    fitness = Text(f"{value['source']} is {fit}.", "good" if kind == "good" else "warning")
    return [fitness, *map(Text, findings)]
