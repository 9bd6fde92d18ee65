"""Every error leancnn raises on purpose.

Each stands below the one that catches it too::

  LeanCNNError                 catch this one to catch them all; printed as one line
  + UsageError                 words on the command line that no command understands (exit status 2)
  + UnknownNameError           a network, recipe, data set … that does not exist (exit status 2)
  + MismatchError              sizes that cannot fit together: shapes, groups, channels, class lists
    + ArgumentError            a value that no data and no network could make right (exit status 2)
  + UncountableError           a model in which nothing could be counted
  + ImageError                 one file that cannot become a network's input: which, and why
  + DataError                  a data set that cannot be used as it stands
  + DamagedError               a saved file that is not what was written: altered, cut short
  + RunError                   a run folder in the wrong state: locked, taken, nothing to resume
  + WriteError                 a file that could not be written: disk full, read-only, no permission
  + DivergedError              the first loss or gradient that is not finite (exit status 3)
  + UnsupportedError           a network with an operator that the compiler does not have
    + UnknownOperatorError     an operator of a network; `details` lists what the compiler has
  + CompileError               C that the machine's compiler refused, with its first complaint
  + ProgramError               a program of the compiler's that would read what it has overwritten
  + ParityError                an exported network that answers otherwise; nothing was kept
  + ServeError                 an address at which no server can listen
  + ClusterError               an address at which no cluster answers
  + StreamError                a live source that fell silent; what was recorded is kept
  + StoppedError               Ctrl-C or SIGTERM; all is saved, and how to go on (exit status 130)
  + MissingDependencyError     an optional package or tool, with the command that installs it
"""

from collections.abc import Mapping, Sequence


class LeanCNNError(Exception):
    """Base of all that leancnn raises on purpose; one line: what, where, what to do.

    >>> try:
    ...     leancnn.create_model("henet_r33")
    ... except leancnn.LeanCNNError as error:
    ...     print(error)
    no network named 'henet_r33'; did you mean 'henet_r3'?
    """

    exit_status = 1
    details: Mapping[str, object] = {}
    """More than fits a line; `--json` prints it."""


class UsageError(LeanCNNError):
    """Words on the command line that no command understands."""

    exit_status = 2


class UnknownNameError(LeanCNNError):
    """The name of something that was never registered."""

    exit_status = 2


class MismatchError(LeanCNNError):
    """Sizes that cannot fit together."""


class ArgumentError(MismatchError):
    """A value that is out of range or of another type, whatever the data, the network, the machine.

    The message calls the argument by its Python name in backticks; the command line puts the option
    there instead.
    """

    exit_status = 2


class UncountableError(LeanCNNError):
    """A model in which no convolution or matrix product ran."""


class ImageError(LeanCNNError):
    """A file that cannot be used as an image."""


class DataError(LeanCNNError):
    """A data set that cannot be used as it stands."""


class DamagedError(LeanCNNError):
    """A saved file whose bytes are not those that were written."""


class RunError(LeanCNNError):
    """A run folder that is not in the state the command needs."""


class WriteError(LeanCNNError):
    """A file that could not be written; what stood there before still stands."""


class DivergedError(LeanCNNError):
    """Training met a number that is not finite; the last good checkpoint is intact."""

    exit_status = 3


class UnsupportedError(LeanCNNError):
    """A network that the compiler cannot translate; names the operator."""


class UnknownOperatorError(UnsupportedError):
    """An operator that the compiler does not have; `details` lists those that it has."""

    def __init__(self, message: str, operators: Sequence[str]) -> None:
        super().__init__(message)
        self.details = {"operators": list(operators)}


class CompileError(LeanCNNError):
    """The C compiler failed."""


class ProgramError(LeanCNNError):
    """A program that reads what it has overwritten: a fault of the compiler, which never ran."""


class ParityError(LeanCNNError):
    """An artifact that does not compute what the network computes."""


class ServeError(LeanCNNError):
    """An address at which no server can listen."""


class ClusterError(LeanCNNError):
    """A cluster that does not answer, or answers what it should not."""


class StreamError(LeanCNNError):
    """A live source that fell silent."""


class StoppedError(LeanCNNError):
    """Training was asked to stop; everything is saved."""

    exit_status = 130


class MissingDependencyError(LeanCNNError):
    """Something optional is needed and not installed."""
