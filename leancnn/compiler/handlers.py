"""Functions by the names of the operators that they stand for: a register for each importer."""

from collections.abc import Callable
from typing import Any, TypeVar

Handler = Callable[..., Any]
Registered = TypeVar("Registered", bound=Handler)


class Handlers(dict[str, Handler]):
    """What to call for an operator, by its name."""

    def handles(self, *names: str) -> Callable[[Registered], Registered]:
        """Register the decorated function for these operators."""

        def register(function: Registered) -> Registered:
            for name in names:
                if name in self:
                    raise ValueError(f"two handlers for {name}")
                self[name] = function
            return function

        return register
