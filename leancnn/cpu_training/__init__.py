"""Train with the batch in the lanes of SIMD vectors: the same network, much faster on a CPU.

General engines vectorise over channels or pixels; with 4 to 12 channels in a group and maps of 31,
15 and 7 pixels both leave most of a vector empty, and batch-norm, ReLU, skips, concatenations and
shuffles each read and write whole tensors. Here 8 or 16 images lie side by side, so that every
pixel is a full vector, and little but raw convolution outputs is ever written: what stands between
two convolutions is an address or a few instructions on the way in (simd.c). 1×1 convolutions of
many channels are matrix products whose columns are images (products.c).

    network's own forward on symbols → trace.py, by the rules of operators.py: nodes, then a tail
      of ordinary torch calls
      → program.py: memory and C steps → one differentiable function

Whatever has no SIMD form (an unknown layer) and all behind it is the tail. When that holds a norm
or over a third of the multiply-adds, or there is no compiler, the body runs as it is. Lanes that a
batch does not fill are zero and count in no statistic.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from leancnn.cpu_training import operators as operators  # its rules are what a trace knows
from leancnn.cpu_training.program import FLAGS, Program
from leancnn.cpu_training.trace import LINEAR, Late, Node, NoSimdError, Symbol, Trace
from leancnn.errors import LeanCNNError, MissingDependencyError
from leancnn.toolchain import find_compiler

FILL = 16  # images; an evaluation's batch is filled up to a multiple


def accelerate(body: nn.Module, *, half: bool = False, threads: int | None = None) -> "Accelerated":
    """Wrap a network so that it trains in the lanes; its parameters and buffers stay its own.

    With `half` activations are kept as bfloat16, as autocast keeps them; sums and the gradients of
    parameters are float. `threads` is torch's own count unless given.
    """
    return Accelerated(body, half=half, threads=threads)


def compiler() -> str:
    """What makes machine code of simd.c here, on which the last bits depend: version, flags.

    No paths, and the same for `cc` and `gcc` where they are one; "none" without a compiler.
    """
    try:
        found = find_compiler()
    except MissingDependencyError:
        return "none"
    version = re.sub(r"^\S+ \(", "gcc (", found.version)
    own = [word for word in found.command[1:] if "/" not in word]  # of $CC
    return " ".join([version, *own, *FLAGS])


class Accelerated(nn.Module):
    """Takes what the body takes, gives what it gives: (N, C, H, W) floats to logits.

    After a pass `why_not` says why it ran as ordinary torch; it is empty when it did not. One
    training pass is kept at a time: backward belongs to the latest forward.
    """

    def __init__(self, body: nn.Module, *, half: bool, threads: int | None) -> None:
        super().__init__()
        self.body = body
        self.kept_half = half
        self.threads = threads
        self.why_not = ""
        self.programs: dict[tuple[Any, ...], Program | str] = {}

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        program = self._program(x)
        self.why_not = program if isinstance(program, str) else ""
        if isinstance(program, str):
            return self.body(x)  # type: ignore[no-any-return]
        if not program.training:
            filled = F.pad(x, (0, 0, 0, 0, 0, 0, 0, program.trace.batch - len(x)))
            return program.tail(program.forward(filled))[: len(x)]
        values = _SimdFunction.apply(program, x, *program.parameters)  # type: ignore[no-untyped-call]
        for norm in _norms(self.body):
            norm.num_batches_tracked += 1
        return program.tail(values)

    def _program(self, x: Tensor) -> Program | str:
        """The program for this input, or why there is none."""
        if x.device.type != "cpu" or self.training != torch.is_grad_enabled():
            return "SIMD batches train, or evaluate without gradients, on the CPU"
        threads = self.threads or torch.get_num_threads()
        batch, channels, height, width = x.shape
        image = (channels, height, width)
        if not self.training:  # the last batch of an evaluation takes an earlier one's program
            sizes = [key[2] for key in self.programs if key[:2] == (False, image)]
            batch = min((b for b in sizes if b >= batch), default=-(-batch // FILL) * FILL)
        key = (self.training, image, batch, threads)
        if key not in self.programs:
            self.programs[key] = self._trace(batch, image, threads)
        return self.programs[key]

    def _trace(self, batch: int, image: tuple[int, int, int], threads: int) -> Program | str:
        tracked = [norm.num_batches_tracked.clone() for norm in _norms(self.body)]
        if any(norm.momentum is None for norm in _norms(self.body)):
            return "a norm averages over all batches alike"
        trace = Trace(batch, self.training)
        images = trace.add(Node(image, form="images", act=LINEAR))
        try:
            with torch.no_grad():
                result = self.body(images)
            if isinstance(result, Symbol):
                result = trace.leave(result)
            if not isinstance(result, Late):
                return "the network's output is not one tensor"
            if not all(_plain(node, self.body) for node in trace.nodes):
                return "a weight is computed on the way"
            if not trace.mostly_fast():
                return "a convolution or a norm has no SIMD form"
            return Program(
                trace,
                result.place,
                training=self.training,
                half=self.kept_half,
                threads=threads,
            )
        except (NoSimdError, LeanCNNError) as error:
            return str(error)
        finally:
            for norm, count in zip(_norms(self.body), tracked, strict=True):
                norm.num_batches_tracked.copy_(count)  # the trace was no pass


class _SimdFunction(torch.autograd.Function):
    """A program as one differentiable function of its parameters; images get no gradient."""

    @staticmethod
    def forward(ctx: Any, program: Program, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        values = tuple(program.forward(x))
        ctx.program, ctx.passes = program, program.passes
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if ctx.passes != ctx.program.passes:
            raise RuntimeError("SIMD batches keep one pass: call backward before the next forward")
        return None, None, *ctx.program.backward(gradients)


def _norms(body: nn.Module) -> Sequence[Any]:
    found = [module for module in body.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in found if norm.num_batches_tracked is not None]


def _plain(node: Node, body: nn.Module) -> bool:
    """A weight is the body's own parameter, a constant of the trace, or what a buffer holds."""
    if node.weight is None or node.constant:
        return True
    if any(node.weight is p for p in body.parameters()):
        return True
    for buffer in body.buffers():
        if buffer.shape == node.weight.shape and torch.equal(buffer.float(), node.weight):
            node.source = buffer
            node.weight = node.weight.clone()
    return node.source is not None
