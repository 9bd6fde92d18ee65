"""A network that outgrows every use is refused while it grows, not when memory is full."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from leancnn.errors import ArgumentError, MismatchError

MOST_WEIGHTS = 1 << 28  # 1 GiB of floats; VGG-16 has half of that
MOST_TENSORS = 4_000  # ResNet-1001 has 3,000


@contextmanager
def within_limits(name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Build a network inside. Raises `MismatchError` when its arguments make it too large to be.

    Also when they make no network at all, which torch says in many ways.
    """
    given = ", ".join(f"{key}={value}" for key, value in arguments.items())
    weights = tensors = 0

    def grow(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        nonlocal weights, tensors
        if parameter is not None:
            weights, tensors = weights + parameter.numel(), tensors + 1
        if weights > MOST_WEIGHTS or tensors > MOST_TENSORS:
            raise MismatchError(
                f"{name} with {given} is too large: at most {MOST_WEIGHTS:,} weights in "
                f"{MOST_TENSORS:,} tensors; choose smaller arguments"
            )

    handle = register_module_parameter_registration_hook(grow)
    try:
        yield
    except MismatchError as e:
        raise ArgumentError(str(e)) from e
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:150]
        if isinstance(e, MemoryError) or "alloc" in reason or "verflow" in reason:
            reason = "it needs more memory than there is; choose smaller arguments"
        kind = MismatchError if "more memory" in reason else ArgumentError
        raise kind(f"{name} cannot be built with {given}: {reason}") from e
    finally:
        handle.remove()
