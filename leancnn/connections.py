"""Connections of the server: every wait has an end, and a full server says so at once.

uvicorn waits without end for headers, for a client that reads nothing, and closes a connection
whose request it has not read to the end, whereupon the client's system may throw the answer away.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from leancnn.errors import MissingDependencyError

try:
    from uvicorn import Config, Server
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingDependencyError(
        f"serving needs {error.name}; pip install 'leancnn[serve]'"
    ) from error

LINGER_S = 2.0  # for what a client still sends while it is told no
READS_S = 0.1  # in which most clients read that they are refused, and stop sending
RETRY_S = 1
WHY = b'{"error":"too many requests at once; try again later"}'
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: %d\r\nConnection: close\r\n\r\n%s"
) % (len(WHY), RETRY_S, WHY)
PICTURE = b"POST "  # how a request begins that a full server refuses
BATCH = 64  # connections taken before the loop looks at anything else
ROOM = bytearray(1 << 18)  # for what nobody looks at
READS = 4  # of it at a time: a client that sends without end must not keep the loop
UNREAD = getattr(socket, "MSG_TRUNC", 0)  # Linux then drops bytes without copying them


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


class Gate:
    """Takes connections, and refuses on the bare socket what a full server is not to see.

    A refusal is four system calls and no transport: the core of a server at its limit is there for
    the pictures that are let in. What the refused client still sends is left where it lies for a
    while, since reading it makes room for more, and dropped without a copy then.
    """

    def __init__(
        self, listening: socket.socket, rules: "Rules", behind: Callable[[], "Connection"]
    ) -> None:
        listening.setblocking(False)  # one that waits for a connection would stop the loop
        self._listening, self._rules, self._behind = listening, rules, behind
        self._loop = asyncio.get_running_loop()
        self._lines: dict[socket.socket, asyncio.TimerHandle] = {}  # waiting, or refused
        self._refused: list[socket.socket] = []
        self._told: dict[socket.socket, None] = {}  # refused and not ended, the longest first
        self._again: asyncio.TimerHandle | None = None
        self._entering: set[asyncio.Task[Any]] = set()
        self._loop.add_reader(listening, self._take)

    def close(self) -> None:
        """Take no more connections, and leave those that are not let in."""
        self._loop.remove_reader(self._listening)
        if self._again is not None:
            self._again.cancel()
        for line in {**self._lines, **self._told}:
            self._end(line)

    def _take(self) -> None:
        for _ in range(BATCH):
            try:
                line, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file left for it: the loop would ask again at once
                self._loop.remove_reader(self._listening)
                self._again = self._loop.call_later(
                    1, self._loop.add_reader, self._listening, self._take
                )
                return
            line.setblocking(False)
            self._rules.open += 1
            if self._rules.open > self._rules.most:
                self._refuse(line)
            elif not self._looked(line):
                self._expect(line)

    def _looked(self, line: socket.socket) -> bool:
        """Refuse or let in what begins to speak; False where nothing has come yet."""
        try:
            start = line.recv(len(PICTURE), socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            start = b""
        if not start:
            self._end(line)
        elif start == PICTURE and self._rules.full():
            self._refuse(line)
        else:
            entering = self._loop.connect_accepted_socket(self._behind, line)
            task = self._loop.create_task(entering)
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)
        return True

    def _expect(self, line: socket.socket) -> None:
        self._lines[line] = self._loop.call_later(self._rules.header_s, self._end, line)
        self._loop.add_reader(line, self._came, line)

    def _came(self, line: socket.socket) -> None:
        self._loop.remove_reader(line)
        self._lines.pop(line).cancel()
        if not self._looked(line):  # woken for nothing
            self._expect(line)

    def _refuse(self, line: socket.socket) -> None:
        self._rules.refused()
        try:
            line.send(BUSY)
            line.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(line)
            return
        self._rules.open -= 1  # who lingers keeps nobody out
        self._told[line] = None
        if len(self._told) > max(1, self._rules.most // 2):  # each has a file of the process
            self._end(next(iter(self._told)))
        if not self._refused:
            self._loop.call_later(READS_S, self._sweep)
        self._refused.append(line)

    def _sweep(self) -> None:
        """End the refused whose clients have gone; read on for those that send before they read."""
        refused, self._refused = self._refused, []
        for line in [each for each in refused if each in self._told]:
            if self._drained(line):
                self._end(line)
                continue
            self._lines[line] = self._loop.call_later(LINGER_S, self._end, line)
            self._loop.add_reader(line, self._drop, line)

    def _drop(self, line: socket.socket) -> None:
        if self._drained(line):
            self._end(line)

    @staticmethod
    def _drained(line: socket.socket) -> bool:
        """Throw away some of what has come; whether the client has ended."""
        try:
            return not all(line.recv_into(ROOM, len(ROOM), UNREAD) for _ in range(READS))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def _end(self, line: socket.socket) -> None:
        handle = self._lines.pop(line, None)
        if handle is not None:
            handle.cancel()
            self._loop.remove_reader(line)
        line.close()
        if line in self._told:
            del self._told[line]
        else:
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

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def __init__(self, rules: Rules, **given: Any) -> None:
        super().__init__(**given)
        self.rules = rules

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(high=0)  # be told whenever a client reads nothing
        super().connection_made(cast(Any, Lingering(transport, self.loop)))
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if data.startswith(PICTURE) and not self._at_work() and self.rules.full():
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


class GatedServer(Server):
    """uvicorn's server behind a `Gate`, which takes its connections."""

    def __init__(self, config: Config, rules: Rules) -> None:
        super().__init__(config)
        self._rules = rules
        self._gates: list[Gate] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if not sockets:
            raise ValueError("a server behind a gate is given the sockets that it listens at")
        await super().startup(sockets=[])
        self._gates = [Gate(each, self._rules, self._connection) for each in sockets]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for gate in self._gates:
            gate.close()
        await super().shutdown(sockets)

    def _connection(self) -> Connection:
        return Connection(
            self._rules,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
