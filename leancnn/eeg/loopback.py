"""Live sessions on this machine alone, timed: played files, an LSL stream, a BrainFlow playback."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.eeg.chunks import Chunk, Source
from leancnn.eeg.decoders import fbcca
from leancnn.eeg.live import Live
from leancnn.eeg.record import Recorder
from leancnn.eeg.sources import Replay, Synthetic
from leancnn.eeg.synthetic import CHANNELS, FS, Head
from leancnn.errors import LeanCNNError, StreamError

TARGETS = (7.5, 60 / 7, 10.0, 12.0)
EVERY_S = 0.25
CHUNK = 4  # samples that an LSL sender pushes at once
TRIAL_S = 60.0  # of made EEG at once: half an hour takes longer to make than a source may pause


def live_rows(minutes: float) -> list[dict[str, Any]]:
    """One row a source, all at once, each in a process of its own; one that cannot run says why."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(len(SESSIONS), get_context("spawn")) as pool:
        return list(pool.map(one_row, SESSIONS, [60 * minutes] * len(SESSIONS)))


def one_row(name: str, seconds: float) -> dict[str, Any]:
    """The row of one source."""
    try:
        return row(name, *SESSIONS[name](seconds))
    except LeanCNNError as error:
        empty = dict.fromkeys(("seconds", "sent", "came", "lost", "decisions"), "")
        late = dict.fromkeys(("p50", "p95", "p99", "max", "compute p50"), "")
        return {"source": f"{name}: {error}", **empty, **late}


def row(name: str, live: Live, sent: int) -> dict[str, Any]:
    """The account of a session whose source sent so many samples."""
    summary = live.session.summary()
    late, work = summary["latency ms"] or {}, summary["compute ms"] or {}
    return {
        "source": name,
        "seconds": round(summary["seconds"], 1),
        "sent": sent,
        "came": summary["samples"],
        "lost": summary["lost"],
        "decisions": summary["decisions"],
        **{key: round(late.get(key, float("nan")), 1) for key in ("p50", "p95", "p99", "max")},
        "compute p50": round(work.get("p50", float("nan")), 2),
    }


def through(source: Source) -> Live:
    """Decode a source until it is at its end, or silent."""
    live = Live(source, fbcca(TARGETS), window=2.0, every=EVERY_S)
    try:
        for _ in live:
            pass
    except StreamError:  # a sender that has sent all is silence
        if not live.session.decisions:
            raise
    return live


def _synthetic(seconds: float) -> tuple[Live, int]:
    live = through(Synthetic(TARGETS, seconds=seconds, trial_s=min(seconds, TRIAL_S)))
    return live, round(seconds * FS)


def _lsl(seconds: float) -> tuple[Live, int]:
    live, sent, _ = lsl_session("leancnn-loopback", seconds)
    return live, sent


def lsl_session(
    name: str, seconds: float, *, withheld: float = 0.0, held_up_s: float = 0.0
) -> tuple[Live, int, int]:
    """A stream to ourselves; how many samples were sent, and how many withheld.

    The sender keeps back that share of its chunks, or sleeps so long every five seconds and then
    catches up.
    """
    from leancnn.eeg.lsl import LSL, pylsl

    lsl = pylsl()
    info = lsl.StreamInfo(name, "EEG", len(CHANNELS), FS, "float32", name)
    outlet, sent = lsl.StreamOutlet(info), [0]
    x = np.ascontiguousarray(Head(-8.0).rest(round(seconds * FS)).T.astype(np.float32))
    kept = np.random.default_rng(0).random(len(x) // CHUNK + 1) >= withheld
    kept[: round(FS / CHUNK)] = kept[-round(FS / CHUNK) :] = True  # the stream's ends are seen
    pause = round(5 * FS / CHUNK)

    def send() -> None:
        while not outlet.have_consumers():
            time.sleep(0.01)
        began = time.monotonic()
        for place, start in enumerate(range(0, len(x), CHUNK)):
            part = x[start : start + CHUNK]
            if held_up_s and place % pause == pause - 1:
                time.sleep(held_up_s)
            time.sleep(max(began + (start + len(part)) / FS - time.monotonic(), 0))
            if kept[place]:
                outlet.push_chunk(part)
                sent[0] += len(part)

    return _beside(send, lambda: LSL(name)), sent[0], len(x) - sent[0]


SENDERS: dict[str, dict[str, float]] = {
    "on time": {},
    "held up for 0.05 s every 5 s": {"held_up_s": 0.05},
    "held up for 0.4 s every 5 s": {"held_up_s": 0.4},
    "1 % of chunks withheld": {"withheld": 0.01},
    "5 % of chunks withheld": {"withheld": 0.05},
}


def stamp_rows(minutes: float) -> list[dict[str, Any]]:
    """What LSL senders withheld and what was counted as lost, a row a sender, all at once."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(len(SENDERS), get_context("spawn")) as pool:
        return list(pool.map(sender_row, SENDERS, [60 * minutes] * len(SENDERS)))


def sender_row(sender: str, seconds: float) -> dict[str, Any]:
    """The row of one sender."""
    place = list(SENDERS).index(sender)
    live, sent, withheld = lsl_session(f"leancnn-sender-{place}", seconds, **SENDERS[sender])
    summary = live.session.summary()
    late = summary["latency ms"] or {}
    return {
        "sender": sender,
        "seconds": round(seconds, 1),
        "sent": sent,
        "came": summary["samples"],
        "withheld": withheld,
        "counted as lost": summary["lost"],
        **{key: round(late.get(key, float("nan")), 1) for key in ("p50", "p95", "p99")},
    }


def _beside(send: Callable[[], None], source: Callable[[], Source]) -> Live:
    thread = threading.Thread(target=send, daemon=True)
    opened = source()
    thread.start()
    return through(opened)


def _playback(seconds: float) -> tuple[Live, int]:
    from leancnn.eeg.boards import description
    from leancnn.eeg.brainflow import BrainFlow

    about = description(-1)
    count = round(seconds * about.fs)
    table = np.zeros((count, about.rows))
    made = Head(-8.0, fs=about.fs).rest(count)
    table[:, about.eeg] = made[np.arange(len(about.eeg)) % len(made)].T.round(6)
    if about.number is not None:
        table[:, about.number] = np.arange(count) % 256
    table[:, about.stamp] = 1e9 + np.arange(count) / about.fs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.csv")
        np.savetxt(path, table, delimiter="\t", fmt="%.6f")
        source = BrainFlow("playback_file", [f"file={path}", "master_board=-1"])
        return through(source), count


def _replay(seconds: float) -> tuple[Live, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.csv")
        made = Head(-8.0).rest(round(seconds * FS)).astype(np.float32)
        with closing(Recorder(path, FS, CHANNELS, "uV")) as recorder:
            recorder(Chunk(made, 0))
        return through(Replay(path)), made.shape[1]


SESSIONS: dict[str, Callable[[float], tuple[Live, int]]] = {
    "synthetic": _synthetic,
    "replay": _replay,
    "LSL": _lsl,
    "BrainFlow playback": _playback,
}
