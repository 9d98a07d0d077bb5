"""What can go wrong while a stack is started, changed or ended.

StackError
├── MissingSoftware   a program that the stack needs is not installed
├── StartFailed       a process ended, or was not ready, when it should have been serving
├── CommandFailed     a program that should do one thing and succeed did not
├── NotInTime         a condition did not come true within its bound
├── NotRunning        a signal or a question for a process that does not run
└── CleanupFailed     one or more resources could not be closed; all others were
"""

from collections.abc import Sequence


class StackError(Exception):
    """The root of this tree."""


class MissingSoftware(StackError):
    """A program that the stack needs is not installed; the message says how to get it."""


class StartFailed(StackError):
    """A process ended, or was not ready in time. The message carries the last lines of its log."""


class CommandFailed(StackError):
    """A program that should do one thing and succeed did not. The message carries its output."""


class NotInTime(StackError):
    """A condition did not come true within its bound."""


class NotRunning(StackError):
    """The process does not run: it was not started, or has ended."""


class CleanupFailed(StackError):
    """Some resources could not be closed. Every other one was.

    Args:
        failures: the name of each resource with the error that its closing raised.
    """

    def __init__(self, failures: Sequence[tuple[str, BaseException]]) -> None:
        self.failures = tuple(failures)
        lines = [f"{name}: {type(error).__name__}: {error}" for name, error in self.failures]
        super().__init__("Could not close everything; end these by hand:\n  " + "\n  ".join(lines))
