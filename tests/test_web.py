"""The page that classifies in the browser, its WebAssembly in wasmtime and its module in node."""

import base64
import itertools
import json
import re
import shutil
import struct
import subprocess
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leancnn import toolchain
from leancnn.errors import ImageError, MissingDependencyError, UsageError
from leancnn.export import export
from leancnn.preprocess import Preprocessing
from leancnn.targets import targets, web
from leancnn.weights import Network
from tests.oddities import chunk
from tests.tiny import tiny

pytestmark = [  # a first `zig cc` builds a C library: a minute and more
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("ziglang") and find_spec("wasmtime")), reason="needs ziglang and wasmtime"
    ),
]
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="needs node")
NAMES = ("cat", "<b onclick=alert(1)>", 'quote " and \\ and ü')


def network(**preprocessing):
    torch.manual_seed(0)
    return Network(
        tiny().eval(),
        name="tiny",
        arguments={},
        classes=NAMES,
        preprocessing=Preprocessing(
            size=(8, 8), **{"scale": (10, 11), "background": (20, 200, 90), **preprocessing}
        ),
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.3, 0.25],
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    export(network(), to="web", out=folder)
    return folder


@pytest.fixture(scope="module")
def modules(site):
    import wasmtime

    config = wasmtime.Config()
    config.wasm_relaxed_simd = True
    engine = wasmtime.Engine(config)
    return {
        level: web.Module(engine, (site / f"{level}.wasm").read_bytes()) for level in web.LEVELS
    }


def any_png(width, height, depth, colour, interlaced, key, seed):
    """A PNG of random bytes under random filters: every one is a picture."""
    random = np.random.default_rng(seed)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for x, y, dx, dy in passes:
        w, h = -(-(width - x) // dx), -(-(height - y) // dy)
        for _ in range(h if w > 0 else 0):
            line = random.integers(0, 256, -(-w * bits // 8)).astype(np.uint8).tobytes()
            rows += bytes([int(random.integers(0, 5))]) + line
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", head)]
    if colour == 3:
        parts.append(
            chunk(b"PLTE", random.integers(0, 256, 768 >> (8 - depth)).astype(np.uint8).tobytes())
        )
    if key:
        short = random.integers(0, 1 << min(depth, 2), {0: 1, 2: 3}.get(colour, 1))
        body = b"".join(struct.pack(">H", int(value)) for value in short)
        parts.append(chunk(b"tRNS", bytes([0, 128, 255, 3][: 1 << depth]) if colour == 3 else body))
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


KINDS = [
    (depth, colour, interlaced, key)
    for colour, depths in (
        (0, (1, 2, 4, 8, 16)),
        (2, (8, 16)),
        (3, (1, 2, 4, 8)),
        (4, (8, 16)),
        (6, (8, 16)),
    )
    for depth in depths
    for interlaced, key in itertools.product((0, 1), (0, 1))
    if not (key and colour in (4, 6))
]


def in_node(site, files):
    done = subprocess.run(
        ["node", str(Path(__file__).parent / "web_pixels.mjs"), str(site), *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@needs_node
def test_every_kind_of_png_becomes_the_pixels_that_predict_sees(site, tmp_path):
    files = []
    for seed, (kind, size) in enumerate(itertools.product(KINDS, ((23, 17), (3, 2), (1, 40)))):
        files.append(tmp_path / f"{'-'.join(map(str, kind))}-{size[0]}.png")
        files[-1].write_bytes(any_png(*size, *kind, seed))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        files.append(tmp_path / f"turned-{turn}.png")
        pixels = np.random.default_rng(turn).integers(0, 256, (19, 31, 4)).astype(np.uint8)
        Image.fromarray(pixels).save(files[-1], exif=exif)
    net, answers = network(), in_node(site, files)
    compared = 0
    for path in files:
        found = answers["found"][str(path)]
        if "error" in found:
            with pytest.raises(ImageError, match=re.escape(found["error"].split(";")[0][:30])):
                net.preprocessing.read(path)
            continue
        expected = net.preprocessing.window(net.preprocessing.read(path).image[None])
        assert base64.b64decode(found["pixels"]) == expected.tobytes(), path.name
        with torch.inference_mode():
            rows = net(torch.from_numpy(expected.copy())).softmax(1)[0].numpy()
        np.testing.assert_allclose(found["probabilities"], rows, atol=1e-5)
        assert found["label"] == NAMES[rows.argmax()]
        compared += 1
    assert compared > len(files) * 0.9


@needs_node
def test_damaged_files_are_refused_by_the_module_in_words(site, tmp_path):
    whole = any_png(30, 20, 8, 2, 0, 0, 1)
    wrong = {
        "cut": whole[:-30],
        "flipped": whole[:60] + bytes([whole[60] ^ 4]) + whole[61:],
        "bomb": whole[:16] + struct.pack(">II", 60000, 60000) + whole[24:],
        "empty": b"",
        "text": b"<html>",
        "jpeg": b"\xff\xd8\xff\xe0" + b"\0" * 40,
        "headless": whole[:8],
    }
    for name, data in wrong.items():
        (tmp_path / name).write_bytes(data)
    found = in_node(site, [tmp_path / name for name in wrong])
    reasons = {name: found["found"][str(tmp_path / name)]["error"] for name in wrong}
    assert "checksum of" in reasons["flipped"]
    assert "checksum" in reasons["bomb"] or "pixels" in reasons["bomb"]
    assert all("damaged" in reasons[name] for name in ("cut", "jpeg", "headless"))
    assert "0 bytes" in reasons["empty"]
    assert "decode the picture first" in reasons["text"]
    assert found["classes"] == list(NAMES)
    assert "plain" in found["levels"]
    assert "cannot run here" in found["refused"]


def test_every_level_scales_to_the_bits_of_python(modules):
    preprocessing = network().preprocessing
    for shape in ((5, 9, 1), (8, 8, 3), (40, 31, 3), (7, 90, 3)):
        picture = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        expected = preprocessing.window(preprocessing.of_array(picture)[None])[0]
        for module in modules.values():
            assert np.array_equal(module.preprocess(picture), expected)


def test_a_single_file_holds_all_levels_and_runs_nothing_that_its_policy_does_not_name(tmp_path):
    (path,) = export(network(), to="web", out=tmp_path, single=True)
    text = path.read_text(encoding="utf-8")
    assert len(web._modules(path)) == 3
    assert not re.search(r'(src|href)="', text)
    for tag, inside in re.findall(r"<(style|script)[^>]*>(.*?)</\1>", text, re.S):
        assert web._digest(inside) in text.split("<title>")[0], tag


def test_a_site_is_text_whatever_a_network_is_called(tmp_path):
    net = network()
    net.name = "<script>alert(1)</script>"
    page = web._filled(net, web.OWN, "", "")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_answer_that_differs_between_levels_is_refused(site, tmp_path):
    other = network()
    other.body.fc.bias.data += 0.5
    wrong = tmp_path / "site"
    shutil.copytree(site, wrong)
    (wrong / "simd.wasm").write_bytes(web.to_wasm(other)["simd"])
    loaded = targets["web"].load(wrong / "index.html")
    with pytest.raises(web.ParityError, match="levels"):
        loaded.logits(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_missing_compiler_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    toolchain.find_cross_compiler.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"pip install 'leancnn\[web\]'"):
            export(network(), to="web", out=tmp_path)
    finally:
        toolchain.find_cross_compiler.cache_clear()


def test_an_option_of_another_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--single is for web"):
        export(network(), to="c", out=tmp_path, single=True)


def test_what_the_module_exports_is_what_its_types_declare():
    page = Path(web.__file__).parent.parent / "page"
    given = re.findall(
        r"^export (?:async )?(?:function|class) (\w+)", (page / "classify.mjs").read_text(), re.M
    )
    said = re.findall(
        r"^export declare (?:function|class) (\w+)", (page / "classify.d.ts").read_text(), re.M
    )
    assert sorted(given) == sorted(said)


THREADS = """
import { Worker, isMainThread, parentPort } from "node:worker_threads";
import { load } from "./classify.mjs";

const pixels = Uint8Array.from({ length: 8 * 8 * 3 }, (_, place) => (place * 7) % 256);
async function answer() {
  const network = await load();
  return [network.level, network.classes, ...network.run(pixels)];
}
if (isMainThread) {
  const there = await new Promise((done, fail) => {
    const worker = new Worker(new URL(import.meta.url));
    worker.on("message", done).on("error", fail);
  });
  console.log(JSON.stringify([await answer(), there]));
} else {
  parentPort.postMessage(await answer());
}
"""


def answered(script):
    """What the main thread and a worker say."""
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    here, there = json.loads(done.stdout)
    return here, there


@needs_node
def test_a_worker_answers_as_the_main_thread(site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    (folder / "threads.mjs").write_text(THREADS)
    here, there = answered(folder / "threads.mjs")
    assert here == there
    assert here[1] == list(NAMES)
    assert sum(here[2:]) == pytest.approx(1, abs=1e-5)


@needs_node
@pytest.mark.skipif(not shutil.which("esbuild"), reason="needs esbuild")
def test_a_bundle_answers_as_the_module(site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    (folder / "threads.mjs").write_text(THREADS)
    made = tmp_path / "made"
    words = ["--bundle", "--minify", "--format=esm", "--platform=node", f"--outfile={made}/all.mjs"]
    subprocess.run(["esbuild", folder / "threads.mjs", *words], check=True, capture_output=True)
    for path in folder.glob("*.wasm"):  # esbuild leaves what new URL names where it is
        shutil.copy(path, made)
    assert answered(made / "all.mjs") == answered(folder / "threads.mjs")
