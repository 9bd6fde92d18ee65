"""Integers in the least memory: outputs over inputs, strides without copies, plain loops."""

import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leancnn.bench import untrained
from leancnn.compiler import int8_lower
from leancnn.compiler.arena import set_origins
from leancnn.compiler.frame import Metadata
from leancnn.compiler.graph import (
    Activation,
    Combine,
    Concat,
    Conv,
    Crop,
    Gather,
    Pool,
    Reduce,
    empty,
    floats,
)
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.int8_accesses import Accesses
from leancnn.compiler.int8_emit import emit_integers
from leancnn.compiler.int8_kernel_pack import Pack
from leancnn.compiler.int8_layout import Plane
from leancnn.compiler.int8_lower import lower
from leancnn.compiler.int8_overlaps import Plans, candidates
from leancnn.compiler.int8_verify import verify
from leancnn.compiler.integers import QConv, Quantized, QValue, Store
from leancnn.compiler.quantize import quantize
from leancnn.compiler.ranges import measure
from leancnn.compiler.reference import IntegerNetwork
from leancnn.compiler.simplify import simplify
from leancnn.errors import ProgramError
from leancnn.parity import trial_images
from tests.few import few
from tests.int8_nets import (
    MEAN,
    QUICK,
    STD,
    DepthwiseDrawn,
    Downsampled,
    Drawn,
    answers,
    drawn,
    written,
)


class Blocks(Drawn):
    """Blocks of HENet: channels mixed 1×1, grouped 3×3, a sum beside; then a grouped stride."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.graph = empty((3, *self.sides()))
        value = past = self.relu(self.weighted(self.graph.input, 12, 3, 1))
        for _ in range(2):
            both = value if value is past else self.add(Concat(), value, past)
            mixed = self.weighted(both, 12, 1, 3)
            order = tuple(int(c) for c in self.random.permutation(12))
            value = self.relu(self.weighted(self.add(Gather(order), mixed), 12, 3, 2))
            past = self.add(Combine("add"), past, value)
        both = self.add(Concat(), value, past)
        value = self.relu(self.weighted(both, 12, 3, 3, (2, 2), int(self.random.integers(2))))
        value = self.add(Reduce("mean", "pixels"), value)
        self.graph.output = self.weighted(value, 4, 1, 1)

    def sides(self):
        return [int(side) for side in self.random.integers(9, 17, 2)]

    def relu(self, x):
        return self.add(Activation("clip"), x)

    def weighted(self, x, outputs, side, groups, stride=(1, 1), edge=None):
        c = self.shape(x)[0]
        shape = (outputs, c // groups, side, side)
        weight = self.random.normal(0, (c * side * side / groups) ** -0.5, shape)
        edges = (side // 2 if edge is None else edge,) * 4
        op = Conv(floats(weight), self.numbers(outputs), stride, edges, (1, 1), groups)
        return self.add(op, x)


def every(program, size):
    """Place the planes with each output that may lie over an input there, if it pays or not."""
    Plans(program, size).words(candidates(program))


@pytest.fixture
def all_over(monkeypatch):
    monkeypatch.setattr(int8_lower, "overlap", every)


def small(network):
    """Its C."""
    channels = network.values[network.image].shape[0]
    mean, std = ([numbers[c % 3] for c in range(channels)] for numbers in (MEAN, STD))
    metadata = Metadata(name="drawn", classes=tuple("abcd"), mean=mean, std=std, logits=False)
    return emit_integers(network, metadata, small=True)


class Pooled(Drawn):
    """Largest values of windows, and strided windows of each channel."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.graph = empty((3, 20, 19))
        self.value = self.conv(self.graph.input, 12, 3)
        for side, stride, edge in ((3, 2, 1), (2, 2, 0)):
            _, h, w = self.shape(self.value)
            self.value = self.add(Crop(1, 0, h - 1, w - 1), self.value)
            pool = Pool("max", (side, side), (stride, stride), (edge,) * 4)
            self.value = self.add(pool, self.value)
            self.value = self.conv(self.value, 12, 3, 12, 2 if edge else 1)
        self.value = self.add(Reduce("mean", "pixels"), self.value)
        weight = floats(self.random.normal(0, 0.3, (4, 12, 1, 1)))
        self.graph.output = self.add(Conv(weight, self.numbers(4)), self.value)


DRAWN = [
    *((Pooled, n) for n in range(2)),
    *((Blocks, n) for n in range(3)),
    (Downsampled, 2),
    (Drawn, 15),
]


@pytest.mark.parametrize(("kind", "seed"), few(DRAWN, rows=True))
def test_outputs_over_inputs_give_the_bits_of_the_reference(kind, seed, all_over):
    _, network, reference, pixels = drawn(seed, images=3, kind=kind)
    assert lower(network, small=True).arena.before
    found = answers(small(network).source, pixels, ["-O0"])
    assert np.array_equal(found, reference.answer(pixels).numpy())


@pytest.mark.parametrize(
    ("kind", "seed", "flags"),
    few(
        [(Blocks, 5, ["-DINTEGERS", "-O0"]), (DepthwiseDrawn, 1, ["-O0"]), (Drawn, 8, ["-O2"])],
        rows=True,
    ),
)
def test_the_least_memory_gives_the_bits_of_the_reference(kind, seed, flags):
    _, network, reference, pixels = drawn(seed, images=3, kind=kind)
    found = answers(small(network).source, pixels, flags)
    assert np.array_equal(found, reference.answer(pixels).numpy())


HARNESS = """
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    static uint8_t image[CHANNELS * HEIGHT * WIDTH];
    static float logits[CLASSES];
    void *scratch = malloc(SCRATCH);
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        drawn_run(image, logits, scratch);
        fwrite(logits, 1, sizeof logits, stdout);
    }
    free(scratch);
    return 0;
}
"""


@pytest.mark.long
def test_nothing_is_touched_beyond_the_scratch_that_the_file_asks_for(all_over, tmp_path):
    _, network, reference, pixels = drawn(6, images=3, kind=Blocks)
    made, program = small(network), tmp_path / "drawn"
    flags = [*QUICK, f"-DSCRATCH={made.scratch_bytes}", "-O0", "-fsanitize=address,undefined"]
    source = (made.source + HARNESS).encode()
    command = [
        "gcc",
        *flags,
        "-fno-sanitize-recover=all",
        "-x",
        "c",
        "-",
        "-o",
        str(program),
        "-lm",
    ]
    built = subprocess.run(command, input=source, capture_output=True)
    if b"cannot find" in built.stderr:
        pytest.skip("needs the sanitizers of gcc")
    assert built.returncode == 0, built.stderr.decode()
    images = pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8).tobytes()
    done = subprocess.run([program], input=images, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found = np.frombuffer(done.stdout, np.float32).reshape(len(pixels), -1)
    assert np.array_equal(found, reference.answer(pixels).numpy())


def over(seeds):
    """Small programs, with their outputs over inputs."""
    for seed in seeds:
        program = lower(drawn(seed, images=2, kind=Blocks)[1], small=True)
        yield from ((program, new, *pair) for new, pair in program.arena.before.items())


def test_an_output_one_word_too_near_to_its_input_is_refused(all_over):
    tried = 0
    for program, new, old, words in over(range(6)):
        verify(program)
        if not words:  # quad by quad, or smaller than what is read
            continue
        accesses = program.kernels[new.born].accesses()
        assert accesses.apart(new, old, words)
        assert not accesses.apart(new, old, words - 1)
        new.origin += 1
        with pytest.raises(ProgramError, match=r"over .*, which it reads"):
            verify(program)
        new.origin -= 1
        tried += 1
    assert tried > 12


def test_one_word_too_near_the_c_would_read_what_it_has_overwritten(all_over, monkeypatch):
    """The model is not more careful than it has to be."""
    fewest = Accesses.distance
    monkeypatch.setattr(
        Accesses, "distance", lambda *pair: max(0, (fewest(*pair) or 0) - 1) or fewest(*pair)
    )
    monkeypatch.setattr("leancnn.compiler.int8_emit.verify", lambda program: None)
    _, network, reference, pixels = drawn(1, images=3, kind=Blocks)
    found = answers(small(network).source, pixels, [])
    assert not np.array_equal(found, reference.answer(pixels).numpy())


def test_an_arena_that_ends_where_a_window_still_looks_is_refused(all_over):
    program = lower(drawn(0, images=2, kind=Blocks)[1], small=True)
    ends = [p.origin + end for kernel in program.kernels for p, end in kernel.beyond().items()]
    program.arena.words = max(ends) - 1
    with pytest.raises(ProgramError, match=r"beyond the end of the arena|outside the arena"):
        verify(program)


@pytest.mark.parametrize("kind", [Blocks, Downsampled])
def test_the_least_memory_is_less_and_strides_take_no_copy(kind):
    for seed in range(4):
        network = drawn(seed, images=2, kind=kind)[1]
        program = lower(network, small=True)
        assert program.arena.words < lower(network).arena.words
        packs = [kernel for kernel in program.kernels if isinstance(kernel, Pack)]
        assert not any(pack.phases for pack in packs)


@pytest.mark.long
def test_henet_takes_at_most_52_kb():
    network = untrained("henet_r3")
    graph = simplify(import_torch(network.body, (3, 31, 31)))
    images = network.normalise(torch.from_numpy(trial_images(network, 2)))
    quantized = quantize(graph, measure(graph, [images]), network.mean, network.std)
    program = lower(quantized, small=True)
    verify(program)
    assert 4 * program.arena.words + 64 <= 52_000


@st.composite
def tied(draw):
    """Planes with lives, some of them in front of others that end when they begin."""
    planes = []
    for at in range(draw(st.integers(1, 8))):
        plane = Plane(f"p{at}", 1, 1, 1, (), below=draw(st.integers(0, 5)))
        plane.size = plane.below + draw(st.integers(1, 40))
        plane.born, plane.dies = at, at + draw(st.integers(0, 4))
        planes.append(plane)
    before, taken = {}, set()
    for new in planes:
        ends = [old for old in planes if old.dies == new.born > old.born and old not in taken]
        if ends and draw(st.booleans()):
            before[new] = ends[0], draw(st.integers(0, 50))
            taken.add(ends[0])
    return planes, before


@given(tied(), st.sampled_from([1, 16]), st.integers(0, 4))
def test_places_keep_distances_and_nothing_else_meets(found, grain, tries):
    planes, before = found
    most = set_origins(planes, {}, before=before, first=3, grain=grain, tries=tries)
    for new, (old, words) in before.items():
        assert old.origin - new.origin == words
    for plane in planes:
        assert plane.origin - plane.below >= 3
        assert plane.origin - plane.below + plane.size <= 3 + most
        for other in planes:
            together = plane.born <= other.dies and other.born <= plane.dies
            pair = before.get(plane, (None,))[0] is other or before.get(other, (None,))[0] is plane
            if together and plane is not other and not pair:
                low, begin = plane.origin - plane.below, other.origin - other.below
                assert low + plane.size <= begin or begin + other.size <= low


class Permuted(Drawn):
    """A strided convolution in groups of channels that were shuffled, and that others read too."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.graph = empty((3, 48, 48))
        x = self.weighted(self.graph.input, 24, 1)
        order = tuple(int(c) for c in self.random.permutation(24))
        strided = self.weighted(self.add(Gather(order), x), 24, 4, (2, 2))
        means = [self.add(Reduce("mean", "pixels"), value) for value in (strided, x)]
        self.graph.output = self.weighted(self.add(Concat(), *means), 4, 1)

    def weighted(self, x, outputs, groups, stride=(1, 1)):
        c, h, _ = self.shape(x)
        side = 3 if h > 1 else 1
        weight = self.random.normal(0, 0.1, (outputs, c // groups, side, side))
        edge = (side // 2,) * 4
        op = Conv(floats(weight), self.numbers(outputs), stride, edge, (1, 1), groups)
        return self.add(Activation("clip"), self.add(op, x))


def test_what_has_to_be_copied_takes_no_more_than_in_the_fast_plan():
    _, network, reference, pixels = drawn(0, images=1, kind=Permuted)
    assert small(network).scratch_bytes <= written(network).scratch_bytes
    found = answers(small(network).source, pixels, QUICK)
    assert np.array_equal(found, reference.answer(pixels).numpy())


def test_one_pixel_has_no_padding_beside_it():
    """A window of 3×3 on an image of one pixel, two pixels of padding around it."""
    random = np.random.default_rng(0)
    image = QValue((3, 1, 1), np.ones(3), np.full(3, 7))
    made = QValue((4, 3, 3), np.ones(4), np.full(4, 9))
    weight = random.integers(-60, 60, (4, 3, 3, 3)).astype(np.int8)
    store = Store("made", np.full(4, 2e-3, np.float32))
    conv = QConv("image", weight, np.full(4, 99, np.int32), (store,), padding=(2, 2, 2, 2))
    answer = QValue((4, 1, 1), np.ones(4), np.full(4, 100))
    last = random.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8)
    store = Store("out", np.full(4, 1e-3, np.float32))
    dense = QConv("made", last, np.zeros(4, np.int32), (store,))
    values = {"image": image, "made": made, "out": answer}
    network = Quantized("image", "out", values, [conv, dense], np.zeros(3))
    pixels = torch.from_numpy(random.integers(0, 256, (3, 3, 1, 1))).to(torch.int32)
    expected = IntegerNetwork(network).answer(pixels).numpy()
    assert np.array_equal(answers(small(network).source, pixels, QUICK), expected)


def test_the_header_of_plain_loops_promises_no_array_of_its_own():
    network = drawn(0, images=1)[1]
    assert "It is never NULL" in small(network).header
    assert "NULL takes" not in small(network).header
    assert "NULL takes" in written(network).header
