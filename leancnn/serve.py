"""Predict over HTTP: a network behind a bounded queue, for clients nobody can trust.

request → admitted (or 503) → body within its limits and its time → pictures → a pool of threads
that decode, prepare and classify → JSON

Nothing of a request becomes a path, a shell's word, a line of a log or markup. What cannot be
answered gets a status and one line that says why.
"""

import asyncio
import contextlib
import copy
import html
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from leancnn.classifier import Classifier
from leancnn.connections import RETRY_S, GatedServer, Rules
from leancnn.errors import (
    ImageError,
    LeanCNNError,
    MismatchError,
    MissingDependencyError,
    ServeError,
)
from leancnn.openapi import described
from leancnn.predict import predict_readable
from leancnn.request_body import RefusedError, pictures_in
from leancnn.tables import printable
from leancnn.uploads import checked
from leancnn.weights import Network

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from uvicorn import Config, Server
except ImportError as error:
    raise MissingDependencyError(
        f"serving needs {error.name}; pip install 'leancnn[serve]'"
    ) from error

POLICY = "default-src 'none'; connect-src 'self'; img-src blob: data:; media-src blob:; "
POLICY += "script-src 'self'; style-src 'self'; form-action 'none'; base-uri 'none'"
THERE = "They stay on this device: the network runs here."
HERE = "They are sent to this server, which classifies them and keeps none."
BUSY = "too many requests at once; try again later"
SWITCH_S = 0.0005  # how long a thread keeps the interpreter while another waits; refusals are due
SMOOTH = 0.1  # weight of the newest request in the average of how long one takes
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server takes at most. Raises `MismatchError` for what is no limit."""

    body: int = 20_000_000
    """Bytes of one request."""
    bodies: int = 64_000_000
    """Bytes of all requests that are being read or wait."""
    pictures: int = 32
    """Of one request."""
    pixels: int = 16_000_000
    """Of one picture, by its header."""
    together: int = 64_000_000
    """Pixels of all pictures of one request."""
    connections: int = 500
    """At once; the next gets 503."""
    waiting: int = 64
    """Requests that have arrived and wait or are at work; the next gets 503."""
    wait_s: float = 0.5
    """How long a request may have to wait for the workers, by what the last ones took; the next
    gets 503. A number of requests alone is too long a queue on a slow processor."""
    header_s: float = 5.0
    """From the first byte of a request, or from connecting, to the end of its headers."""
    body_s: float = 10.0
    """From there to the end of its body."""
    answer_s: float = 10.0
    """In which a client reads what it is told."""
    workers: int = os.cpu_count() or 1
    """Threads that decode and classify."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise MismatchError(f"a server's {name} is more than 0, not {getattr(self, name)}")


class Service:
    """Whatever answers as an ASGI application: `Service(native).app`.

    `POST /predict` takes a picture as the body, or several as multipart/form-data; `?top=3` says
    how many classes are named. `GET /` is a page, `/health`, `/ready`, `/metrics`, `/about`,
    `/openapi.json` say what they are called.

        uvicorn.run(Service(leancnn.compile("runs/a")).app)
    """

    def __init__(self, network: Classifier, limits: Limits | None = None) -> None:
        if isinstance(network, Network):  # threads share it, and its owner keeps his mode
            network = copy.deepcopy(network).eval()
        self.network, self.limits = network, limits or Limits()
        self.pool = ThreadPoolExecutor(self.limits.workers, "predict")
        self.admitted, self.held = 0, 0  # requests; bytes of their bodies
        self.took_s = 0.0  # a request's time in a worker: a moving average
        self.metrics = Metrics(network)
        self.app = Starlette(
            routes=[
                Route("/predict", self.predict, methods=["POST"]),
                Route("/health", self.health),
                Route("/ready", self.ready),
                Route("/metrics", self.measured),
                Route("/about", self.about),
                Route("/openapi.json", self.document),
                *(Route(path, partial(_sent, *page)) for path, page in _pages(network).items()),
            ],
            exception_handlers={HTTPException: _failed, Exception: _broken},
        )

    async def predict(self, request: Request) -> Response:
        """The classes of the pictures in a request."""
        began = time.perf_counter()
        try:
            found = await self._admitted(request)
            answer: Response = JSONResponse({"model": self.network.name, **found})
        except RefusedError as refused:
            answer = _error(refused.status, str(refused))
        except ClientDisconnect:
            answer = _error(400, "the client went away")
        self.metrics.note(answer.status_code, time.perf_counter() - began)
        return answer

    async def _admitted(self, request: Request) -> dict[str, Any]:
        top, held = _top(request), [0]
        self._refuse_when_full()
        try:
            async with asyncio.timeout(self.limits.body_s):
                body = b"".join([chunk async for chunk in self._chunks(request, held)])
            self._refuse_when_full()
            self.admitted += 1
            try:
                work = partial(self._classified, request.headers, body, top)
                found, took_s = await asyncio.get_running_loop().run_in_executor(self.pool, work)
                self.took_s += SMOOTH * (took_s - self.took_s)
                return {"predictions": found, "milliseconds": round(1000 * took_s, 3)}
            finally:
                self.admitted -= 1
        except TimeoutError:
            late = f"the body did not arrive within {self.limits.body_s:g} s"
            raise RefusedError(408, late) from None
        finally:
            self.held -= held[0]

    def full(self) -> bool:
        """Whether the next request is told to come again: too many wait, or it would too long."""
        waiting = self.admitted - self.limits.workers
        wait_s = (waiting + 1) * self.took_s / self.limits.workers if waiting >= 0 else 0.0
        return self.admitted >= self.limits.waiting or wait_s > self.limits.wait_s

    def refused(self) -> None:
        """Count a request that was told so before anybody looked at it."""
        self.metrics.note(503, 0.0)

    def _refuse_when_full(self) -> None:
        if self.full():
            raise RefusedError(503, BUSY)

    async def _chunks(self, request: Request, held: list[int]) -> AsyncIterator[bytes]:
        """The body as it comes, refused as soon as it is known to be too much; `held` counts."""
        limits = self.limits
        declared = request.headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit():
            raise RefusedError(400, "Content-Length is no number of bytes")
        too_large = f"the body is larger than {limits.body:,} bytes"
        if int(declared) > limits.body:
            raise RefusedError(413, too_large)
        if self.held + int(declared) > limits.bodies:
            raise RefusedError(503, "too much at once; try again later")
        async for chunk in request.stream():
            held[0] += len(chunk)
            self.held += len(chunk)
            if held[0] > limits.body:
                raise RefusedError(413, too_large)
            if self.held > limits.bodies:
                raise RefusedError(503, "too much at once; try again later")
            yield chunk

    def _classified(
        self, headers: Headers, body: bytes, top: int
    ) -> tuple[list[dict[str, Any]], float]:
        """Decode, prepare and classify, in a thread of the pool; what is said, and its seconds."""
        began, room = time.perf_counter(), self.limits.together
        answers = []
        for name, data in pictures_in(headers, body, self.limits.pictures):
            answer, pixels = self._one(name, data, top, room)
            answers.append(answer)
            room -= pixels
        if not any("label" in answer for answer in answers):
            raise RefusedError(422, "; ".join(answer["error"] for answer in answers[:5]))
        self.metrics.pictures.inc(len(answers))
        return answers, time.perf_counter() - began

    def _one(self, name: str, data: bytes, top: int, room: int) -> tuple[dict[str, Any], int]:
        """What is said of a picture, and how many pixels were looked at; `room`: at most."""
        pixels = 0
        try:
            data, pixels = checked(data, self.limits.pixels)
            if pixels > room:
                raise ImageError(f"with those before more than {self.limits.together:,} pixels")
            found, refused = predict_readable(self.network, data, top=top)
        except LeanCNNError as error:
            return {"name": name, "error": str(error)}, 0
        if refused:
            return {"name": name, "error": refused[0].reason}, pixels
        return {**found[0].to_json(), "name": name, "path": name}, pixels

    async def health(self, request: Request) -> Response:
        """Whether the process answers at all."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Whether a request would be admitted now."""
        if self.full():
            return _error(503, BUSY)
        return JSONResponse({"status": "ready", "model": self.network.name})

    async def measured(self, request: Request) -> Response:
        """Figures in Prometheus' text format."""
        self.metrics.admitted.set(self.admitted)
        return Response(
            generate_latest(self.metrics.registry), media_type="text/plain; version=0.0.4"
        )

    async def about(self, request: Request) -> Response:
        """The network: its name, classes, and input as channels, rows and columns."""
        pictures = self.network.pictures()
        height, width = pictures.size
        size = {"channels": pictures.channels, "height": height, "width": width}
        classes = list(self.network.classes)
        return JSONResponse({"name": self.network.name, "classes": classes, "size": size})

    async def document(self, request: Request) -> Response:
        """This interface as an OpenAPI document."""
        return JSONResponse(described(self.network))


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self, network: Classifier) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.requests = Counter(
            "leancnn_requests", "Requests to predict, and all that were refused", ["status"], **own
        )
        self.pictures = Counter("leancnn_pictures", "Pictures in answered requests", **own)
        self.seconds = Histogram(
            "leancnn_request_seconds", "Of answered requests", buckets=BUCKETS, **own
        )
        self.admitted = Gauge("leancnn_admitted", "Requests being read, waiting or at work", **own)
        Gauge("leancnn_classes", "Classes of the network", **own).set(len(network.classes))

    def note(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(str(status)).inc()
        if status == 200:
            self.seconds.observe(seconds)


def _pages(network: Classifier) -> dict[str, tuple[str, str]]:
    """The page, as `leancnn export --to web` has it, with the network here: media type and text."""
    folder = files("leancnn") / "page"
    fields = {
        "POLICY": POLICY,
        "TITLE": html.escape(network.name),
        "STYLE": '<link rel="stylesheet" href="page.css">',
        "SCRIPT": '<script type="module" src="page.mjs"></script>',
    }
    page = (folder / "index.html").read_text(encoding="utf-8").replace(THERE, HERE)
    page = re.sub(r"@([A-Z]+)@", lambda found: fields[found[1]], page)
    found = {"/": ("text/html", page)}
    for path, name in (("page.mjs", "page.mjs"), ("classify.mjs", "remote.mjs")):
        found[f"/{path}"] = ("text/javascript", (folder / name).read_text(encoding="utf-8"))
    found["/page.css"] = ("text/css", (folder / "page.css").read_text(encoding="utf-8"))
    return found


async def _sent(kind: str, text: str, request: Request) -> Response:
    return Response(text, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})


def _top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 1000):
        raise RefusedError(400, "top is how many classes are named, 1 to 1000")
    return int(text)


def _error(status: int, why: str) -> Response:
    headers = {"Retry-After": str(RETRY_S)} if status == 503 else {}
    if status >= 400:
        headers["Connection"] = "close"  # what is left of the body is not read
    return JSONResponse({"error": why}, status, headers)


async def _failed(request: Request, error: Exception) -> Response:
    """What Starlette refuses: another path, another method."""
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail).lower())


async def _broken(request: Request, error: Exception) -> Response:
    return _error(500, "a fault of the server's")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises `ServeError` naming the address."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"cannot listen at {printable(host)} port {port}: {reason}; choose another --port"
        ) from error
    if hasattr(socket, "TCP_DEFER_ACCEPT"):  # Linux: connected is whoever has said something
        with contextlib.suppress(OSError):  # of a system that has the name alone
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    listening.setblocking(False)
    return listening


def server(service: Service) -> Server:
    """What runs a service under uvicorn: nothing of a request is logged."""
    limits = service.limits
    rules = Rules(
        header_s=limits.header_s,
        answer_s=limits.answer_s,
        most=limits.connections,
        full=service.full,
        refused=service.refused,
    )
    config = Config(
        service.app,
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    return GatedServer(config, rules)


def serve(service: Service, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; requests at work then have five seconds."""
    sys.setswitchinterval(SWITCH_S)
    server(service).run(sockets=[listening])
