"""A server on a real socket, and what tests say to it."""

import contextlib
import io
import socket
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

import leancnn
from leancnn.serve import Limits, Service, listen
from tests import compiler_saved

ROOT = Path(__file__).parent.parent


HEADER_S, BODY_S = 0.6, 1.0


def compiled(folder):
    """A compiled network to serve."""
    off = compiler_saved.on_shelf()
    made = leancnn.compile(compiler_saved.network(), out=folder)
    off()
    return made


def narrow(native):
    """A service of narrow limits."""
    limits = Limits(
        body=200_000, bodies=1_000_000, pictures=4, pixels=40_000, waiting=3, workers=2, wait_s=60,
        header_s=HEADER_S, body_s=BODY_S,
    )  # fmt: skip
    return Service(native, limits)


@contextlib.contextmanager
def running(service, *, defer=True):
    from leancnn.serve import server as made

    listening = listen("127.0.0.1", 0)
    if not defer and hasattr(socket, "TCP_DEFER_ACCEPT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    server = made(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def png(seed=0, size=(30, 20)):
    made = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(made).save(buffer, "PNG")
    return buffer.getvalue()


def raw(port, data):
    """What a server says to these bytes until it closes, which it must."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(data)
        said = b""
        with contextlib.suppress(ConnectionError):
            while part := line.recv(65536):
                said += part
    return said


def alive(client):
    assert client.get("/health").json() == {"status": "alive"}
    assert client.post("/predict", content=png()).status_code == 200
