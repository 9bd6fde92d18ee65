#!/bin/sh
# One would guess that a server on asyncio answers at once whichever way its listening socket was made,
# since asyncio switches Nagle's algorithm off for every TCP connection. True: it does so only where
# the socket object says proto=IPPROTO_TCP, and accepted sockets inherit that word. One of
# socket.create_server, or of socket.socket without a third argument, says 0, so Nagle stays on; an
# HTTP server that writes headers and body apart then answers 40 ms late on a kept connection, for
# the client's system delays its acknowledgement. uvicorn does so with such a socket in `sockets=`,
# and with its own Config.bind_socket, which --workers and --reload take. loop.create_server(host,
# port) is right, since getaddrinfo says 6; uvloop is right always. TCP_NODELAY on the listening
# socket is inherited on Linux and cures it.
# Seen with Python 3.11 and uvicorn 0.54.0 on Linux: 44 ms a request for 1.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PYTHON'
import http.client
import socket
import threading
import time

import uvicorn


async def app(scope, receive, send):
    fields = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"hello"})


def config(loop):
    return uvicorn.Config(app, loop=loop, port=0, lifespan="off", log_level="critical")


def typed():
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    return listening


def without_delay():
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def milliseconds(loop, listening):
    server = uvicorn.Server(config(loop))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    client = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1])
    took = []
    for _ in range(31):
        begin = time.perf_counter()
        client.request("GET", "/")
        client.getresponse().read()
        took.append(1000 * (time.perf_counter() - begin))
    client.close()
    server.should_exit = True
    thread.join()
    return sorted(took)[15]


ways = {
    "create_server": lambda: socket.create_server(("127.0.0.1", 0)),
    "bind_socket": lambda: config("asyncio").bind_socket(),
    "IPPROTO_TCP": typed,
    "TCP_NODELAY": without_delay,
}
for loop in ("asyncio", "uvloop"):
    for way, make in ways.items():
        print(loop, way, "40 ms late" if milliseconds(loop, make()) > 30 else "at once")
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 uvloop==0.23.0
"$work/venv/bin/python" "$work/look.py" | tee "$work/seen"
diff - "$work/seen" <<'SEEN'
asyncio create_server 40 ms late
asyncio bind_socket 40 ms late
asyncio IPPROTO_TCP at once
asyncio TCP_NODELAY at once
uvloop create_server at once
uvloop bind_socket at once
uvloop IPPROTO_TCP at once
uvloop TCP_NODELAY at once
SEEN
