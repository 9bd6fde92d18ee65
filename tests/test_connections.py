"""Connections that end: what does not come is not waited for, and a full server says so at once."""

import asyncio
import contextlib
import socket
import time

import pytest

from leancnn.serve import Limits, Service, server
from tests.few import few
from tests.serving import alive, png, raw, running


@pytest.mark.parametrize(
    "start",
    few(
        [
            b"",
            b"POST",
            b"POST /predict HTTP/1.1\r\nHost: x\r\n",
            pytest.param(  # five seconds: uvicorn's between requests
                b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nG", marks=pytest.mark.slow
            ),
        ]
    ),
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


def test_who_sends_all_before_he_reads_is_told_so_too(served):
    port, service = served
    service.admitted += service.limits.waiting
    try:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
        said = raw(port, head + bytes(9_000_000))
    finally:
        service.admitted -= service.limits.waiting
    assert said.startswith(b"HTTP/1.1 503")
    assert said.endswith(b"}")


def test_the_refused_do_not_count_as_connections_for_long(native):
    service = Service(native, Limits(connections=4, waiting=1, wait_s=60))
    with running(service) as port:
        service.admitted += 1
        for _ in range(3):
            for line in [raw(port, b"POST /predict HTTP/1.1\r\n") for _ in range(4)]:
                assert line.startswith(b"HTTP/1.1 503")
            time.sleep(0.3)
        service.admitted -= 1
        assert raw(port, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def refused(port, lines, many):
    """Clients that are told to come again, and neither read on nor leave."""
    for _ in range(many):
        line = lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        line.sendall(b"POST /predict HTTP/1.1\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 503")
        yield line


def test_the_refused_who_linger_keep_nobody_out_and_are_few(native):
    service = Service(native, Limits(connections=4, waiting=1, wait_s=60))
    with running(service) as port, contextlib.ExitStack() as lines:
        service.admitted += 1
        told = list(refused(port, lines, 8))
        service.admitted -= 1
        assert raw(port, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
        told[0].settimeout(5)
        while told[0].recv(1000):  # what was left of the answer; then the end, not a wait
            pass
        with pytest.raises(ConnectionError):  # noqa: PT012 - the first may still arrive
            for _ in range(20):
                told[0].sendall(b"more")
                time.sleep(0.02)


def test_a_server_behind_a_gate_is_given_its_sockets(native):
    with pytest.raises(ValueError, match="is given the sockets"):
        asyncio.run(server(Service(native, Limits())).startup())


def test_a_system_that_hands_over_silent_connections_waits_for_their_first_bytes(native):
    service = Service(native, Limits(header_s=0.5))
    with running(service, defer=False) as port:
        assert not raw(port, b"")
        with socket.create_connection(("127.0.0.1", port)) as line:
            time.sleep(0.2)
            line.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert line.recv(100).startswith(b"HTTP/1.1 200")
            service.admitted += service.limits.waiting
            with socket.create_connection(("127.0.0.1", port)) as late:
                time.sleep(0.2)
                late.sendall(b"POST /predict")
                assert late.recv(100).startswith(b"HTTP/1.1 503")


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
