"""The server on a real socket: the answers of predict, and a status for whatever else arrives."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import leancnn
from leancnn.errors import MismatchError, ServeError
from leancnn.serve import Limits, Service, listen
from tests.serving import ROOT, alive, png, raw, running


def test_a_picture_gets_what_predict_says(client, native):
    data = png()
    (expected,) = leancnn.predict(native, data)
    answer = client.post("/predict", content=data, headers={"content-type": "image/png"})
    (found,) = answer.json()["predictions"]
    assert answer.status_code == 200
    assert found["label"] == expected.label
    assert found["top"] == [{"label": k, "probability": p} for k, p in expected.top]


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


def test_many_clients_at_once_get_their_own_answers(native):
    service = Service(native, Limits(waiting=200, wait_s=60))
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


def test_limits_are_numbers_above_zero():
    with pytest.raises(MismatchError, match="waiting is more than 0"):
        Limits(waiting=0)


@given(
    st.integers(1, 4), st.integers(1, 60), st.floats(0, 2), st.floats(0.01, 2), st.integers(0, 80)
)
def test_nobody_is_let_in_to_wait_longer_than_the_limit(
    native, workers, most, took_s, wait_s, admitted
):
    service = Service(native, Limits(workers=workers, waiting=most, wait_s=wait_s))
    service.admitted, service.took_s = admitted, took_s
    before = max(0, admitted + 1 - workers)  # answers that must be given before its turn
    late = before * took_s / workers > wait_s
    assert service.full() == (admitted >= most or late)
    service.pool.shutdown()


def test_the_time_of_a_request_is_a_moving_average_of_the_last_ones(native):
    service = Service(native, Limits(wait_s=60))
    with running(service) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        service.took_s = 10.0
        told = [client.post("/predict", content=png()).json()["milliseconds"] for _ in range(20)]
    expected = 10.0
    for milliseconds in told:
        expected += 0.1 * (milliseconds / 1000 - expected)
    assert service.took_s == pytest.approx(expected, abs=1e-4)


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
