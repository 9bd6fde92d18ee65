"""The interface of the server as an OpenAPI document."""

from collections.abc import Sequence
from typing import Any

from leancnn.classifier import Classifier
from leancnn.version import __version__

WORDS = {"type": "string"}
NUMBER = {"type": "number"}
REFUSALS = {
    "400": "no picture, or a request that cannot be read",
    "408": "the request did not arrive in time",
    "413": "the body is too large",
    "415": "a body of another type",
    "422": "no picture can be used",
    "503": "too many requests at once; Retry-After says when",
}
PLAIN = {
    "/health": "whether the process answers",
    "/ready": "whether a request would be admitted",
    "/metrics": "figures in Prometheus' text format",
    "/about": "the network's name, classes and input",
}
TOP = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}
BINARY = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {"file": {"type": "array", "items": BINARY}}}


def described(network: Classifier) -> dict[str, Any]:
    """What `leancnn serve` answers for a network, in OpenAPI 3.1."""
    plain = {
        path: {"get": {"summary": what, "responses": {"200": {"description": "answered"}}}}
        for path, what in PLAIN.items()
    }
    info = {"title": f"leancnn: {network.name}", "version": __version__}
    paths = {"/predict": {"post": _predict(network.classes)}, **plain}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _predict(classes: Sequence[str]) -> dict[str, Any]:
    """Pictures in, an answer or a refusal out."""
    error = {"type": "object", "properties": {"error": WORDS}}
    return {
        "summary": "classify pictures",
        "parameters": [{"name": "top", "in": "query", "schema": TOP}],
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": BINARY}, "multipart/form-data": {"schema": FORM}},
        },
        "responses": {
            "200": _json("classified", _answer(classes)),
            **{status: _json(why, error) for status, why in REFUSALS.items()},
        },
    }


def _json(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _answer(classes: Sequence[str]) -> dict[str, Any]:
    """The predictions of a request."""
    share = {"type": "object", "properties": {"label": WORDS, "probability": NUMBER}}
    one = {
        "type": "object",
        "description": "a prediction, or why there is none",
        "properties": {
            "name": WORDS,
            "label": {"type": "string", "enum": list(classes)},
            "probability": NUMBER,
            "top": {"type": "array", "items": share},
            "warnings": {"type": "array", "items": WORDS},
            "error": WORDS,
        },
    }
    predictions = {"type": "array", "items": one}
    return {
        "type": "object",
        "properties": {"model": WORDS, "milliseconds": NUMBER, "predictions": predictions},
    }
