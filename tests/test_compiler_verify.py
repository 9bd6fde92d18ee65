"""Every program is walked before it is written: damage of each kind is refused by name."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from leancnn.compiler import memory as scheduling
from leancnn.compiler.blocked import BlockedKernel
from leancnn.compiler.graph import Conv
from leancnn.compiler.import_torch import import_torch
from leancnn.compiler.lower import lower
from leancnn.compiler.memory import schedule
from leancnn.compiler.planar import PlanarKernel
from leancnn.compiler.simplify import simplify
from leancnn.compiler.values import Binary, Buffer, Store
from leancnn.compiler.verify import verify, walk
from leancnn.errors import ProgramError
from tests.compiler_nets import compiled, laid, max_error, random_network, settled
from tests.few import few

LAYOUTS = ("planes", "blocked", "best")


class Again(nn.Module):
    """Operands that a later step of the same kernel reads again."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        a = self.a(x)
        d = self.c(self.b(a)) + a
        return (d * a + d).flatten(1)


class Late(nn.Module):
    """An operand that ends where its last reader, not its first, is done."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        a = torch.relu(self.a(x))
        b = self.b(a)
        c = b * a
        return torch.cat([c, torch.sigmoid(c) * a, c - b], 1).flatten(1)


class Pixel(nn.Module):
    """A pooling to one pixel beside a vector that ends there: planes of single floats."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 40, 6), nn.Conv2d(2, 40, 1)

    def forward(self, x):
        return (nn.functional.max_pool2d(self.b(x), 6) + self.a(x)).flatten(1)


class Mixed(nn.Module):
    """Strides, gaps, blocked kernels and planes, so that every pass has something to decide."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 20, 3, 2, 1), nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.c, self.d = nn.Conv2d(20, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=4)

    def forward(self, x):
        return (self.d(self.c(self.b(self.a(x)))).relu() + 1).flatten(1)


class Mish(nn.Module):
    def forward(self, x):
        return nn.functional.mish(x).flatten(1)


TWICE = {net.__name__: net for net in (Again, Late, Pixel, Mish)}


@pytest.mark.parametrize("layout", few(LAYOUTS))
@pytest.mark.parametrize("name", few(TWICE))
def test_an_operand_that_is_read_again_is_not_overwritten(name, layout):
    body, shape = settled(TWICE[name]()), (2, 6, 6)
    images = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    assert max_error(body, laid(body, shape, layout), images) < 1e-6


def test_the_sum_that_is_multiplied_by_its_own_part_is_right():
    """b and c are read where a place that they could inherit is still wanted."""

    class Scalars(nn.Module):
        def forward(self, x):
            a, b = 0.5 * x, 2 * x
            d = b + a
            e = d * a
            return (e + d).flatten(1)

    x = np.array([0.1, -2.0, 3.0, 7.0], np.float32).reshape(1, 1, 2, 2)
    answer = compiled(Scalars(), (1, 2, 2)).logits(x)[0]
    flat = x.ravel()
    assert np.allclose(answer, 2.5 * flat * 0.5 * flat + 2.5 * flat, rtol=1e-6)


def graph_of(body, shape):
    return simplify(import_torch(body, shape))


def programs():
    """Small scheduled programs with in-place stores, gaps, gates, phases and scratch."""
    graphs = []
    for seed in range(6):
        pick = random.Random(seed).choice
        shape = (pick((2, 4, 6)), pick(range(6, 14)), pick(range(6, 14)))
        body = settled(random_network(lambda options, p=pick: p(list(options)), shape), seed)
        graphs.append(graph_of(body, shape))
    graphs += [graph_of(settled(Again()), (2, 6, 6)), graph_of(settled(Late()), (2, 9, 9))]
    for graph in graphs:
        for layout in LAYOUTS:
            yield schedule(lower(graph), layout=layout)


@pytest.fixture(scope="module")
def many():
    return list(programs())


def refused(tiling):
    """Whether playing the program finds the damage, without looking for what decided otherwise."""
    try:
        walk(tiling)
    except ProgramError:
        return True
    return False


@pytest.mark.long
def test_programs_as_they_are_made_pass(many):
    for tiling in many:
        verify(tiling)


ORDER = scheduling.PASSES


@pytest.fixture(scope="module")
def mixed():
    return graph_of(settled(Mixed()), (3, 12, 12))


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_a_pass_that_is_left_out_or_comes_late_is_refused(place, mixed, monkeypatch):
    without = (*ORDER[:place], *ORDER[place + 1 :])
    late = (*without[: place + 1], ORDER[place], *without[place + 1 :])
    for passes in {without, late} - {ORDER}:
        monkeypatch.setattr(scheduling, "PASSES", passes)
        with pytest.raises((ProgramError, KeyError)):
            verify(schedule(lower(mixed)))


@pytest.mark.parametrize("change", ["a copy", "a wider row", "a longer life", "another tile"])
def test_a_program_that_changed_after_its_memory_was_planned_is_refused(change, mixed):
    """Also where playing it finds nothing."""
    planned = schedule(lower(mixed))
    verify(planned)
    kernels, buffer = planned.program.kernels, planned.program.buffers[1]
    match change:
        case "a copy":
            kernels[0] = replace(kernels[0])
        case "a wider row":
            buffer.gap = (buffer.gap[0] + 1, buffer.gap[1])
        case "a longer life":
            buffer.dies += 1
        case "another tile":
            planned.tiles = {kernels[0].tile_key: (1, 1)}
    with pytest.raises(ProgramError):
        verify(planned)


def read_later(program, buffer, other):
    """Whether all of the older of two is read after the younger was written."""
    old, new = sorted((buffer, other), key=lambda b: b.born)
    later = program.kernels[new.born + 1 :]
    return old.born < new.born and any(v.whole is old for k in later for v in k.reads())


def neighbours(program, buffer):
    return [b for b in program.buffers if b is not buffer and read_later(program, buffer, b)]


def test_a_place_that_somebody_else_still_needs_is_refused(many):
    tried = 0
    for tiling in many:
        for buffer in tiling.program.buffers:
            old = buffer.origin
            for other in neighbours(tiling.program, buffer):
                if other.origin - buffer.below >= 0 and other.origin != old:
                    buffer.origin = other.origin
                    tried += 1
                    assert refused(tiling), (buffer.name, other.name)
                buffer.origin = old
    assert tried > 50


def test_one_float_that_two_need_is_refused(many):
    """A buffer whose first or last float lies on another's last or first pixel."""
    tried = 0
    for tiling in many:
        for buffer in tiling.program.buffers:
            old = buffer.origin
            for other in neighbours(tiling.program, buffer):
                if buffer.born < other.born:
                    continue
                last = other.plane(other.channels - 1) + (other.height - 1) * other.pitch
                last += (other.width - 1) * other.step
                for origin in (last + buffer.below, other.origin - buffer.size + buffer.below + 1):
                    if origin < buffer.below or origin == old:
                        continue
                    buffer.origin = origin
                    tried += 1
                    assert refused(tiling), (buffer.name, other.name)
                buffer.origin = old
    assert tried > 50


@pytest.mark.parametrize("by", [10_000_000, -10_000_000])
def test_a_place_outside_the_arena_is_refused(many, by):
    for tiling in many:
        for buffer in tiling.program.buffers:
            buffer.origin += by
            assert refused(tiling), buffer.name
            buffer.origin -= by


def test_a_shortened_life_is_refused(many):
    tried = 0
    for tiling in many:
        for buffer in tiling.program.buffers:
            if buffer.dies > buffer.born:
                buffer.dies -= 1
                tried += 1
                assert refused(tiling), buffer.name
                buffer.dies += 1
    assert tried > 50


def test_a_life_that_begins_elsewhere_is_refused(many):
    for tiling in many:
        for buffer in tiling.program.buffers[1:]:
            buffer.born -= 1
            assert refused(tiling), buffer.name
            buffer.born += 1


def test_the_wrong_heir_is_refused(monkeypatch):
    """Any pair of buffers of one kernel in one place, but for those that the law allows."""
    right = scheduling._reusable
    kept = 0

    def pairs(kernel):
        for value in kernel.reads():
            for old in value.buffers:
                for step in kernel.epilogue:
                    if isinstance(step, Store) and step.buffer is not old:
                        yield old, step.buffer

    for make in (Again, Late, Pixel):
        graph = graph_of(settled(make()), (2, 6, 6))
        for layout in ("planes", "blocked"):
            plain = schedule(lower(graph), layout=layout).program
            for at, kernel in enumerate(plain.kernels):
                if not isinstance(kernel, PlanarKernel | BlockedKernel):
                    continue
                for number, (old, new) in enumerate(pairs(kernel)):
                    if old.dies != at or old.size != new.size:
                        continue
                    allowed = right(kernel, at, set()) == (old, new)

                    def wrong(kernel, place, taken, at=at, number=number):
                        if place != at:
                            return None
                        return list(pairs(kernel))[number]

                    monkeypatch.setattr(scheduling, "_reusable", wrong)
                    tiling = schedule(lower(graph), layout=layout)
                    monkeypatch.setattr(scheduling, "_reusable", right)
                    kept += allowed
                    if not allowed and not harmless(tiling.program.kernels[at], number, pairs):
                        assert refused(tiling), (make.__name__, layout, kernel.name, number)
                    if allowed:
                        assert not refused(tiling)
    assert kept, "what is allowed passes"


def harmless(kernel, number, pairs):
    """Whether a pair that was not chosen could have been: read once more nowhere."""
    old, new = list(pairs(kernel))[number]
    if kernel.spills:
        return False
    places = [i for i, s in enumerate(kernel.epilogue) if isinstance(s, Store) and s.buffer is new]
    later = [
        step
        for step in kernel.epilogue[places[0] :]
        if isinstance(step, Binary) and step.other is not None and old in step.other.buffers
    ]
    input_ = kernel.op is not None and old in kernel.x.buffers
    return not later and not input_ and (old.height, old.width) == (new.height, new.width)


def test_scratch_over_what_is_read_is_refused(many):
    tried = 0
    for tiling in many:
        for kernel, plan in list(tiling.plans.items()):
            if plan.scratch:
                tiling.plans[kernel] = replace(plan, place=kernel.x.buffers[0].origin)
                tried += 1
                assert refused(tiling)
                tiling.plans[kernel] = plan
    assert tried


def test_epilogues_in_another_order_are_refused_where_one_reads_what_another_stores(many):
    tried = 0
    for tiling in many:
        kernels = tiling.program.kernels
        for at, kernel in enumerate(kernels):
            if not isinstance(kernel, PlanarKernel | BlockedKernel):
                continue
            made = {step.buffer for step in kernel.epilogue if isinstance(step, Store)}
            own = [
                step
                for step in kernel.epilogue
                if isinstance(step, Binary) and step.other and made & set(step.other.buffers)
            ]
            if own:
                rest = tuple(step for step in kernel.epilogue if step is not own[0])
                new = replace(kernel, epilogue=(own[0], *rest))
                tiling.plans[new] = tiling.plans[kernel]
                kernels[at] = new
                tried += 1
                assert refused(tiling)
                kernels[at] = kernel
    assert tried


@pytest.mark.parametrize("field", ["pitch", "blocked", "gap"])
def test_a_buffer_that_lies_otherwise_than_its_kernels_walk_is_refused(many, field):
    tried = 0
    for tiling in many:
        for buffer in tiling.program.buffers:
            if buffer.vector or (field == "gap" and not buffer.masked):
                continue
            old = getattr(buffer, field)
            other = {"blocked": not old, "gap": (0, 0)}.get(field)
            setattr(buffer, field, old + 1 if other is None else other)
            if walked(tiling.program, buffer, field):
                tried += 1
                assert refused(tiling), (buffer.name, field)
            setattr(buffer, field, old)
    assert tried


def walked(program, buffer, field):
    """Whether a kernel needs a buffer as it lies: rows like its own, or zeros around planes."""
    kernels = [k for k in program.kernels if isinstance(k, PlanarKernel | BlockedKernel)]
    if field == "gap":
        convs = [k for k in kernels if isinstance(k, PlanarKernel) and isinstance(k.op, Conv)]
        return any(any(k.op.padding) and buffer in k.x.buffers for k in convs)
    return any(k.op is None and buffer is k.x.whole for k in kernels)


def test_a_read_beyond_the_planes_is_refused(many):
    tiling = many[0]
    kernel = tiling.program.kernels[0]
    buffer = tiling.program.image
    beyond = replace(kernel.x, top=1)
    tiling.program.kernels[0] = replace(kernel, x=beyond)
    assert isinstance(buffer, Buffer)
    assert refused(tiling)
    tiling.program.kernels[0] = kernel
