"""The web export beside other engines in headless Chromium and node: results/web.json.

    npm install --prefix FOLDER onnxruntime-web@1.30.0 @litertjs/core@2.5.3 \\
        @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0
    python benchmarks/web.py FOLDER --files runs/web --build   only make what the engines run
    python benchmarks/web.py FOLDER --files runs/web           all networks
    python benchmarks/web.py FOLDER henet_r3 resnet20          some, beside those measured before

Each engine has one thread and takes turns with the others; a turn's time is the median of its
images. The fastest turn of each is quoted, which other work on the machine disturbs least, and the
median of the ratios, turn by turn. Natively is the same C compiled by this machine's compiler for
vectors of four. LiteRT.js takes part where it is in FOLDER and $LEANCNN_LITERT_PYTHON can convert
(docs/export.md), TensorFlow.js where it is in FOLDER and has the network's operators. Needs node,
chromium, chromium-driver and selenium.
"""

import argparse
import contextlib
import functools
import gzip
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tfjs_model

sys.path.insert(0, str(Path(__file__).parent.parent))
from leancnn.bench import untrained
from leancnn.compiled import CompiledNetwork
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.simplify import simplify
from leancnn.errors import UnsupportedError
from leancnn.export import export
from leancnn.runs import machine, now, write_json
from leancnn.targets._c_text import to_c
from leancnn.targets.litert import PYTHON as LITERT
from leancnn.toolchain import PORTABLE_FLAGS, compile_library

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "web.json"
BARS = {
    **dict.fromkeys(("henet_r2", "henet_r3", "henet_r4", "shufflenet_r3", "shufflenet_r5"), 4.0),
    **dict.fromkeys(("rsenet", "lbmbnet32_r6", "nvmnet_g4", "squeezenet1_1", "mobilenetv2"), 2.5),
    **dict.fromkeys(("shufflenetv2_x0_5", "resnet8", "resnet20"), 4.0),
}
"""The networks of the engines' table, and how many times faster than onnxruntime-web is wanted."""
EMPTY = """<!doctype html><title>empty</title><script type="importmap">
{"imports": {"@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"}}</script>
"""
SCRIPT = """
const done = arguments[arguments.length - 1];
async function tensorflow() {
  const at = "/node_modules/@tensorflow/";
  for (const file of ["tfjs/dist/tf.min.js", "tfjs-backend-wasm/dist/tf-backend-wasm.min.js"])
    await new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src: at + file });
      script.onload = resolve;
      script.onerror = () => reject(new Error(file));
      document.head.append(script);
    });
  tf.wasm.setWasmPaths(at + "tfjs-backend-wasm/dist/");
  tf.wasm.setThreadsCount(1);
  await tf.setBackend("wasm");
  return tf;
}
(async () => {
  const { load } = await import("/site/classify.mjs");
  const ort = await import("/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
  const { measure } = await import("/web.mjs");
  const bytes = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
  const about = await (await fetch("/about.json")).json();
  const litert = about.tflite ? await import("/node_modules/@litertjs/core/dist/index.js") : null;
  await litert?.loadLiteRt("/node_modules/@litertjs/core/wasm/");
  const tflite = about.tflite ? await bytes("/model.tflite") : null;
  const tf = about.tfjs ? await tensorflow() : null;
  const tfjs = about.tfjs ? "/tfjs/model.json" : null;
  const model = await bytes("/model.onnx");
  const engines = { load, ort, model, litert, tflite, tf, tfjs };
  return measure({ ...about, ...engines, rounds: %d, milliseconds: %d });
})().then((value) => done(value), (error) => done({ error: String(error.stack || error) }));
"""
Row = dict[str, Any]


class Server:
    """A folder over HTTP on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                """Say nothing."""

            def end_headers(self) -> None:
                """Isolate the page, for a clock of five microseconds."""
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                super().end_headers()

        handler = functools.partial(Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def in_chromium(folder: Path, rounds: int, milliseconds: int) -> dict[str, Any]:
    """What `measure` finds in a headless browser, and how soon the page was ready."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.binary_location = shutil.which("chromium") or ""
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        url = Server(folder).url
        browser.set_script_timeout(300)
        begin = time.monotonic()
        browser.get(f"{url}/site/")
        while not browser.execute_script("return document.documentElement.dataset.ready"):
            time.sleep(0.005)
        ready = time.monotonic() - begin
        browser.get(f"{url}/empty.html")
        answer = browser.execute_async_script(SCRIPT % (rounds, milliseconds))
        if "error" in answer:
            raise SystemExit(answer["error"])
        return {**answer, "ready": ready, "version": browser.capabilities["browserVersion"]}
    finally:
        browser.quit()


def native_us(library: Path, rounds: int) -> float:
    """Microseconds of the same C, built for this machine's vectors of four floats."""
    native = CompiledNetwork(library)
    c, h, w = native.shape
    run = native.bare(np.zeros((1, h, w, c), np.uint8))
    turns = []
    for _ in range(rounds):
        took, end = list[float](), time.perf_counter() + 0.02
        while time.perf_counter() < end:
            begin = time.perf_counter()
            run()
            took.append(1e6 * (time.perf_counter() - begin))
        turns.append(median(took))
    return min(turns)


def build(name: str, folder: Path, packages: Path) -> None:
    """What the engines run of a network; `native` comes last and says that all is there."""
    if (folder / "native").exists():
        return
    network = untrained(name)
    export(network, to="web", out=folder / "site")
    (onnx,) = export(network, to="onnx", out=folder)
    onnx.rename(folder / "model.onnx")
    about: Row = {
        "mean": list(network.mean),
        "std": list(network.std),
        "tflite": False,
        "tfjs": False,
    }
    if (packages / "node_modules" / "@tensorflow" / "tfjs").is_dir():
        with contextlib.suppress(UnsupportedError):
            shape = (network.preprocessing.channels, *network.preprocessing.size)
            tfjs_model.write(simplify(import_torch(network.body, shape)), folder / "tfjs")
            about["tfjs"] = True
    if LITERT in os.environ and (packages / "node_modules" / "@litertjs").is_dir():
        with contextlib.suppress(UnsupportedError):
            tflite, _ = export(network, to="litert", out=folder)
            tflite.rename(folder / "model.tflite")
            about["tflite"] = True
    write_json(folder / "about.json", about)
    (folder / "empty.html").write_text(EMPTY, encoding="utf-8")
    written = to_c(network)
    flags = (*PORTABLE_FLAGS, "-DLANES=4")
    shutil.copy(compile_library(written.source, name=name, flags=flags), folder / "native")


def row(name: str, folder: Path, packages: Path, rounds: int, milliseconds: int) -> Row:
    """One network in both places."""
    shutil.copy(HERE / "web.mjs", folder)
    (folder / "node_modules").unlink(missing_ok=True)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    words = ["node", HERE / "web.mjs", folder / "site", folder / "model.onnx", packages]
    words += [rounds, milliseconds]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True)
    node = json.loads(done.stdout)
    page = in_chromium(folder, rounds, milliseconds)
    code = (folder / "site" / f"{page['level']}.wasm").read_bytes()
    apart = max(node["apart"], page["apart"])
    if apart > 1e-3:
        raise SystemExit(f"{name}: the engines answer differently, by {apart}")
    ours, theirs = page["ours"], page["theirs"]
    litert, tfjs = page.get("litert", []), page.get("tfjs", [])
    return {
        "network": name,
        "µs": round(min(ours)),
        "onnxruntime-web µs": round(min(theirs)),
        "times faster": round(min(theirs) / min(ours), 2),
        "turn by turn": turn_by_turn(theirs, ours),
        "bar": BARS.get(name, 2.5),
        "LiteRT.js µs": round(min(litert)) if litert else "–",
        "LiteRT.js turn by turn": turn_by_turn(litert, ours) if litert else "–",
        "TensorFlow.js µs": round(min(tfjs)) if tfjs else "–",
        "TensorFlow.js turn by turn": turn_by_turn(tfjs, ours) if tfjs else "–",
        "of native": round(min(ours) / native_us(folder / "native", rounds), 2),
        "in node µs": round(min(node["ours"])),
        "onnxruntime-web in node µs": round(min(node["theirs"])),
        "level": page["level"],
        "kB": round(len(code) / 1000),
        "kB, gzip": round(len(gzip.compress(code, mtime=0)) / 1000),
        "ready ms": round(1000 * page["ready"]),
        "chromium": page["version"],
        "node": node["node"],
    }


def turn_by_turn(theirs: list[float], ours: list[float]) -> float:
    """The median of the ratios."""
    return round(median(b / a for a, b in zip(ours, theirs, strict=True)), 2)


def kept(machine: Row, note: str, anew: Sequence[str]) -> list[Row]:
    """What the file has of other networks, if the same machine measured it in the same way."""
    if not RESULT.is_file():
        return []
    there = json.loads(RESULT.read_text(encoding="utf-8"))
    same = there["machine"] == machine and there.get("note") == note
    return [row for row in there["rows"] if row["network"] not in anew] if same else []


def versions(packages: Path) -> dict[str, str]:
    """Of the engines in a folder of npm's."""
    found = {}
    for name in ("onnxruntime-web", "@litertjs/core", "@tensorflow/tfjs-backend-wasm"):
        package = packages / "node_modules" / name / "package.json"
        if package.is_file():
            found[name] = json.loads(package.read_text(encoding="utf-8"))["version"]
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("networks", nargs="*", default=list(BARS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--milliseconds", type=int, default=60)
    parser.add_argument("--files", type=Path, help="keep what the engines run in this folder")
    parser.add_argument("--build", action="store_true", help="only make those files")
    args = parser.parse_args()
    packages, names = args.packages.resolve(), args.networks or list(BARS)
    with tempfile.TemporaryDirectory() as work:
        folder = args.files or Path(work)
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
            build(name, folder / name, packages)
            print(name, "built", file=sys.stderr)
            if not args.build:
                publish(row(name, folder / name, packages, args.rounds, args.milliseconds), args)


def publish(found: Row, args: argparse.Namespace) -> None:
    """Write a network beside those that are there: a stop loses one."""
    print(found, file=sys.stderr)
    engines = {"chromium": found.pop("chromium"), "node": found.pop("node")}
    about = {**machine(), **engines, **versions(args.packages)}
    note = f"fastest of {args.rounds} turns of {args.milliseconds} ms each, and the median of "
    note += "their ratios; LiteRT.js and TensorFlow.js compute from a float32 input made beforehand"
    rows = [*kept(about, note, [found["network"]]), found]
    rows.sort(key=lambda row: [*BARS, row["network"]].index(row["network"]))
    names = [row["network"] for row in rows]
    words = [] if names == list(BARS) else names
    words += ["--rounds", str(args.rounds), "--milliseconds", str(args.milliseconds)]
    result = {
        "title": "One image in Chromium, one thread: the web export and other engines",
        "command": " ".join(["python benchmarks/web.py FOLDER", *words]),
        "machine": about,
        "made": now(),
        "note": note,
        "rows": rows,
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
