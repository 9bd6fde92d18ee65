"""Connections of the server: every wait has an end, and a full server says so at once.

uvicorn waits without end for headers, for a client that reads nothing, and closes a connection
whose request it has not read to the end, whereupon the client's system may throw the answer away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from leancnn.errors import MissingDependencyError

try:
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingDependencyError(
        f"serving needs {error.name}; pip install 'leancnn[serve]'"
    ) from error

LINGER_S = 2.0  # for what a client still sends while it is told no
RETRY_S = 1
WHY = b'{"error":"too many requests at once; try again later"}'
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: %d\r\nConnection: close\r\n\r\n%s"
) % (len(WHY), RETRY_S, WHY)


ROOM = bytearray(1 << 18)


class Discard(asyncio.BufferedProtocol):
    """Reads what a refused client still sends into one place that nobody looks at."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def get_buffer(self, sizehint: int) -> bytearray:
        """The same for all."""
        return ROOM

    def buffer_updated(self, nbytes: int) -> None:
        """Nothing is done with it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection no longer counts."""
        self._ended()


class Lingering:
    """A transport whose closing lets the other side read the last answer first."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self.loop = transport, loop
        self.left = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether no more is said here."""
        return self.left or self._transport.is_closing()

    def close(self) -> None:
        """Say no more; what still comes is thrown away, for a while."""
        if self.is_closing():
            return
        self.left = True
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self.loop.call_later(LINGER_S, self._transport.abort)


class Door(asyncio.Protocol):
    """What a connection meets first: it costs next to nothing, and lets in what is not refused."""

    def __init__(self, rules: "Rules", behind: Callable[[], "Connection"]) -> None:
        self._rules, self._behind = rules, behind

    def connection_made(self, transport: Any) -> None:
        """Wait for the first bytes, unless there are too many connections."""
        self._rules.open += 1
        self._transport = Lingering(transport, asyncio.get_running_loop())
        self._late = self._transport.loop.call_later(self._rules.header_s, transport.abort)
        if self._rules.open > self._rules.most:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        """Say no, or let in."""
        if self._transport.left:
            return
        if data.startswith(b"POST ") and self._rules.full():
            self._refuse()
            return
        self._late.cancel()
        connection = self._behind()
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        connection.data_received(data)

    def _refuse(self) -> None:
        self._late.cancel()
        self._rules.refused()
        self._transport.write(BUSY)
        self._transport.set_protocol(Discard(self._left))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing came."""
        self._late.cancel()
        self._left()

    def _left(self) -> None:
        self._rules.open -= 1


@dataclass(slots=True, kw_only=True)
class Rules:
    """What a server's connections keep to."""

    header_s: float
    answer_s: float
    most: int
    """Connections at once."""
    full: Callable[[], bool]
    """Whether the next picture is told to come again."""
    refused: Callable[[], None]
    """Counts that."""
    open: int = 0


class Connection(H11Protocol):
    """uvicorn's protocol with an end to every wait."""

    rules: Rules
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(high=0)  # be told whenever a client reads nothing
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if data.startswith(b"POST ") and not self._at_work() and self.rules.full():
            self._calm()
            self.rules.refused()
            self.transport.write(BUSY)
            self.transport.close()
            return
        super().data_received(data)
        if self._at_work():
            self._calm()  # its headers are there; the body has a time of its own
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self.rules.open -= 1
        self._calm()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.rules.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait(self) -> None:
        self._late = self.loop.call_later(self.rules.header_s, self._close)

    def _calm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if not self._at_work():
            self.transport.abort()

    def _at_work(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete


def protocol(rules: Rules) -> Callable[..., asyncio.Protocol]:
    """What uvicorn's `http` takes: a protocol for each connection."""
    own = type("Own", (Connection,), {"rules": rules})

    def door(**given: Any) -> Door:
        return Door(rules, lambda: own(**given))

    return door
