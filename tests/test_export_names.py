"""Several networks in one folder: none replaces another, and all link into one program."""

import os
import shutil
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from leancnn import cli, weights
from leancnn.bench import untrained
from leancnn.compile import compile
from leancnn.errors import ArgumentError, MissingDependencyError, ParityError, WriteError
from leancnn.export import export
from leancnn.targets import targets
from leancnn.toolchain import find_compiler
from tests.compiler_saved import on_shelf
from tests.few import few

ON_DISK = [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "web"))
    for name in targets
    if name != "torch-compile"  # it is PyTorch's, in the process
]


@pytest.fixture(autouse=True, scope="module")
def speck():
    """A network of the zoo that compiles in a moment."""
    off = on_shelf()
    yield
    off()


@pytest.fixture
def unread(monkeypatch):
    """Exports are not run in their engines: this is about files."""
    exporting = import_module("leancnn.export")
    monkeypatch.setattr(exporting, "check_parity", lambda *given: None)
    unread = {name: replace(target, load=lambda path: None) for name, target in targets.items()}
    monkeypatch.setattr(exporting, "targets", unread)


def another(seed):
    """The network with weights of its own."""
    network = untrained("speck")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        weight = list(network.body.parameters())[-2]
        weight.add_(torch.randn_like(weight))
    return network


def bytes_of(folder):
    return {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def exported(network, to, out, **more):
    try:
        return export(network, to=to, out=out, **more)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def bytes_of_export(network, out):
    return {path.name: path.read_bytes() for path in export(network, to="c", out=out)}


@pytest.mark.long
@pytest.mark.usefixtures("unread")
def test_of_exports_into_one_folder_at_one_moment_one_network_stands_whole(tmp_path):
    """Two networks of one name, three processes each: the files are those of the first, all of
    them, and the others end with a line of ours."""
    networks = [another(1), another(2)]
    alone = [bytes_of_export(network, tmp_path / network.origin) for network in networks]
    out, children = tmp_path / "out", []
    ready, go = os.pipe()
    for number in range(6):
        if (child := os.fork()) == 0:
            status = 9
            try:
                os.close(go)
                os.read(ready, 1)  # ends for all when the parent closes its side
                export(networks[number % 2], to="c", out=out)
                status = number % 2
            except WriteError as error:
                status = 2 if "of another network, and stays" in str(error) else 8
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(ready)
    (winner,) = set(ended) - {2}
    assert winner in (0, 1)
    assert ended.count(winner) == ended.count(2) == 3
    assert {path.name: data for path, data in bytes_of(out).items()} == alone[winner]


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("to", few(ON_DISK))
def test_an_export_replaces_its_own_and_never_those_of_another_network(to, tmp_path):
    one, two = another(1), another(2)
    first = exported(one, to, tmp_path)
    assert exported(one, to, tmp_path) == first
    before = bytes_of(tmp_path)
    with pytest.raises(WriteError, match=r"of another network, and stays; .* --name"):
        export(two, to=to, out=tmp_path)
    assert bytes_of(tmp_path) == before
    if to == "web":
        return  # a site is a folder of its own, whatever the network's name
    beside = exported(two, to, tmp_path, name="second")
    assert all(path.stem == "second" or path.name == "second" for path in beside)
    assert {path: data for path, data in bytes_of(tmp_path).items() if path in before} == before


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("to", few(["c", "onnx", "torch"]))
def test_a_file_that_no_run_is_known_of_stays(to, tmp_path):
    for place in exported(another(1), to, tmp_path / "as"):
        theirs = tmp_path / "theirs" / place.name
        theirs.parent.mkdir(exist_ok=True)
        theirs.mkdir() if place.is_dir() else theirs.write_text("mine")
    before = bytes_of(tmp_path / "theirs")
    with pytest.raises(WriteError, match="no run of leancnn is known of"):
        export(another(1), to=to, out=tmp_path / "theirs")
    assert bytes_of(tmp_path / "theirs") == before


@pytest.mark.long
@pytest.mark.usefixtures("unread")
def test_best_and_last_of_one_run_replace_each_other_and_another_run_does_not(quiet, tmp_path):
    out = ["--out", str(tmp_path / "build")]
    for verb in ("export", "compile"):
        for which in ("best", "last"):
            assert cli.main([verb, str(quiet), "--checkpoint", which, *out]) == 0
    shutil.copytree(quiet, tmp_path / "other")
    assert cli.main(["export", str(tmp_path / "other"), *out]) == 1
    assert cli.main(["compile", str(tmp_path / "other"), *out]) == 1
    assert cli.main(["compile", str(tmp_path / "other"), *out, "--name", "other"]) == 0


@pytest.mark.long
def test_two_networks_of_one_name_link_into_one_program(tmp_path):
    names = {"net": another(1), "NET": another(2), "third": another(3)}
    for name, network in names.items():
        compile(network, out=tmp_path, name=name)
    lines = [f'#include "{name}.h"' for name in names] * 2 + [
        "#include <stdio.h>",
        "int main(void) {",
    ]
    expected = []
    for name, network in names.items():
        height, width = network.preprocessing.size
        image = np.full((1, height, width, 3), 77, np.uint8)
        lines += [
            f"    static uint8_t {name}_image[{image.size}]; float {name}_p[{name}_classes];",
            f"    for (int i = 0; i < {image.size}; i++) {name}_image[i] = 77;",
            f"    {name}_run({name}_image, {name}_p, 0);",
            f'    for (int i = 0; i < {name}_classes; i++) printf("%.9g\\n", (double){name}_p[i]);',
        ]
        expected += list(network.probabilities(image)[0])
    (tmp_path / "main.c").write_text("\n".join([*lines, "    return 0;", "}", ""]))
    command = [*find_compiler().command, "-std=c11", "-O1", "-march=native", "-Wall", "-Werror"]
    sources = [str(tmp_path / f"{name}.c") for name in ("main", *names)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "main"), *sources, "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True)
    assert np.allclose([float(line) for line in printed.stdout.split()], expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["", "1a", "_a", "a-b", "a/b", "../a", "a b", "é", "a" * 61, "a\n"]
)
def test_a_name_that_c_could_not_have_is_refused_before_any_work(name, tmp_path):
    with pytest.raises(ArgumentError, match="`name` is a letter"):
        export(untrained("speck"), to="c", out=tmp_path / "x" / "y", name=name)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("there", few([True, False]))
def test_an_export_that_fails_leaves_no_folder(there, tmp_path, monkeypatch):
    def wrong(*given):
        raise ParityError("otherwise")

    for module in ("leancnn.export", "leancnn.compile"):
        monkeypatch.setattr(import_module(module), "check_parity", wrong)
    if there:
        (tmp_path / "new").mkdir()
    for call in (lambda n, out: export(n, to="onnx", out=out), lambda n, out: compile(n, out=out)):
        with pytest.raises(ParityError):
            call(untrained("speck"), tmp_path / "new" / "deep")
    assert list(tmp_path.rglob("*")) == ([tmp_path / "new"] if there else [])


@pytest.mark.long
def test_an_onnx_file_of_the_same_name_does_not_replace_another(tmp_path, capsys):
    for seed in (1, 2):
        (made,) = exported(another(seed), "onnx", tmp_path / str(seed))
        words = ["compile", str(made), "--out", str(tmp_path / "build")]
        assert cli.main(words) == seed - 1
    assert "of another network" in capsys.readouterr().err
    assert cli.main([*words, "--name", "second"]) == 0
    assert (tmp_path / "build" / "second.h").exists()
    assert cli.main([*words, "--checkpoint", "best"]) == 2


def test_compile_takes_the_checkpoint_of_a_run(quiet, tmp_path):
    assert cli.main(["compile", str(quiet), "--out", str(tmp_path), "--which", "last"]) == 0
    (library,) = tmp_path.glob("*.so")
    network = weights.load(quiet, "last")
    images = np.zeros((1, *network.preprocessing.size, network.preprocessing.channels), np.uint8)
    assert np.allclose(
        compile(network)(images), import_module("leancnn").CompiledNetwork(library)(images)
    )
