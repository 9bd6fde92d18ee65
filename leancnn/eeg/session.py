"""A live session from end to end: source, recorder, decoder, display, page and markers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leancnn.eeg.chunks import Chunk, Source
from leancnn.eeg.decoders import Decoder
from leancnn.eeg.display import letter, line, panel, quality
from leancnn.eeg.live import Decision, Live
from leancnn.eeg.page import Page
from leancnn.eeg.record import Recorder
from leancnn.eeg.recording import Event
from leancnn.eeg.sources import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `leancnn eeg run` is asked for."""

    source: str
    window: float = 2.0
    every: float | None = None
    seconds: float | None = None
    speed: float = 1.0
    snr_db: float = -8.0
    threshold: float = 0.0
    agree: int = 1
    mains: float | None = None
    record: str | None = None
    unit: str | None = None
    page: int | None = None
    lsl_out: bool = False
    board_args: tuple[str, ...] = ()


class Cued:
    """A source with a page's cues among its events: at the newest sample when they came.

    `tell`, where there is one, is told of every event as a word: `cue 7.5`, `cue rest`.
    """

    def __init__(self, source: Source, tell: Callable[[str], None] | None = None) -> None:
        self.tell = tell
        self._source = source
        self.name, self.fs = source.name, source.fs
        self.channels, self.unit = source.channels, source.unit
        self._cues: list[float] = []

    def cue(self, hz: float) -> None:
        self._cues.append(hz)

    def __iter__(self) -> Iterator[Chunk | None]:
        for chunk in self._source:
            if chunk is not None and self._cues:
                waiting, self._cues = self._cues, []
                at = chunk.first + chunk.x.shape[1] - 1
                cues = (Event(at, hz) for hz in waiting)
                chunk = replace(chunk, events=(*chunk.events, *cues))
            if chunk is not None and self.tell is not None:
                for event in chunk.events:
                    self.tell(f"cue {word_of(event.label)}")
            yield chunk

    def close(self) -> None:
        self._source.close()


def run_live(
    decoder: Decoder, options: Options, show: Callable[[str, str], None]
) -> dict[str, Any]:
    """Decode until the source ends, the time is up, or Ctrl-C; the account of it.

    `show(panel, line)` is called for each decision. Raises as the source does, and `StreamError`
    when it falls silent; a recording is closed before.
    """
    inner = open_source(
        options.source,
        frequencies=decoder.frequencies,
        speed=options.speed,
        seconds=options.seconds,
        snr_db=options.snr_db,
        unit=options.unit,
        board_args=options.board_args,
    )
    source = Cued(inner)
    with contextlib.ExitStack() as held:
        held.callback(source.close)
        recorder = None
        if options.record:
            recorder = Recorder(options.record, source.fs, source.channels, source.unit)
            held.callback(recorder.close)
        outlet = _outlet() if options.lsl_out else None
        source.tell = outlet
        page = None
        if options.page is not None:
            page = held.enter_context(
                Page(decoder.frequencies, port=options.page, on_onset=source.cue)
            )
            show(f"page: {page.url}", f"page: {page.url}")
        live = Live(
            source,
            decoder,
            window=options.window,
            every=options.every,
            threshold=options.threshold,
            agree=options.agree,
            mains=options.mains,
            on_chunk=recorder,
            seconds=options.seconds,
        )
        try:
            for decision in live:
                _tell(decision, decoder, live, show, page, outlet)
        except KeyboardInterrupt:
            live.session.ended = "interrupted"
        value: dict[str, Any] = {
            "source": source.name,
            "decoder": decoder.name,
            **live.session.summary(),
        }
        if recorder is not None:
            value["recording"] = str(recorder.path)
        if page is not None:
            value["page"] = page.report
    return value


def word_of(label: float | str) -> str:
    """An event as markers say it: its frequency, `rest` for 0, or its own word."""
    if isinstance(label, str):
        return label
    return f"{label:g}" if label else "rest"


def _outlet() -> Callable[[str], None]:
    from leancnn.eeg.lsl import Outlet

    return Outlet().send


def _tell(
    decision: Decision,
    decoder: Decoder,
    live: Live,
    show: Callable[[str, str], None],
    page: Page | None,
    outlet: Callable[[str], None] | None,
) -> None:
    source = live.source
    show(
        panel(decision, decoder.frequencies, source.channels, live.ring.counts["lost"]),
        line(decision, decoder.frequencies, source.fs),
    )
    sure = None if decision.probabilities is None else decision.probabilities.round(4).tolist()
    if page is not None:
        odd = quality(decision, source.channels, live.ring.counts["lost"])
        page.show(
            letter=letter(decision.choice),
            probabilities=sure,
            reason=decision.reason,
            quality=odd,
        )
    if outlet is not None:
        word = "none" if decision.choice is None else f"{decoder.frequencies[decision.choice]:g}"
        outlet(word)


def serve_page(
    frequencies: Sequence[float],
    *,
    port: int,
    size: int,
    seconds: float | None,
    lsl_out: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Serve the page until Ctrl-C or `seconds` are over; its onsets and its account of frames."""
    outlet = _outlet() if lsl_out else None

    def on_onset(hz: float) -> None:
        word = word_of(hz)
        say(f"onset: {word}")
        if outlet is not None:
            outlet(word)

    with Page(frequencies, port=port, size=size, on_onset=on_onset) as page:
        say(f"{page.url} shows {', '.join(f'{hz:g}' for hz in page.frequencies)} Hz; Ctrl-C ends")
        end = None if seconds is None else time.monotonic() + seconds
        with contextlib.suppress(KeyboardInterrupt):
            while end is None or time.monotonic() < end:
                time.sleep(0.1)
        return {"url": page.url, "onsets": len(page.onsets), "frames": page.report}
