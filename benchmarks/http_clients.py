"""Clients of a server that classifies: good ones, and every kind of bad one we could think of.

Each bad kind is a coroutine that opens a connection of its own and returns what came of it; `BAD`
names them with the answers that are right for them. Nothing here is an attack on anything but the
server under test, on loopback.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
SLOW_S = 15.0  # when a slow connection must be closed at the latest
PATIENCE_S = 40.0  # how long a client looks on


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a request."""

    status: int | None
    """None: closed without an answer."""
    body: bytes
    seconds: float
    """From the first byte sent to the connection's end, or to the answer's."""
    retry: bool = False
    """Whether the answer says when to come again."""
    held: bool = False
    """Whether the server kept the connection longer than the client looked on."""


def head(
    path: str = "/predict", method: str = "POST", version: str = "1.1", **fields: Any
) -> bytes:
    """A request's first line and fields; `content_length=3` is Content-Length: 3."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {HOST}"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def posted(data: bytes, **fields: Any) -> bytes:
    """A whole request with a picture as its body."""
    given = {"content_type": "application/octet-stream", "content_length": len(data), **fields}
    return head(**given) + data


def parse(received: bytes) -> tuple[int | None, bytes, bool]:
    """Status, body and whether there is a Retry-After."""
    start, _, body = received.partition(b"\r\n\r\n")
    if not start.startswith(b"HTTP/1."):
        return None, b"", False
    return int(start.split(None, 2)[1]), body, b"\r\nretry-after:" in start.lower()


async def closing(port: int, *pieces: bytes, pause_s: float = 0.0) -> Seen:
    """Send the pieces with pauses, then read until the server closes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    began, received, held = time.perf_counter(), b"", False
    reading = asyncio.ensure_future(reader.read(1 << 20))
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            if reading.done():
                break
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), PATIENCE_S)
            if pause_s:
                await asyncio.wait([reading], timeout=pause_s)
    with contextlib.suppress(ConnectionError):
        try:
            async with asyncio.timeout(PATIENCE_S):
                while part := await reading:
                    received += part
                    reading = asyncio.ensure_future(reader.read(1 << 20))
        except TimeoutError:
            held = True
    reading.cancel()
    writer.transport.abort()
    return Seen(*_ordered(received, time.perf_counter() - began), held)


def _ordered(received: bytes, seconds: float) -> tuple[int | None, bytes, float, bool]:
    status, body, retry = parse(received)
    return status, body, seconds, retry


class Good:
    """A client that keeps its connection, as browsers do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes, *, since: float | None = None) -> Seen:
        """One picture; seconds count from `since`, when it should have been sent."""
        began = time.perf_counter() if since is None else since
        for _ in range(2):  # a kept connection may have been closed meanwhile
            fresh = self.line is None
            try:
                received = await self._exchange(posted(data))
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                if fresh:
                    return Seen(None, b"", time.perf_counter() - began)
                continue
            return Seen(*_ordered(received, time.perf_counter() - began))
        return Seen(None, b"", time.perf_counter() - began)

    async def _exchange(self, request: bytes) -> bytes:
        if self.line is None:
            self.line = await asyncio.open_connection(HOST, self.port)
        reader, writer = self.line
        writer.write(request)
        start = await reader.readuntil(b"\r\n\r\n")
        fields = start.lower()
        length = int(fields.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"connection: close" in fields:
            self.close()
        return start + body

    def close(self) -> None:
        """End the connection."""
        if self.line is not None:
            self.line[1].transport.abort()
            self.line = None


async def _oversized(port: int, _: bytes) -> Seen:
    return await closing(port, head(content_length=30_000_000), b"x" * 100_000)


async def _endless(port: int, _: bytes) -> Seen:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    return await closing(port, head(transfer_encoding="chunked"), *[piece] * 480)


async def _longer(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, content_length=len(picture) + 1000))


async def _shorter(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, content_length=len(picture) // 2))


async def _negative(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, content_length=-1))


async def _garbage(port: int, _: bytes) -> Seen:
    return await closing(port, head(transfer_encoding="chunked"), b"zz\r\nnonsense\r\n0\r\n\r\n")


async def _boundary(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, content_type="multipart/form-data"))


async def _kind(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, content_type="application/json"))


async def _empty(port: int, _: bytes) -> Seen:
    return await closing(port, posted(b""))


async def _parts(port: int, _: bytes) -> Seen:
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.png"\r\n\r\nx\r\n'
    form = posted(part * 10_000 + b"--b--\r\n", content_type="multipart/form-data; boundary=b")
    return await closing(port, form)


async def _slow_header(port: int, picture: bytes) -> Seen:
    whole = posted(picture)[:60]
    return await closing(port, *(whole[at : at + 1] for at in range(60)), pause_s=1.0)


async def _slow_body(port: int, picture: bytes) -> Seen:
    start = head(content_type="image/jpeg", content_length=len(picture))
    return await closing(port, start, *(picture[at : at + 9] for at in range(0, 540, 9)), pause_s=1)


async def _reset(port: int, picture: bytes) -> Seen:
    began = time.perf_counter()
    _, writer = await asyncio.open_connection(HOST, port)
    line: socket.socket = writer.get_extra_info("socket")
    writer.write(posted(picture)[: len(picture) // 2])
    await writer.drain()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return Seen(None, b"", time.perf_counter() - began)


async def _http10(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, version="1.0"))


async def _path(port: int, picture: bytes) -> Seen:
    return await closing(port, posted(picture, path="/predict/../../../etc/passwd%00%2e%2e%2f"))


async def _deaf(port: int, _: bytes) -> Seen:
    """Many requests, and no answer of them is read."""
    line = socket.socket()
    line.setblocking(False)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop, began, held = asyncio.get_running_loop(), time.perf_counter(), False
    try:
        await loop.sock_connect(line, (HOST, port))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await loop.sock_sendall(line, head("/page.mjs", "GET") * 50)
    except TimeoutError:
        held = True
    except OSError:
        pass
    line.close()
    return Seen(None, b"", time.perf_counter() - began, held=held)


Bad = Callable[[int, bytes], Awaitable[Seen]]
BAD: dict[str, tuple[frozenset[int | None], Bad]] = {
    "larger than is taken": (frozenset({413, None}), _oversized),
    "endless in chunks": (frozenset({413, None}), _endless),
    "shorter than it says": (frozenset({408}), _longer),
    "longer than it says": (frozenset({400, 422}), _shorter),
    "a negative length": (frozenset({400}), _negative),
    "chunks that are none": (frozenset({400}), _garbage),
    "no boundary": (frozenset({400}), _boundary),
    "another type": (frozenset({415}), _kind),
    "no byte": (frozenset({400}), _empty),
    "10,000 parts": (frozenset({400}), _parts),
    "a slow header": (frozenset({None, 408}), _slow_header),
    "a slow body": (frozenset({408}), _slow_body),
    "reset in the body": (frozenset({None}), _reset),
    "HTTP/1.0": (frozenset({200}), _http10),
    "tricks in the path": (frozenset({400, 404}), _path),
    "reads no answer": (frozenset({None}), _deaf),
}
"""What is wrong → the statuses that are right for it (None: closed), and who does it. Each may also
be answered 503."""


def same(seen: Seen, expected: list[dict[str, Any]]) -> bool:
    """Whether an answer names the classes and probabilities that `predict` does."""
    found: Any = json.loads(seen.body)["predictions"][0]["top"]
    return bool(found == expected)
