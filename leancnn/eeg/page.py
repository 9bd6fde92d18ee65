"""The page: flickers to look at, and the decision beside them; served to this machine only.

The page asks before it flickers, measures the screen's rate, and posts what it did: the onsets of
its cues, frames drawn, frames dropped, the longest gap. Edges are not counted: a dropped frame
hides one though the phase goes on.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from leancnn.errors import LeanCNNError, UsageError

MOST_BYTES = 1 << 16  # of a post
FLASHES = (3.0, 60.0)  # Hz that a page offers at all
MOST_TARGETS = 12


class Page:
    """A server on 127.0.0.1; `port` 0 takes a free one. Use as a context, or `close` it.

    `on_onset(hz)` is called when a cue's flicker begins, 0 for rest; `on_report(facts)` with the
    page's account of its frames. Raises `UsageError` for frequencies that no page should show, and
    for a port that is taken.

    >>> with Page((10.0, 12.0), port=0) as page:
    ...     page.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        frequencies: Sequence[float],
        *,
        port: int = 8765,
        size: int = 120,
        on_onset: Callable[[float], None] = lambda hz: None,
        on_report: Callable[[dict[str, Any]], None] = lambda facts: None,
    ) -> None:
        self.frequencies = checked(frequencies)
        self.size = size
        self.on_onset, self.on_report = on_onset, on_report
        self.onsets: list[dict[str, Any]] = []
        self.report: dict[str, Any] = {}
        self.decision: dict[str, Any] = {}
        page = self

        class Handler(_Handler):
            owner = page

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be had ({error.strerror}); choose another with --port"
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True, name="page").start()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def show(self, **decision: Any) -> None:
        """What the page shows as the answer: letter, probabilities, reason, quality (lines)."""
        self.decision = decision

    def take(self, kind: str, value: Any) -> None:
        """What the page posted. Raises `LeanCNNError` for anything it would not post."""
        if kind == "onset":
            event = onset(value, self.frequencies)
            self.onsets.append(event)
            self.on_onset(event["hz"])
        elif kind == "report":
            self.report = account(value)
            self.on_report(self.report)
        else:
            raise UsageError(f"no such thing to post: {kind}")


def checked(frequencies: Sequence[float]) -> tuple[float, ...]:
    """Frequencies that a page may show, ascending. Raises `UsageError`."""
    found = tuple(sorted(set(map(float, frequencies))))
    low, high = FLASHES
    if not 1 <= len(found) <= MOST_TARGETS:
        raise UsageError(f"a page shows 1 to {MOST_TARGETS} different frequencies")
    for hz in found:
        if not (math.isfinite(hz) and low <= hz <= high):
            raise UsageError(f"a flicker is {low:g} to {high:g} Hz, not {hz:g}")
    return found


def onset(value: Any, frequencies: Sequence[float]) -> dict[str, Any]:
    """A posted onset {hz, at}: of a frequency that is shown, or 0. Raises `UsageError`."""
    hz, at = _number(value, "hz"), _number(value, "at")
    if hz and not any(math.isclose(hz, one, abs_tol=1e-6) for one in frequencies):
        raise UsageError(f"an onset of {hz:g} Hz, which is not shown")
    return {"hz": hz, "at": at}


def account(value: Any) -> dict[str, Any]:
    """A posted account of frames. Raises `UsageError` for what is no such account."""
    keys = ("rate", "frames", "dropped", "longest_ms", "seconds")
    found: dict[str, Any] = {key: _number(value, key) for key in keys}
    refused = value.get("refused", [])
    if not isinstance(refused, list) or not all(isinstance(hz, int | float) for hz in refused):
        raise UsageError("refused is a list of frequencies")
    return {**found, "refused": refused, "hidden": bool(value.get("hidden", False))}


def _number(value: Any, key: str) -> float:
    found = value.get(key) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UsageError(f"{key} is a number")
    return float(found)


class _Handler(BaseHTTPRequestHandler):
    """One request. Only a page of this server may post: the host and the origin are looked at."""

    owner: Page
    server_version = "leancnn"
    sys_version = ""
    timeout = 10

    def _ours(self) -> bool:
        hosts = {f"127.0.0.1:{self.owner.port}", f"localhost:{self.owner.port}"}
        origin = self.headers.get("Origin")
        fits = origin is None or origin.removeprefix("http://") in hosts
        return self.headers.get("Host") in hosts and fits

    def do_GET(self) -> None:
        if not self._ours():
            self._answer(403, b"this page is for its own machine\n", "text/plain")
        elif self.path == "/":
            page = files("leancnn.eeg").joinpath("flicker.html").read_text(encoding="utf-8")
            settings = json.dumps({"frequencies": self.owner.frequencies, "size": self.owner.size})
            page = page.replace("/*settings*/ null", settings)
            self._answer(200, page.encode(), "text/html; charset=utf-8")
        elif self.path == "/decision":
            self._answer(200, json.dumps(self.owner.decision).encode(), "application/json")
        else:
            self._answer(404, b"not here\n", "text/plain")

    def do_POST(self) -> None:
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            size = -1
        if not self._ours():
            self._answer(403, b"this page is for its own machine\n", "text/plain")
        elif not 0 <= size <= MOST_BYTES:
            self._answer(413, b"too long, or of no length\n", "text/plain")
        else:
            self._take(self.rfile.read(size))

    def _take(self, body: bytes) -> None:
        try:
            self.owner.take(self.path.strip("/"), json.loads(body))
        except (LeanCNNError, ValueError, RecursionError) as error:
            self._answer(400, f"{error}\n".encode(), "text/plain")
            return
        self._answer(200, b"{}", "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'")
        # With both a page may read the clock to 5 µs, without to 100.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: stderr is for people."""
