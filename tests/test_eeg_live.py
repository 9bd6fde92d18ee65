"""Live decoding, on made sources: the same bits as offline, and what bad sources do."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from leancnn.eeg import Epochs, Event, Live, load, open_source, session
from leancnn.eeg.chunks import Chunk
from leancnn.eeg.decoders import fbcca
from leancnn.eeg.display import big, line, panel
from leancnn.eeg.record import Recorder
from leancnn.eeg.session import Cued, Options, run_live
from leancnn.eeg.sources import Replay, Synthetic
from leancnn.eeg.windows import windows
from leancnn.errors import StreamError, UnknownNameError, UsageError
from tests.eeg_data import TARGETS, people, save_trials


class Fake:
    """A source of chunks, some of them mistreated."""

    name, fs, channels, unit = "fake", 250.0, tuple("ABCDEFGH"), "uV"

    def __init__(self, chunks, then=lambda: None):
        self.chunks, self.then, self.closed = chunks, then, 0

    def __iter__(self):
        yield from self.chunks
        self.then()

    def close(self):
        self.closed += 1


def clear(trials=8, snr_db=-3.0):
    return people(count=1, trials=trials, snr_db=snr_db)


def as_chunks(epochs, size=25, change=lambda x, n: x, fresh=True):
    length, cue = epochs.x.shape[2], epochs.sample(0.0)
    for number, (trial, hz) in enumerate(zip(epochs.x, epochs.hz, strict=True)):
        for start in range(0, length, size):
            part = change(trial[:, start : start + size].copy(), number)
            events = (
                (Event(number * length + cue, float(hz)),) if start <= cue < start + size else ()
            )
            first = number * length + start
            yield Chunk(part, first, None, events, fresh and start == 0)


@pytest.mark.parametrize("chunk_s", [0.004, 0.04, 1.0])
def test_a_file_played_again_gives_the_decisions_of_the_evaluation(tmp_path, chunk_s):
    epochs = people(count=2, trials=8)[np.arange(0, 16, 8 if chunk_s < 0.01 else 1)]
    source = Replay(save_trials(tmp_path / "a.npz", epochs), speed=0, chunk_s=chunk_s)
    decoder = fbcca(TARGETS)
    live = list(Live(source, decoder, window=2.0))
    offline = [decoder.scores(w, epochs.fs) for w in windows(epochs, decoder.bank, 2.0)]
    assert len(live) == len(offline)
    for one, other in zip(live, offline, strict=True):
        assert np.array_equal(one.scores, other)


def test_a_recording_played_again_decides_as_it_did_when_it_was_made(tmp_path):
    source = Synthetic(TARGETS, speed=0, seconds=24)
    recorder = Recorder(tmp_path / "r.csv", source.fs, source.channels, source.unit)
    first = list(Live(source, fbcca(TARGETS), window=2.0, on_chunk=recorder))
    recorder.close()
    again = list(Live(Replay(tmp_path / "r.csv", speed=0), fbcca(TARGETS), window=2.0))
    assert [d.choice for d in first] == [0, 1, 2, 3]
    assert [np.array_equal(a.scores, b.scores) for a, b in zip(first, again, strict=True)] == [
        True
    ] * 4


def test_without_cues_decisions_come_at_their_pace():
    chunks = list(as_chunks(clear(trials=2), fresh=False))
    live = Live(Fake(chunks), fbcca(TARGETS), window=2.0, every=0.25)
    places = [decision.sample for decision in live]
    assert places[0] == 500
    assert set(np.diff(places)) == {round(0.25 * 250)}


def decided(live):
    return [d.correct for d in live if d.choice is not None]


def test_a_source_that_dies_is_said_and_what_came_is_kept(tmp_path):
    recorder = Recorder(tmp_path / "r.csv", 250.0, Fake.channels, "uV")
    hang = threading.Event()
    source = Fake(list(as_chunks(clear(trials=2))), lambda: hang.wait(20))
    live = Live(source, fbcca(TARGETS), window=2.0, on_chunk=recorder, silence_s=0.3)
    began = time.monotonic()
    with pytest.raises(StreamError, match=r"fake: no sample for 0.3 s; the source is gone"):
        list(live)
    assert time.monotonic() - began < 3
    hang.set()
    recorder.close()
    assert source.closed
    assert load(tmp_path / "r.csv").x.shape[1] == live.ring.counts["samples"]
    assert "gone" in live.session.ended


def test_an_error_of_the_source_comes_through():
    def fail():
        raise UnknownNameError("no such stream")

    with pytest.raises(UnknownNameError):
        list(Live(Fake([], fail), fbcca(TARGETS), window=2.0))


def lossy(epochs, share, seed=0):
    random = np.random.default_rng(seed)
    return [c for c in as_chunks(epochs, size=2) if c.fresh or c.events or random.random() > share]


def test_lost_packets_are_counted_and_mostly_decided_on():
    epochs = clear(trials=12)
    live = Live(Fake(lossy(epochs, 0.03)), fbcca(TARGETS), window=2.0)
    found = list(live)
    counts = live.ring.counts
    assert len(found) == 12  # also where the last sample of a window was lost
    assert counts["lost"] > 0
    assert counts["samples"] + counts["lost"] == pytest.approx(12 * epochs.x.shape[2], abs=40)
    assert np.mean(decided(found)) > 0.8


@pytest.mark.parametrize("kind", ["flat", "railed", "nan", "mains"])
def test_bad_channels_are_left_out_or_said_and_nothing_crashes(kind):
    def change(x, number):
        if kind == "flat":
            x[1] = 0.0
        elif kind == "railed":
            x[1] = 187500.0
        elif kind == "nan":
            x[2, 3] = np.nan
        else:
            x += 100 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / 250)
        return x

    live = Live(Fake(list(as_chunks(clear(), change=change))), fbcca(TARGETS), window=2.0)
    found = list(live)
    if kind in ("flat", "railed"):
        assert all(d.unused == (1,) for d in found)
    if kind == "nan":
        assert live.ring.counts["nan"] > 0
    assert np.mean(decided(found)) > 0.8


def test_a_dead_cap_decides_nothing():
    def dead(x, number):
        return np.zeros_like(x)

    live = Live(Fake(list(as_chunks(clear(), change=dead))), fbcca(TARGETS), window=2.0)
    assert {d.reason for d in live} == {"8 channels are flat or railed"}


def test_a_break_in_the_window_is_a_reason():
    chunks = [c for c in as_chunks(clear(trials=1)) if not 500 <= c.first < 600]
    (decision,) = Live(Fake(chunks), fbcca(TARGETS), window=2.0)
    assert decision.choice is None
    assert "without a break" in decision.reason


def test_below_the_threshold_and_without_agreement_there_is_no_decision():
    chunks = list(as_chunks(clear(trials=4), fresh=False))
    unsure = list(Live(Fake(chunks), fbcca(TARGETS), window=2.0, threshold=1.0))
    assert all("unsure" in d.reason for d in unsure)
    agreed = list(Live(Fake(chunks), fbcca(TARGETS), window=2.0, every=0.5, agree=3))
    assert agreed[0].choice is None
    assert "3 in a row" in agreed[0].reason


def test_a_session_from_end_to_end(tmp_path):
    shown = []
    options = Options(
        source="synthetic", speed=0, seconds=12, snr_db=-3.0, record=str(tmp_path / "r.csv"), page=0
    )
    value = run_live(fbcca(TARGETS), options, lambda panel, line: shown.append(line))
    assert (value["decisions"], value["asked"], value["correct"]) == (2, 2, 2)
    assert value["samples"] == 3000
    assert shown[0].startswith("page: http://127.0.0.1:")
    assert isinstance(load(tmp_path / "r.csv").x, np.ndarray)


@pytest.mark.parametrize("seconds", [0.4, 12.0, 14.0])
def test_made_eeg_is_as_long_as_it_was_asked_for(seconds):
    chunks = list(Synthetic(TARGETS, speed=0, seconds=seconds))
    assert sum(chunk.x.shape[1] for chunk in chunks) == round(250 * seconds)
    assert [chunk.first for chunk in chunks if chunk.fresh] == [
        1500 * n for n in range(int(-(-seconds // 6)))
    ]


def test_a_session_whose_source_died_has_its_account_and_names_its_recording(tmp_path, monkeypatch):
    def die():
        raise StreamError("fake: no sample for 2 s; the source is gone")

    monkeypatch.setattr(session, "open_source", lambda *_, **__: Fake(as_chunks(clear(2)), die))
    path = tmp_path / "r.csv"
    options = Options(source="fake", record=str(path))
    value = run_live(fbcca(TARGETS), options, lambda panel, line: None)
    assert value["error"].endswith(f"the source is gone; {path} holds what came")
    assert value["error"].startswith(value["ended"])
    assert (value["decisions"], value["samples"]) == (2, load(path).x.shape[1])


def test_cues_of_the_source_and_of_a_page_go_out_as_words():
    words = []
    source = Cued(Fake(list(as_chunks(clear(trials=2)))), words.append)
    chunks = iter(source)
    next(chunks)
    source.cue(0.0)
    events = [event for chunk in chunks for event in chunk.events]
    assert [event.label for event in events] == [0.0, *(float(hz) for hz in clear(trials=2).hz)]
    assert words == ["cue rest", *(f"cue {hz:g}" for hz in clear(trials=2).hz)]


@pytest.mark.parametrize("word", ["replay:", "nothing", "synthetic:3", "lsl:", ""])
def test_a_source_that_is_none_is_refused(word):
    with pytest.raises(UsageError, match="is no source"):
        open_source(word, frequencies=TARGETS)


def test_the_terminal_shows_letter_bars_and_reasons():
    found = list(Live(Fake(list(as_chunks(clear(trials=1)))), fbcca(TARGETS), window=2.0))
    text = panel(replace(found[0], unused=(1,)), TARGETS, Fake.channels, lost=3)
    assert text.count("\n") >= 4
    assert "left out: B" in text
    assert "lost samples: 3" in text
    assert len(big(0)) == 5
    assert "7.5 Hz" in line(found[0], TARGETS, 250.0)


def sent_by_lsl(kept, stall=None, count=500):
    """A stream of `count` chunks of 4 samples at 250 Hz through LSL, of which those `kept` are sent
    at their time; `stall`: the chunk before which the sender sleeps 0.4 s, and catches up then.
    Stamps are those of a sender that is on time but for that, however busy the machine is."""
    pylsl = pytest.importorskip("pylsl", reason="needs the extra eeg")
    from leancnn.eeg.lsl import LSL

    name = f"leancnn-test-{time.monotonic_ns()}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 8, 250, "float32", name))
    live = Live(LSL(name), fbcca(TARGETS), window=2.0, every=0.5, silence_s=3.0)
    x = np.random.default_rng(0).standard_normal((count, 4, 8)).astype(np.float32)
    over = threading.Event()

    def send():
        while not (outlet.have_consumers() or over.wait(0.01)):
            pass
        began, clock = time.monotonic(), pylsl.local_clock()
        for place in kept:
            due = (place + 1) * 4 / 250
            if stall is not None and place >= stall:
                due = max(due, (stall + 1) * 4 / 250 + 0.4)
            over.wait(max(began + due - time.monotonic(), 0))
            outlet.push_chunk(x[place], clock + due)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(StreamError, match="no sample for 3 s"):
            list(live)
    finally:
        over.set()
        sender.join()
    return live


@pytest.mark.slow
@pytest.mark.parametrize("stall", [None, 250])
def test_an_lsl_stream_comes_whole_and_its_death_is_noticed(stall):
    live = sent_by_lsl(range(500), stall)
    assert live.ring.counts["samples"] == 2000
    assert live.ring.counts["lost"] == 0


@pytest.mark.slow
def test_chunks_that_an_lsl_sender_withheld_are_counted():
    random = np.random.default_rng(1)
    kept = [n for n in range(500) if n < 20 or n > 450 or random.random() > 0.05]
    live = sent_by_lsl(kept)
    assert live.ring.counts["samples"] == 4 * len(kept)
    assert live.ring.counts["lost"] == 4 * (500 - len(kept))


@pytest.mark.slow
def test_a_brainflow_playback_comes_whole(tmp_path):
    pytest.importorskip("brainflow", reason="needs the extra eeg-board")
    from leancnn.eeg.boards import description
    from leancnn.eeg.brainflow import BrainFlow

    about = description(-1)
    count = 1500
    table = np.zeros((count, about.rows))
    random = np.random.default_rng(0)
    table[:, about.eeg] = random.standard_normal((count, len(about.eeg))).round(6)
    table[:, about.number] = np.arange(count) % 256
    table[:, about.stamp] = 1e9 + np.arange(count) / about.fs
    np.savetxt(tmp_path / "b.csv", table, delimiter="\t", fmt="%.6f")
    source = BrainFlow("playback_file", [f"file={tmp_path / 'b.csv'}", "master_board=-1"])
    live = Live(source, fbcca(TARGETS), window=2.0, every=0.5, silence_s=2.0)
    with pytest.raises(StreamError):
        list(live)
    assert live.ring.counts["samples"] == count
    assert live.ring.counts["lost"] == 0
    found = load(tmp_path / "b.csv", board=-1)
    assert isinstance(found, Epochs) is False
    assert found.x.shape == (len(about.eeg), count)
