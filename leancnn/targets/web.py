"""A page that classifies in the browser: WebAssembly from the C file, a module, and the page."""

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from leancnn.compiler.frame import escaped
from leancnn.errors import DamagedError, MismatchError, MissingDependencyError, ParityError
from leancnn.modes import evaluating
from leancnn.normalisation import planes
from leancnn.parity import WITHIN
from leancnn.runs import atomic_write
from leancnn.targets._base import EngineSession, Logits, Target, register
from leancnn.targets._c_text import to_c
from leancnn.toolchain import cross_compile
from leancnn.weights import Network

LEVELS = {
    "plain": (),
    "simd": ("-msimd128",),
    "relaxed": ("-msimd128", "-mrelaxed-simd"),
}
"""Flags of each file: what every engine runs, vectors of four floats, and their fused products."""
FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-std=c11", "-O3", "-DNDEBUG"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wl,-z,stack-size=131072"),
    "-s",
)
COPIED = ("classify.mjs", "classify.d.ts", "page.mjs", "page.css", "sw.js")
POLICY = "default-src 'none'; connect-src 'self'; img-src blob: data:; media-src blob:; "
POLICY += "worker-src 'self'; form-action 'none'; base-uri 'none'; "
OWN = POLICY + "script-src 'self' 'wasm-unsafe-eval'; style-src 'self'"


def write(network: Network, folder: Path, *, single: bool = False) -> list[Path]:
    """A static site; with `single`, one page that holds all and works from a disk.

    Raises `MissingDependencyError` without ziglang.
    """
    modules = to_wasm(network)
    if single:
        page = f"{_alone(network, modules)}<!-- origin {network.origin} -->\n"
        return [_put(folder, f"{network.file_name}.html", page.encode())]
    page = _filled(
        network,
        OWN,
        '<link rel="stylesheet" href="page.css">',
        '<script type="module" src="page.mjs"></script>',
    )
    written = [_put(folder, "index.html", page.encode())]
    written += [_put(folder, name, _page(name).encode()) for name in COPIED]
    return written + [_put(folder, f"{level}.wasm", code) for level, code in modules.items()]


def to_wasm(network: Network) -> dict[str, bytes]:
    """The module of each level of WebAssembly."""
    written = to_c(network, narrow=True)
    preprocessing = network.preprocessing
    description = {
        "name": network.name,
        "origin": network.origin,
        "classes": list(network.classes),
        "image": [preprocessing.channels, *preprocessing.size],
        "preprocessing": preprocessing.to_json(),
        "mean": list(network.mean),
        "std": list(network.std),
        "known": _known(network),
    }
    text = _page("web.c").replace("@NAME@", written.prefix)
    text = text.replace("@DESCRIPTION@", escaped(json.dumps(description)))
    return {
        level: cross_compile(
            written.source + text, name=written.prefix, suffix=".wasm", flags=(*FLAGS, *flags)
        )
        for level, flags in LEVELS.items()
    }


@torch.inference_mode()
def _known(network: Network) -> list[float]:
    """Probabilities of a picture that `classify.mjs` can draw itself: bytes of a congruence."""
    shape = (1, *network.preprocessing.size, network.preprocessing.channels)
    picture, x = np.empty(int(np.prod(shape)), np.uint8), 1
    for place in range(len(picture)):
        x = (x * 1103515245 + 12345) & 0xFFFFFFFF
        picture[place] = x >> 16 & 255
    with evaluating(network):
        logits = network(torch.from_numpy(picture.reshape(shape)))
    return [round(value, 6) for value in logits.softmax(1)[0].tolist()]


def _page(name: str) -> str:
    return (files("leancnn") / "page" / name).read_text(encoding="utf-8")


def _put(folder: Path, name: str, data: bytes) -> Path:
    atomic_write(folder / name, data)
    return folder / name


def _filled(network: Network, policy: str, style: str, script: str) -> str:
    values = {
        "POLICY": policy,
        "TITLE": html.escape(network.name),
        "STYLE": style,
        "SCRIPT": script,
    }
    return re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], _page("index.html"))


def _alone(network: Network, modules: dict[str, bytes]) -> str:
    """Style, script and modules inside the page; each by its digest in the page's policy."""
    style = _page("page.css")
    module = re.sub(r"^export (?=async|function|class)", "", _page("classify.mjs"), flags=re.M)
    page = re.sub(r'^import .* from "./classify.mjs";\n', "", _page("page.mjs"))
    packed = {
        level: base64.b64encode(gzip.compress(code, mtime=0)).decode()
        for level, code in modules.items()
    }
    options = (
        f"const packed = {json.dumps(packed)};\n"
        "const unpacked = async (text) => new Response(new Blob([Uint8Array.from(atob(text), "
        '(c) => c.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream("gzip")))'
        ".arrayBuffer();\n"
        "globalThis.leancnnOptions = { wasm: Object.fromEntries(Object.entries(packed)"
        ".map(([level, text]) => [level, () => unpacked(text)])) };\n"
    )
    script = f"{{\n{options}}}\n{module}\n{page}"
    policy = POLICY + f"script-src {_digest(script)} 'wasm-unsafe-eval'; style-src {_digest(style)}"
    return _filled(
        network, policy, f"<style>{style}</style>", f'<script type="module">{script}</script>'
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def load(path: Path) -> EngineSession:
    """Run a page's modules, every level at once; their answers must be alike.

    Raises `MissingDependencyError` without wasmtime, `DamagedError` for a page that is not ours.
    """
    try:
        import wasmtime
    except ImportError as error:
        raise MissingDependencyError(
            "comparing a page's answers needs wasmtime; pip install 'leancnn[web]'"
        ) from error
    config = wasmtime.Config()
    config.wasm_relaxed_simd = True
    engine = wasmtime.Engine(config)
    try:
        modules = [Module(engine, code) for code in _modules(path)]
    except (OSError, ValueError, KeyError, wasmtime.WasmtimeError) as error:
        raise DamagedError(f"{path}: not a page of ours ({error})") from error
    first = modules[0]

    def logits(images: NDArray[np.uint8]) -> Logits:
        return _alike(path, [module.logits(images) for module in modules])

    def probabilities(images: NDArray[np.uint8]) -> Logits:
        return _alike(path, [module.probabilities(images) for module in modules])

    def prepare(image: NDArray[np.uint8]) -> Callable[[], Any]:
        return lambda: first.probabilities(image)

    return EngineSession(logits, tuple(first.about["classes"]), prepare, probabilities, first.about)


def _modules(path: Path) -> list[bytes]:
    """The WebAssembly of a page, from inside it or from beside it, the best level first."""
    packed = re.search(r"^const packed = (\{.*\});$", path.read_text(encoding="utf-8"), re.M)
    if packed is None:
        return [(path.parent / f"{level}.wasm").read_bytes() for level in reversed(LEVELS)]
    values = json.loads(packed[1])
    return [gzip.decompress(base64.b64decode(values[level])) for level in reversed(LEVELS)]


def _alike(path: Path, answers: list[Logits]) -> Logits:
    first, *others = answers
    scale = max(1.0, float(np.abs(first).max()))
    if any(float(np.abs(other - first).max()) > WITHIN * scale for other in others):
        raise ParityError(f"{path.name}: the levels of WebAssembly answer differently")
    return first


class Module:
    """A module in wasmtime."""

    def __init__(self, engine: Any, code: bytes) -> None:
        import wasmtime

        self.store = wasmtime.Store(engine)
        instance = wasmtime.Instance(self.store, wasmtime.Module(engine, code), [])
        self.exports = cast(Any, instance.exports(self.store))
        if "_initialize" in self.exports:
            self.exports["_initialize"](self.store)
        self.memory = self.exports["memory"]
        text = self.memory.read(self.store, self.exports["describe"](self.store))
        self.about = json.loads(bytes(text).partition(b"\0")[0])
        channels, height, width = self.about["image"]
        self.answers = len(self.about["classes"])
        self.place = self.memory.data_len(self.store)
        self.memory.grow(
            self.store, -(-(4 * channels * height * width + 4 * self.answers) // 65536)
        )
        self.shape = (height, width, channels)

    def _each(self, call: str, images: list[bytes]) -> Logits:
        found = []
        for image in images:
            self.memory.write(self.store, image, self.place)
            after = self.place + -(-len(image) // 4) * 4
            self.exports[call](self.store, self.place, after)
            data = self.memory.read(self.store, after, after + 4 * self.answers)
            found.append(np.frombuffer(bytes(data), np.float32))
        return np.stack(found)

    def logits(self, images: NDArray[np.uint8]) -> Logits:
        """Logits (N, classes) of uint8 images (N, H, W, C)."""
        normal = planes(images, self.about["mean"], self.about["std"])
        return self._each("run_float", [image.tobytes() for image in normal])

    def probabilities(self, images: NDArray[np.uint8]) -> Logits:
        """Probabilities (N, classes) of uint8 images (N, H, W, C)."""
        return self._each("run", [image.tobytes() for image in images])

    def preprocess(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The network's pixels (H, W, C) of a picture (h, w, 1 | 3 | 4)."""
        height, width, layout = pixels.shape
        need = pixels.nbytes + int(np.prod(self.shape))
        room = self.memory.data_len(self.store) - self.place
        if need > room:
            self.memory.grow(self.store, -(-(need - room) // 65536))
        self.memory.write(self.store, pixels.tobytes(), self.place)
        after = self.place + pixels.nbytes
        if not self.exports["preprocess"](self.store, layout, self.place, width, height, after):
            raise MismatchError(f"a picture of {pixels.shape} cannot be scaled")
        data = self.memory.read(self.store, after, after + int(np.prod(self.shape)))
        return np.frombuffer(bytes(data), np.uint8).reshape(self.shape)


register(Target("web", "a page that classifies in the browser", ".html", write, load, ("single",)))
