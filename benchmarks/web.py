"""The web export beside onnxruntime-web in headless Chromium and node: results/web.json.

    python benchmarks/web.py FOLDER                     FOLDER: npm install onnxruntime-web@1.30.0
    python benchmarks/web.py FOLDER henet_r3 resnet20   some networks

Each engine has one thread and takes turns with the other; a turn's time is the median of its
images. The fastest turn of each is quoted, which other work on the machine disturbs least, and the
median of the ratios, turn by turn. Natively is the same C compiled by this machine's compiler for
vectors of four.
Needs node, chromium, chromium-driver and selenium.
"""

import argparse
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
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from leancnn.bench import untrained
from leancnn.compiled import CompiledNetwork
from leancnn.export import export
from leancnn.runs import machine, now, write_json
from leancnn.targets._c_text import to_c
from leancnn.toolchain import PORTABLE_FLAGS, compile_library

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "web.json"
NETWORKS = ("henet_r3", "shufflenet_r3", "resnet20", "mobilenetv2", "shufflenetv2_x0_5", "resnet8")
SCRIPT = """
const done = arguments[arguments.length - 1];
(async () => {
  const { load } = await import("/site/classify.mjs");
  const ort = await import("/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
  const { measure } = await import("/web.mjs");
  const model = new Uint8Array(await (await fetch("/model.onnx")).arrayBuffer());
  return measure({ load, ort, model, rounds: %d, milliseconds: %d });
})().then((value) => done(value), (error) => done({ error: String(error.stack || error) }));
"""


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


def native_us(name: str, rounds: int) -> float:
    """Microseconds of the same C, built for this machine's vectors of four floats."""
    written = to_c(untrained(name))
    flags = (*PORTABLE_FLAGS, "-DLANES=4")
    native = CompiledNetwork(compile_library(written.source, name=name, flags=flags))
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


def row(name: str, packages: Path, rounds: int, milliseconds: int) -> dict[str, Any]:
    """One network in both places."""
    network = untrained(name)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        export(network, to="web", out=folder / "site")
        (onnx,) = export(network, to="onnx", out=folder)
        onnx.rename(folder / "model.onnx")
        shutil.copy(HERE / "web.mjs", folder)
        (folder / "empty.html").write_text("<!doctype html><title>empty</title>")
        (folder / "node_modules").symlink_to(packages / "node_modules")
        words = ["node", HERE / "web.mjs", folder / "site", folder / "model.onnx", packages]
        words += [str(rounds), str(milliseconds)]
        done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True)
        node = json.loads(done.stdout)
        page = in_chromium(folder, rounds, milliseconds)
        code = (folder / "site" / f"{page['level']}.wasm").read_bytes()
    native = native_us(name, rounds)
    if max(node["apart"], page["apart"]) > 1e-3:
        raise SystemExit(
            f"{name}: the engines answer differently: {node['apart']}, {page['apart']}"
        )
    ours, theirs = page["ours"], page["theirs"]
    return {
        "network": name,
        "level": page["level"],
        "µs": round(min(ours)),
        "onnxruntime-web µs": round(min(theirs)),
        "times faster": round(min(theirs) / min(ours), 2),
        "turn by turn": round(median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
        "of native": round(min(ours) / native, 2),
        "in node µs": round(min(node["ours"])),
        "its µs in node": round(min(node["theirs"])),
        "kB": round(len(code) / 1000),
        "kB, gzip": round(len(gzip.compress(code)) / 1000),
        "ready ms": round(1000 * page["ready"]),
        "version": page["version"],
        "node": node["node"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--milliseconds", type=int, default=60)
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    versions: dict[str, object] = {}
    for name in args.networks or NETWORKS:
        found = row(name, args.packages.resolve(), args.rounds, args.milliseconds)
        versions = {"chromium": found.pop("version"), "node": found.pop("node")}
        rows.append(found)
        print(found, file=sys.stderr)
        package = args.packages / "node_modules" / "onnxruntime-web" / "package.json"
        versions["onnxruntime-web"] = json.loads(package.read_text())["version"]
        result = {
            "title": "One image in Chromium, one thread: the web export and onnxruntime-web",
            "command": "python benchmarks/web.py FOLDER " + " ".join(args.networks),
            "machine": {**machine(), **versions},
            "made": now(),
            "note": f"fastest of {args.rounds} turns each, and the median of their ratios; "
            f"load of the machine {os.getloadavg()[0]:.1f}",
            "rows": rows,
        }
        write_json(RESULT, result)


if __name__ == "__main__":
    main()
