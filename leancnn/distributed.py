"""Several processes as one: what `torchrun` starts learns what a single process would.

Each process takes its part of every batch; DistributedDataParallel averages the gradients, the
batch norms below see the whole batch, counts are summed. Only rank 0 writes. Alone, every call here
does nothing.
"""

import inspect
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leancnn.errors import MismatchError

PATIENCE = timedelta(hours=24)  # rank 0 may decode while the others wait; `peers` sees who died


@dataclass(frozen=True, slots=True)
class World:
    """The processes of this run, and which of them this is."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def part(self, batch: Any) -> Any:
        """This process's part of a batch. Raises `MismatchError` when the parts would differ."""
        if len(batch) % self.size:
            raise MismatchError(
                f"a batch of {len(batch)} images does not divide among {self.size} processes; "
                "choose a batch that does"
            )
        share = len(batch) // self.size
        return batch[self.rank * share : (self.rank + 1) * share]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def of_first(self, value: int) -> int:
        """What rank 0 says."""
        if self.size == 1:
            return value
        sent = torch.tensor([value], device=self.device)
        dist.broadcast(sent, 0)
        return int(sent.item())

    def first_then_others(self, work: Callable[[], Any]) -> Any:
        """Let rank 0 work before the others do, who then find its results on disk."""
        if self.first:
            result = work()
            self.wait()
            return result
        self.wait()
        return work()

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def share_gradients(self, body: nn.Module) -> nn.Module:
        """A forward pass whose backward pass averages the gradients of all processes."""
        if self.size == 1:
            return body
        share: Callable[..., nn.Module] = nn.parallel.DistributedDataParallel
        # Equal from the start and kept equal by the norms; newer releases of torch say it so.
        words = ("forward_sync_buffers", "broadcast_buffers")
        word = next(word for word in words if word in inspect.signature(share).parameters)
        places = [self.device.index] if self.device.type == "cuda" else None
        # With channels last they do not: each gradient is copied into its bucket, once a step.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return share(body, device_ids=places, **{word: False})


def own_device() -> torch.device:
    """Where this process trains, scores and tests: its GPU, else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", place % torch.cuda.device_count())


def join() -> World:
    """The world `torchrun` describes in the environment, else a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0")) if size > 1 else 0
    device = own_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return World(rank, size, device)


class WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes, on any device (torch's own needs CUDA).

    Same state and same results as `nn.BatchNorm2d` on the whole batch, but for rounding; every
    process must hold as many images as the others.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        size = dist.get_world_size()
        dims = (0, 2, 3)
        count = x.numel() // x.shape[1] * size
        mean = _sum_of_all(x.float().sum(dims)) / count
        centred = x.float() - mean.view(1, -1, 1, 1)
        var = _sum_of_all(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = (
                self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            )
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (count / (count - 1)), momentum)
        y = centred * torch.rsqrt(var + self.eps).view(1, -1, 1, 1)
        if self.affine:
            y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        normed: Tensor = y.to(x.dtype)
        return normed


def _sum_of_all(values: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(values)  # type: ignore[no-untyped-call]
    return total


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def whole_batch_norms(body: nn.Module) -> None:
    """Make every batch norm of `body` see the batch of all processes; parameters and names stay."""
    for module in body.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = WholeBatchNorm2d
