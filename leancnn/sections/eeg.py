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
        return _check(record.told)
    if record.kind == "session":
        return _session(record.told)
    if record.kind == "eeg-evaluation":
        return _evaluation(record.told)
    return _run(record) if record.kind == "eeg" else []


def _run(record: Record) -> list[Block]:
    told = record.told
    blocks: list[Block] = [
        Text(
            f"{told['decoder']} on {told['data']}: {told['trials']:,} trials of {told['people']} "
            f"people, windows of {told['window']:g} s at {told['fs']:g} Hz, "
            f"{len(told['channels'])} channels; each {told['split']} was decoded by what the "
            "others taught."
        )
    ]
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
    """What the doctor of signals said, where it was kept in the run."""
    path = record.path / "check.json"
    if not path.exists():
        words = "leancnn", "eeg", "check", record.told["data"], "--json"
        text = "What the doctor found in the signals is not on disk."
        return [Missing(text, command(*words, into=path))]
    kind, found = recognise(path)
    if kind != "eeg-check":
        raise DamagedError(f"{path} holds no check of signals; move it away")
    return _check(found)


def _evaluation(told: Mapping[str, Any]) -> list[Block]:
    low, high = told["interval"]
    shown = Bar(percent(told["accuracy"]), told["accuracy"], max(low, 0.0), min(high, 1.0))
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
        for one in told["against"]
    ]
    people: list[list[Cell]] = [
        [name, Bar(percent(share), share)] for name, share in told["per person"].items()
    ]
    head = ("decoder", "accuracy", "95 % interval over people", "trials against it", "McNemar p")
    blocks: list[Block] = [
        Text(
            f"{told['trials']:,} trials of {len(told['targets'])} targets; chance is "
            f"{percent(told['chance'])}; {told['bits per minute']:.1f} bits a minute; log loss "
            f"{told['log loss']:.3f} nats, calibration error {told['calibration error']:.3f}."
        ),
        Table(f"Accuracy on {told['split']}s that were not seen", head, rows),
        Table("Each person", ("person", "accuracy"), people),
    ]
    if told["shuffled"].get("repeats"):
        blocks.append(Text(f"With shuffled labels: {value_text(told['shuffled'])}."))
    if told["undecided"]:
        keys = list(told["undecided"][0])
        rows = [[value_text(row.get(key)) for key in keys] for row in told["undecided"]]
        blocks.append(Details("What refusing to decide gives", [Table("Thresholds", keys, rows)]))
    return blocks


def _session(told: Mapping[str, Any]) -> list[Block]:
    reasons = value_text(told["no decision"])
    right = f"; {told['right']} of {told['asked']} cued ones right" if told["asked"] else ""
    blocks: list[Block] = [
        Text(
            f"A session of {told['seconds']:g} s with {told['decoder']} on {told['source']}: "
            f"{told['decided']} of {told['decisions']} windows decided{right}; not decided: "
            f"{reasons}; ended: {value_text(told['ended'])}."
        )
    ]
    clocks = {key: told[key] for key in ("latency ms", "compute ms") if told[key]}
    if clocks:
        blocks.append(side_by_side("Milliseconds", list(clocks), list(clocks.values())))
    return blocks


def _check(told: Mapping[str, Any]) -> list[Block]:
    kind = "good" if told["fit"] else "warning"
    fit = "fit for use" if told["fit"] else "not fit for use"
    said = [f"problem: {one}" for one in told["problems"]]
    said += [f"warning: {one}" for one in told["warnings"]]
    verdict = Text(f"{told['source']} is {fit}.", "good" if kind == "good" else "warning")
    return [verdict, *map(Text, said)]
