"""The interface of the server as an OpenAPI document."""

from typing import Any

from leancnn.classifier import Classifier
from leancnn.version import __version__


def described(network: Classifier) -> dict[str, Any]:
    """What `leancnn serve` answers for a network, in OpenAPI 3.1."""
    words = {"type": "string"}
    number = {"type": "number"}
    share = {"type": "object", "properties": {"label": words, "probability": number}}
    one = {
        "type": "object",
        "description": "a prediction, or why there is none",
        "properties": {
            "name": words,
            "label": {"type": "string", "enum": list(network.classes)},
            "probability": number,
            "top": {"type": "array", "items": share},
            "notes": {"type": "array", "items": words},
            "error": words,
        },
    }
    answer = {
        "type": "object",
        "properties": {
            "model": words,
            "milliseconds": number,
            "predictions": {"type": "array", "items": one},
        },
    }
    error = {"type": "object", "properties": {"error": words}}
    refusals = {
        "400": "no picture, or a request that cannot be read",
        "408": "the request did not arrive in time",
        "413": "the body is too large",
        "415": "a body of another type",
        "422": "no picture can be used",
        "503": "too many requests at once; Retry-After says when",
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "array", "items": binary["schema"]}},
        }
    }
    predict = {
        "summary": "classify pictures",
        "parameters": [
            {
                "name": "top",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"image/*": binary, "multipart/form-data": form},
        },
        "responses": {
            "200": {
                "description": "classified",
                "content": {"application/json": {"schema": answer}},
            },
            **{
                status: {"description": why, "content": {"application/json": {"schema": error}}}
                for status, why in refusals.items()
            },
        },
    }
    plain = {
        path: {"get": {"summary": what, "responses": {"200": {"description": "answered"}}}}
        for path, what in (
            ("/health", "whether the process answers"),
            ("/ready", "whether a request would be admitted"),
            ("/metrics", "figures in Prometheus' text format"),
            ("/about", "the network's name, classes and input"),
        )
    }
    info = {"title": f"leancnn: {network.name}", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": {"/predict": {"post": predict}, **plain}}
