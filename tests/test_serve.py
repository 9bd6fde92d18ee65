"""The server on a real socket: the answers of predict, and a status for whatever else arrives."""

import contextlib
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.datastructures import Headers

import leancnn
from leancnn.errors import MismatchError, ServeError
from leancnn.serve import Limits, Service, listen
from tests import compiler_saved

ROOT = Path(__file__).parent.parent
HEADER_S, BODY_S = 0.6, 1.0


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    off = compiler_saved.on_shelf()
    yield leancnn.compile(compiler_saved.network(), out=tmp_path_factory.mktemp("served"))
    off()


@pytest.fixture(scope="module")
def served(native):
    """Where a server with narrow limits listens, and its service."""
    limits = Limits(
        body=200_000, bodies=1_000_000, pictures=4, pixels=40_000, waiting=3, workers=2,
        header_s=HEADER_S, body_s=BODY_S,
    )  # fmt: skip
    service = Service(native, limits)
    with running(service) as port:
        yield port, service


@contextlib.contextmanager
def running(service):
    from uvicorn import Server

    from leancnn import serve

    listening = listen("127.0.0.1", 0)
    server = Server(serve.settings(service))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def client(served):
    with httpx.Client(base_url=f"http://127.0.0.1:{served[0]}") as found:
        yield found


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


def test_a_picture_gets_what_predict_says(client, native):
    data = png()
    (expected,) = leancnn.predict(native, data)
    answer = client.post("/predict", content=data, headers={"content-type": "image/png"})
    (found,) = answer.json()["predictions"]
    assert answer.status_code == 200
    assert found["label"] == expected.label
    assert found["top"] == [{"label": k, "probability": p} for k, p in expected.top]


def test_several_pictures_keep_their_order_and_names(client, native):
    data = [png(seed) for seed in range(4)]
    files = [("file", (f"{i}.png", picture)) for i, picture in enumerate(data)]
    found = client.post("/predict?top=1", files=files).json()["predictions"]
    assert [one["name"] for one in found] == ["0.png", "1.png", "2.png", "3.png"]
    labels = [one.label for one in leancnn.predict(native, data)]
    assert [one["label"] for one in found] == labels
    assert all(len(one["top"]) == 1 for one in found)


def test_a_picture_that_cannot_be_used_does_not_take_the_others_along(client):
    files = [("file", ("a.png", png())), ("file", ("b.png", b"no picture"))]
    answer = client.post("/predict", files=files)
    good, bad = answer.json()["predictions"]
    assert answer.status_code == 200
    assert "label" in good
    assert "label" not in bad
    assert "no image" in bad["error"]


@pytest.mark.parametrize(
    ("status", "says", "given"),
    [
        (422, "no image", {"content": b"no picture"}),
        (422, "cut short", {"content": png()[:200]}),
        (400, "empty", {"content": b""}),
        (413, "200,000 bytes", {"content": b"x" * 300_000}),
        (415, "multipart", {"content": b"{}", "headers": {"content-type": "application/json"}}),
        (400, "part with a file name", {"files": [("x", (None, b"y"))]}),
        (400, "Too many files", {"files": [("f", (f"{i}.png", b"x")) for i in range(5)]}),
        (400, "multipart", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
        (
            400,
            "multipart",
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}},
        ),
    ],
)
def test_what_cannot_be_answered_gets_a_status_and_the_reason(client, status, says, given):
    answer = client.post("/predict", **given)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    alive(client)


@pytest.mark.parametrize("top", ["0", "x", "1001", "-1", "٣", "9" * 5000])
def test_top_is_a_number_of_classes(client, top):
    assert client.post("/predict", params={"top": top}, content=png()).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("POST", "/health", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/<script>", 404),
    ],
)
def test_other_paths_and_methods_are_refused_as_json(served, client, method, path, status):
    said = raw(served[0], f"{method} {path} HTTP/1.0\r\n\r\n".encode())
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert "error" in json.loads(said.partition(b"\r\n\r\n")[2])
    alive(client)


def test_a_picture_with_too_many_pixels_by_its_header_is_refused_before_it_is_decoded(client):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 5000, 5000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(626 * 5000))
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    answer = client.post("/predict", content=bomb)
    assert answer.status_code == 422
    assert "5000×5000, more than 40,000 pixels" in answer.json()["error"]


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST",
        b"POST /predict HTTP/1.1\r\nHost: x\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nG",  # five seconds: uvicorn's between requests
    ],
)
def test_headers_that_do_not_end_are_not_waited_for(served, client, start):
    raw(served[0], start)  # returns
    alive(client)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    ],
)
def test_a_body_that_does_not_end_is_answered_with_408(served, client, head):
    said = raw(served[0], head)
    assert said.startswith(b"HTTP/1.1 408")
    alive(client)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
    ],
)
def test_what_is_no_http_is_refused(served, client, head):
    said = raw(served[0], head)
    assert said.startswith(b"HTTP/1.1 4") or not said
    alive(client)


def test_a_full_server_says_when_to_come_again_before_it_reads_a_request(served, client):
    port, service = served
    service.admitted += service.limits.waiting
    try:
        for content in (png(), b"x" * 150_000):
            answer = client.post("/predict", content=content)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "too many" in answer.json()["error"]
        said = raw(port, b"POST /predict HTTP/1.1\r\n")
        assert said.startswith(b"HTTP/1.1 503")
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
    finally:
        service.admitted -= service.limits.waiting
    alive(client)


def test_a_request_that_arrives_while_its_server_fills_up_gets_503(served, client):
    port, service = served
    data = png()
    with socket.create_connection(("127.0.0.1", port)) as line:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
        line.sendall(head + data[:9])
        while service.held < 9:
            time.sleep(0.01)
        service.admitted += service.limits.waiting
        line.sendall(data[9:])
        try:
            assert line.recv(100).startswith(b"HTTP/1.1 503")
        finally:
            service.admitted -= service.limits.waiting
    alive(client)


def test_bodies_that_do_not_come_keep_nobody_else_waiting(served, client):
    port, service = served
    lines = [
        socket.create_connection(("127.0.0.1", port)) for _ in range(3 * service.limits.waiting)
    ]
    for line in lines:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
    while service.held < len(lines):
        time.sleep(0.01)
    alive(client)
    for line in lines:
        line.close()
    while service.held:
        time.sleep(0.01)


def test_more_connections_than_are_taken_are_told_so(native):
    service = Service(native, Limits(connections=2, header_s=1))
    with running(service) as port:
        lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        time.sleep(0.1)
        assert raw(port, b"").startswith(b"HTTP/1.1 503")
        for line in lines:
            line.close()


def ask_without_end(line):
    while True:
        line.sendall(b"GET /page.mjs HTTP/1.1\r\nHost: x\r\n\r\n" * 50)


def test_a_client_that_reads_no_answer_is_left(native):
    service = Service(native, Limits(answer_s=0.4, header_s=1))
    with running(service) as port, socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(10)
        line.connect(("127.0.0.1", port))
        with pytest.raises(ConnectionError):
            ask_without_end(line)


def test_an_answer_is_read_before_the_line_is_cut_though_the_request_goes_on(served):
    for _ in range(20):
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
        assert raw(served[0], head + bytes(900_000)).startswith(b"HTTP/1.1 413")


def test_pictures_of_a_request_have_a_limit_of_pixels_together(native):
    service = Service(native, Limits(together=1500))
    found = []
    for count in (1, 2, 3):
        parts = [
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + png()
        ] * count
        body = b"\r\n".join([*parts, b"--b--\r\n"])
        headers = Headers({"content-type": "multipart/form-data; boundary=b"})
        found.append(service._classified(headers, body, 1)["predictions"])
    assert ["label" in one for one in found[1]] == [True, True]
    assert ["label" in one for one in found[2]] == [True, True, False]
    assert "more than 1,500 pixels" in found[2][2]["error"]


def test_bodies_of_all_requests_together_have_a_limit(native):
    service = Service(native, Limits(body=90_000, bodies=100_000, header_s=1, body_s=2))
    with running(service) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        with socket.create_connection(("127.0.0.1", port)) as line:
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n"
            line.sendall(head + b"x" * 60_000)
            while service.held < 60_000:
                time.sleep(0.01)
            assert client.post("/predict", content=b"x" * 50_000).status_code == 503
        while service.held:
            time.sleep(0.01)
        alive(client)


def test_many_clients_at_once_get_their_own_answers(native):
    service = Service(native, Limits(waiting=200))
    data = [png(seed) for seed in range(12)]
    expected = [one.label for one in leancnn.predict(native, data)]
    with running(service) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def ask(place):
            answer = client.post("/predict", content=data[place % 12]).json()
            return answer["predictions"][0]["label"] == expected[place % 12]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(96)))


def test_the_page_and_its_parts_are_there_and_say_where_pictures_go(client):
    page = client.get("/").text
    assert "sent to this server" in page
    assert "stay on this device" not in page
    for part in ("page.css", "page.mjs", "classify.mjs"):
        assert client.get(f"/{part}").status_code == 200
    assert "predict?top" in client.get("/classify.mjs").text
    assert client.get("/about").json()["classes"] == ["cat", 'd"og', "ünd"]


def test_metrics_count_answers_by_status(client):
    def counted():
        lines = client.get("/metrics").text.splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if line[0] != "#"}

    client.post("/predict", content=png())
    before = counted()
    client.post("/predict", content=png())
    client.post("/predict", content=b"x")
    after = counted()
    for key in ('leancnn_requests_total{status="200"}', "leancnn_pictures_total"):
        assert after[key] == before[key] + 1
    assert after['leancnn_requests_total{status="422"}'] >= 1


def test_the_interface_is_described_and_every_path_of_it_answers(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method in methods:
            answer = client.request(method, path, content=png() if method == "post" else None)
            assert answer.status_code == 200, path


def test_limits_are_numbers_above_zero():
    with pytest.raises(MismatchError, match="waiting is more than 0"):
        Limits(waiting=0)


def test_a_port_in_use_is_named():
    with listen("127.0.0.1", 0) as taken, pytest.raises(ServeError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_answers_leave_at_once():
    with listen("127.0.0.1", 0) as listening:
        listening.setblocking(True)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as line:
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_command_serves_a_library_until_it_is_told_to_end(native):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "leancnn", "serve", str(native.path), "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        address = line.split(" at ")[1].split(";")[0]
        assert httpx.post(f"{address}/predict", content=png(), timeout=30).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.stderr.read()
