"""The interface as a document, and that the server is what it says."""

from tests.serving import png


def test_the_interface_is_described_and_every_path_of_it_answers(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method in methods:
            answer = client.request(method, path, content=png() if method == "post" else None)
            assert answer.status_code == 200, path
