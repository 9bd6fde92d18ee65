"""Attacks by files of other formats than ours: ONNX, state dicts, images, data, libraries."""

import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_cases import (
    ATTACKS,
    Payload,
    Words,
    attack,
    device,
    pickled,
    pipe,
    tar_that_climbs,
    zip_that_climbs,
    zipped,
)
from onnx import TensorProto, helper, parser


def compiles(place: Path) -> Words:
    return ["compile", str(place / "net.onnx"), "--out", str(place / "out" / "c")]


# ONNX


def external(place: Path, location: str, **more: Any) -> Words:
    """A convolution whose weights lie in another file."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 3, 1, 1], [0.1] * 6)
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(value)
    return saved(place, weight)


def saved(place: Path, weight: Any) -> Words:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (place / "net.onnx").write_bytes(model.SerializeToString())
    return compiles(place)


LOCATIONS: dict[str, Callable[[Path], object]] = {
    "../outside/secret": lambda place: None,
    "weights/../../outside/secret": lambda place: (place / "weights").mkdir(),
    "link": lambda place: (place / "link").symlink_to("../outside/secret"),
    "folder/secret": lambda place: (place / "folder").symlink_to("../outside"),
    "hard": lambda place: os.link(place.parent / "outside" / "secret", place / "hard"),
    "pipe": lambda place: pipe(place / "pipe"),
    "zero": lambda place: device(place / "zero"),
    "http://localhost:9/weights": lambda place: None,
    "file:///etc/hostname": lambda place: None,
}


def from_location(place: Path, location: str) -> Words:
    """The model in a folder of its own, so that what is outside of it is outside."""
    (place / "model").mkdir()
    LOCATIONS[location](place / "model")
    external(place / "model", location, length=24)
    return ["compile", str(place / "model" / "net.onnx"), "--out", str(place / "out" / "c")]


for _name in LOCATIONS:
    ATTACKS[f"weights of an ONNX file in {_name}"] = lambda place, name=_name: from_location(  # type: ignore[misc]
        place, name
    )


@attack("weights of an ONNX file at an absolute path")
def absolute(place: Path) -> Words:
    return external(place, str(place / "outside" / "secret"), length=24)


@attack("weights of an ONNX file of 2^40 numbers")
def huge(place: Path) -> Words:
    return saved(place, TensorProto(name="w", data_type=1, dims=[1 << 20, 1 << 20, 1, 1]))


@attack("weights of an ONNX file that end before they begin")
def backward(place: Path) -> Words:
    (place / "w").write_bytes(bytes(24))
    return external(place, "w", offset=-8, length=24)


GRAPH = '<ir_version: 8, opset_import: ["" : 17{own}]> g (float[1, 3, 4, 4] x) => (float[A, B] y)'


@attack("an ONNX file that makes a constant of 2^32 numbers")
def constant(place: Path) -> Words:
    text = """{ n = Constant<value = int64[1] {4294967296}>()
        a = ConstantOfShape(n)
        b = ReduceSum(a)
        c = Mul(x, b)
        y = Flatten(c) }"""
    model = parser.parse_model(GRAPH.format(own="") + text)
    (place / "net.onnx").write_bytes(model.SerializeToString())
    return compiles(place)


@attack("an ONNX file of functions nested 2^24 times")
def nested(place: Path) -> Words:
    body = '<domain: "own", opset_import: ["" : 17, "own" : 1]> '
    text = " { h = own.f24(x)\n y = Flatten(h) }\n" + body + "f0 (x) => (y) { y = Relu(x) }\n"
    for level in range(24):
        text += f"{body}f{level + 1} (x) => (y) {{ a = own.f{level}(x)\n y = own.f{level}(a) }}\n"
    model = parser.parse_model(GRAPH.format(own=', "own" : 1') + text)
    (place / "net.onnx").write_bytes(model.SerializeToString())
    return compiles(place)


@attack("a pickle in the place of an ONNX file")
def pickle_onnx(place: Path) -> Words:
    (place / "net.onnx").write_bytes(pickled(place))
    return compiles(place)


@attack("a zip in the place of an ONNX file")
def zip_onnx(place: Path) -> Words:
    zip_that_climbs(place / "net.onnx")
    return compiles(place)


# Weights of others


def starts_from(place: Path, name: str, data: bytes) -> Words:
    (place / name).write_bytes(data)
    words = ["--init-from", str(place / name), "--model", "resnet8"]
    out = ["--out", str(place / "out" / "run"), "--quiet"]
    return ["train", str(place / "pictures"), *words, *out]


@attack("a pickle in the place of a state dict")
def pickle_start(place: Path) -> Words:
    return starts_from(place, "w.pt", pickled(place))


@attack("a torch file with a pickle that names a function")
def zip_start(place: Path) -> Words:
    return starts_from(place, "w.ckpt", zipped(pickled(place)))


@attack("a tar in the place of a state dict")
def tar_start(place: Path) -> Words:
    return starts_from(place, "w.pth", tar_that_climbs(place / "a.tar").read_bytes())


@attack("a pickle in the place of safetensors")
def safe_start(place: Path) -> Words:
    return starts_from(place, "w.safetensors", pickled(place))


# Data


@attack("a tar in the place of a folder of images")
def tar_data(place: Path) -> Words:
    return ["check", str(tar_that_climbs(place / "a.tar"))]


@attack("a zip in the place of a folder of images")
def zip_data(place: Path) -> Words:
    return ["check", str(zip_that_climbs(place / "a.zip"))]


def cifar(place: Path, meta: bytes, batch: bytes) -> Words:
    folder = place / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(meta)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(batch)
    return ["check", str(folder)]


@attack("names of CIFAR-10 that name a function")
def cifar_meta(place: Path) -> Words:
    return cifar(place, pickled(place), pickle.dumps({}))


@attack("images of CIFAR-10 that name a function")
def cifar_batch(place: Path) -> Words:
    names = pickle.dumps({"label_names": [str(n) for n in range(10)]})
    return cifar(place, names, pickled(place))


@attack("a pickle in the place of SVHN")
def svhn(place: Path) -> Words:
    (place / "svhn").mkdir()
    for part in ("train", "test"):
        (place / "svhn" / f"{part}_32x32.mat").write_bytes(pickled(place))
    return ["check", str(place / "svhn")]


def pictured(place: Path, path: Path) -> Words:
    return ["predict", str(place / "run" / "best"), str(path)]


@attack("a pipe in the place of an image")
def pipe_image(place: Path) -> Words:
    pipe(place / "a.png")
    return pictured(place, place / "a.png")


@attack("a device in the place of an image")
def device_image(place: Path) -> Words:
    device(place / "a.png")
    return pictured(place, place / "a.png")


@attack("an image of 30,000 by 30,000 pixels in 110 kB")
def bomb(place: Path) -> Words:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    side = 30_000
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (place / "a.png").write_bytes(data)
    return pictured(place, place / "a.png")


@attack("signals whose arrays are pickles")
def signals(place: Path) -> Words:
    array = np.array([Payload(place / "outside" / "made")], dtype=object)
    np.savez(place / "a.npz", X=array, hz=array, subject=array, session=array, fs=array)
    return ["eeg", "check", str(place / "a.npz")]


# Libraries


def library(place: Path, data: bytes) -> Words:
    (place / "a.so").write_bytes(data)
    return ["predict", str(place / "a.so"), str(place / "pictures" / "class 0" / "0.png")]


@attack("a pickle in the place of a library")
def pickle_library(place: Path) -> Words:
    return library(place, pickled(place))


@attack("a library cut short")
def cut_library(place: Path) -> Words:
    return library(place, b"\x7fELF\x02\x01\x01" + bytes(2000))


@attack("a name of files that climbs out")
def climbing_name(place: Path) -> Words:
    out = ["--out", str(place / "out" / "c")]
    return ["compile", str(place / "run" / "best"), *out, "--name", "../../outside/made"]
