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
from leancnn.errors import StreamError
from leancnn.process import Terminated

TIME_UP, INTERRUPTED, TERMINATED = "the time was up", "interrupted", "terminated"


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


def load_decoder(folder: str) -> tuple[Decoder, dict[str, Any]]:
    """A run's decoder as a live session needs it, integers compiled, and what is said of it.

    Raises `RunError`, `DamagedError`.
    """
    from leancnn.eeg.training import load

    decoder, about = load(folder)
    if about.get("quantized"):
        from leancnn.eeg.integers import with_compiled_integers

        decoder = with_compiled_integers(decoder)
    return decoder, about


class Cued:
    """A source with a page's cues among its events: at the newest sample when they came.

    `on_event`, where there is one, is told of every event as a word: `cue 7.5`, `cue rest`.
    """

    def __init__(self, source: Source, on_event: Callable[[str], None] | None = None) -> None:
        self.on_event = on_event
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
            if chunk is not None and self.on_event is not None:
                for event in chunk.events:
                    self.on_event(f"cue {marker_text(event.label)}")
            yield chunk

    def close(self) -> None:
        self._source.close()


class Outputs:
    """Where decisions go: the display, and the page and the LSL outlet where there are such.

    `show(panel, line)` is the display: a panel where one can be drawn, else a line.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: Source,
        show: Callable[[str, str], None],
        *,
        page: Page | None = None,
        outlet: Callable[[str], None] | None = None,
    ) -> None:
        self.frequencies, self.source = decoder.frequencies, source
        self.show, self.page, self.outlet = show, page, outlet

    def put(self, decision: Decision, lost: int) -> None:
        """Show a decision; `lost` samples are missing so far."""
        channels = self.source.channels
        self.show(
            panel(decision, self.frequencies, channels, lost),
            line(decision, self.frequencies, self.source.fs),
        )
        if self.page is not None:
            sure = decision.probabilities
            self.page.show(
                letter=letter(decision.choice),
                probabilities=None if sure is None else sure.round(4).tolist(),
                reason=decision.reason,
                quality=quality(decision, channels, lost),
            )
        if self.outlet is not None:
            choice = decision.choice
            self.outlet("none" if choice is None else f"{self.frequencies[choice]:g}")


def run_live(
    decoder: Decoder, options: Options, show: Callable[[str, str], None]
) -> dict[str, Any]:
    """Decode until the source ends, the time is up, Ctrl-C or SIGTERM; the account of it.

    `show(panel, line)` is called for each decision; `ended` of the account says what ended it, and
    `error` is there where the source died. Raises as the source does; a recording is closed before.
    """
    with contextlib.ExitStack() as held:
        source = Cued(_source(decoder, options))
        held.callback(source.close)
        recorder = None
        if options.record:
            recorder = Recorder(options.record, source.fs, source.channels, source.unit)
            held.callback(recorder.close)
        source.on_event = _outlet() if options.lsl_out else None
        outputs = Outputs(decoder, source, show, outlet=source.on_event)
        if options.page is not None:
            page = Page(decoder.frequencies, port=options.page, on_onset=source.cue)
            outputs.page = held.enter_context(page)
            show(f"page: {page.url}", f"page: {page.url}")
        live, account = _live(source, decoder, options, recorder), dict[str, Any]()
        try:
            for decision in live:
                outputs.put(decision, live.ring.counts["lost"])
        except KeyboardInterrupt as by:
            live.session.ended = _ended(by)
        except StreamError as error:
            account["error"] = str(error)
        account |= {"source": source.name, "decoder": decoder.name, **live.session.summary()}
        if recorder is not None:
            account["recording"] = str(recorder.path)
            if "error" in account:
                account["error"] += f"; {recorder.path} holds what came"
        if outputs.page is not None:
            account["page"] = outputs.page.report
    return account


def _source(decoder: Decoder, options: Options) -> Source:
    return open_source(
        options.source,
        frequencies=decoder.frequencies,
        speed=options.speed,
        seconds=options.seconds,
        snr_db=options.snr_db,
        unit=options.unit,
        board_args=options.board_args,
    )


def _live(source: Source, decoder: Decoder, options: Options, recorder: Recorder | None) -> Live:
    return Live(
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


def marker_text(label: float | str) -> str:
    """An event as markers say it: its frequency, `rest` for 0, or its own word."""
    if isinstance(label, str):
        return label
    return f"{label:g}" if label else "rest"


def _outlet() -> Callable[[str], None]:
    from leancnn.eeg.lsl import Outlet

    return Outlet().send


def serve_page(
    frequencies: Sequence[float],
    *,
    port: int,
    size: int,
    seconds: float | None,
    lsl_out: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Serve the page until Ctrl-C, SIGTERM, or `seconds` are over: onsets, frames, its end."""
    outlet = _outlet() if lsl_out else None

    def on_onset(hz: float) -> None:
        word = marker_text(hz)
        say(f"onset: {word}")
        if outlet is not None:
            outlet(word)

    with Page(frequencies, port=port, size=size, on_onset=on_onset) as page:
        say(f"{page.url} shows {', '.join(f'{hz:g}' for hz in page.frequencies)} Hz; Ctrl-C ends")
        end = None if seconds is None else time.monotonic() + seconds
        ended = TIME_UP
        try:
            while end is None or time.monotonic() < end:
                time.sleep(0.1)
        except KeyboardInterrupt as by:
            ended = _ended(by)
        return {
            "url": page.url,
            "onsets": len(page.onsets),
            "frames": page.report,
            "ended": ended,
        }


def _ended(by: KeyboardInterrupt) -> str:
    """Ctrl-C is how whoever sits there ends a session, SIGTERM comes from somebody else."""
    return TERMINATED if isinstance(by, Terminated) else INTERRUPTED
