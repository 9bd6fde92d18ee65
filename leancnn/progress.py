"""Progress on stderr: a live bar on a terminal, plain lines elsewhere, or nothing.

Work whose end nobody knows has a spinner that says what is going on; away from a terminal it is
silent.
"""

import logging
import sys
import time
from types import TracebackType
from typing import Any, ClassVar, Self

LINES_EVERY_S = 30.0  # where there is no terminal


class Progress:
    """One bar: `with Progress("training", total=900) as bar: bar.to(step, loss="0.42")`."""

    def __init__(self, title: str, total: int, *, done: int = 0, shown: bool = True) -> None:
        self.title, self.total, self.done = title, total, done
        self._live = shown and sys.stderr.isatty()
        self._plain = shown and not self._live
        self._rich: Any = None
        self._task: Any = None
        self._next_line = time.monotonic() + LINES_EVERY_S

    def __enter__(self) -> Self:
        if self._live:
            Waiting._pause()
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Rich

            self._rich = Rich(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:3.0f} %"),
                TextColumn("{task.fields[facts]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._rich.start()
            self._task = self._rich.add_task(
                _plain(self.title), total=self.total, completed=self.done, facts=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
            Waiting._go_on()

    def to(self, done: int, **facts: str) -> None:
        """Show that `done` of the total are done, with a few facts, such as `loss="0.42"`."""
        self.done = done
        text = "  ".join(f"{key} {value}" for key, value in facts.items())
        if self._rich is not None:
            self._rich.update(self._task, completed=done, facts=_plain(text))
        elif self._plain and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINES_EVERY_S
            _print(f"{self.title}: {done} of {self.total}  {text}")

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._rich is not None:
            self._rich.console.print(_plain(text), markup=False, highlight=False)
        elif self._plain:
            _print(text)


class Waiting:
    """A spinner: `with Waiting("henet_r3") as sign: sign.to("gcc compiles")`.

    Shown on a terminal only, and only by the outermost of several, which takes the title of those
    inside; it makes room for a bar.
    """

    _outermost: ClassVar["Waiting | None"] = None

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self.title = title
        self._shown = shown
        self._rich: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._shown and Waiting._outermost is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Rich
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            Waiting._outermost = self
            self._rich = Rich(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._rich.start()
            self._task = self._rich.add_task(_plain(self.title), total=None)
        elif self._shown:
            now(self.title)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
            self._rich = Waiting._outermost = None

    @classmethod
    def _pause(cls) -> None:
        """Make room for a bar, which says more."""
        if cls._outermost is not None:
            cls._outermost._rich.stop()

    @classmethod
    def _go_on(cls) -> None:
        if cls._outermost is not None:
            cls._outermost._rich.start()

    def to(self, text: str) -> None:
        """Say what is going on now."""
        if self._rich is not None:
            self._rich.update(self._task, description=_plain(f"{self.title}: {text}"))


class LiveTable:
    """A line and a table below it that change while work goes on: `with LiveTable("search") as t:`

    On a terminal they stay in their place; elsewhere the line alone is printed, now and then.
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self.title = title
        self._shown = shown
        self._rich: Any = None
        self._next_line = time.monotonic() + LINES_EVERY_S

    def __enter__(self) -> Self:
        if self._shown and sys.stderr.isatty() and Waiting._outermost is None:
            from rich.console import Console
            from rich.live import Live

            self._rich = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def show(self, line: str, text: str) -> None:
        """Show a line, and on a terminal a table of any number of lines as text."""
        if self._rich is not None:
            from rich.text import Text

            body = "\n".join(_plain(each) for each in text.splitlines())
            whole = f"{_plain(self.title)}: {_plain(line)}\n{body}"
            self._rich.update(Text(whole, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif self._shown and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINES_EVERY_S
            _print(f"{self.title}: {line}")


class _OnStderr(logging.Handler):
    """A line on stderr for each message."""

    def emit(self, record: logging.LogRecord) -> None:
        _print(f"leancnn: {record.getMessage()}")


LOGGER = logging.getLogger("leancnn")
if LOGGER.level == logging.NOTSET:
    LOGGER.setLevel(logging.WARNING)
LOGGER.addHandler(_OnStderr())


def tell(text: object) -> None:
    """A line that must not be missed, also without progress: to the logger `leancnn`.

    It prints on stderr; who listens otherwise replaces `LOGGER.handlers`, by a `NullHandler` to
    hear nothing.
    """
    LOGGER.warning("%s", text)


def now(text: str) -> None:
    """Say, where a spinner turns, what is going on now; elsewhere nothing."""
    if Waiting._outermost is not None:
        Waiting._outermost.to(text)


def _print(text: str) -> None:
    print(_plain(text), file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    """One line, in which whatever would steer the terminal is written out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
