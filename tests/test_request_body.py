"""The pictures in the body of a request: one or several, each with an answer, all within limits."""

import socket
import struct
import time
import zlib

import httpx
from starlette.datastructures import Headers

import leancnn
from leancnn.serve import Limits, Service
from tests.serving import alive, png, running


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


def test_pictures_of_a_request_have_a_limit_of_pixels_together(native):
    service = Service(native, Limits(together=1500))
    found = []
    for count in (1, 2, 3):
        parts = [
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + png()
        ] * count
        body = b"\r\n".join([*parts, b"--b--\r\n"])
        headers = Headers({"content-type": "multipart/form-data; boundary=b"})
        found.append(service._classified(headers, body, 1)[0])
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
