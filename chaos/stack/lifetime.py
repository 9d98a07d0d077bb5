"""Stack: a set of started things that surely ends.

Everything is registered before it is started, and closed in reverse order when the block is left: normally, by an
exception, by Ctrl-C, by SIGTERM. Each closing is bounded in time; one that fails or hangs does not keep the others from
being closed, and is reported at the end. A stack that is not used as a block is closed when Python exits.
"""

import asyncio
import atexit
import logging
import threading
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from chaos.stack.errors import CleanupFailed, NotInTime, StackError
from chaos.stack.folder import StackFolder
from chaos.stack.stop_signals import StopSignals, exit_code

logger = logging.getLogger(__name__)


class Resource(Protocol):
    """What a stack can close. `close` may be called before, during or after a failed start, and more than once."""

    @property
    def name(self) -> str: ...

    def close(self) -> None: ...


class Startable(Resource, Protocol):
    """A resource that the stack can also start."""

    def start(self) -> object: ...


AnyResource = TypeVar("AnyResource", bound=Resource)
AnyStartable = TypeVar("AnyStartable", bound=Startable)


class Stack:
    """A temporary folder, and the resources started in it.

    Use it as `with Stack() as stack:` or `async with Stack() as stack:`. Its methods block; under asyncio call them as
    `await asyncio.to_thread(stack.start, resource)`.

    Args:
        keep: leave the folder, with all logs and data, where it is.
        close_timeout_s: the longest that closing one resource may take, in seconds.

    Raises (on leaving the block):
        CleanupFailed: something could not be closed. When another exception is already on its way, that one goes on
            with this one's text as a note, and the text is logged.
        SystemExit: SIGTERM or SIGHUP came; 128 and the signal's number, as a shell would say it.
    """

    def __init__(self, *, keep: bool = False, close_timeout_s: float = 20.0) -> None:
        self.close_timeout_s = close_timeout_s
        self._folder = StackFolder(keep=keep)
        self._resources: list[Resource] = [self._folder]
        self._lock = threading.Lock()
        self._closed = False
        self._signals = StopSignals()
        atexit.register(self.close)

    @property
    def path(self) -> Path:
        """The stack's temporary folder."""
        return self._folder.path

    def folder(self, name: str) -> Path:
        """Make, or find, a folder of this name inside the stack's. Returns its path."""
        return self._folder.sub(name)

    def add(self, resource: AnyResource) -> AnyResource:
        """Register something to be closed, before all that was registered earlier. Does not start it.

        Returns:
            The resource.

        Raises:
            StackError: the stack is closed.
        """
        with self._lock:
            if self._closed:
                raise StackError(f"The stack is closed; {resource.name} cannot be added to it.")
            self._resources.append(resource)
        return resource

    def start(self, resource: AnyStartable) -> AnyStartable:
        """Register something, then start it: a start that fails or is interrupted half-way is cleaned up too.

        Returns:
            The resource.

        Raises:
            StackError: the stack is closed; and whatever its `start` raises.
        """
        self.add(resource).start()
        return resource

    def close(self) -> None:
        """Close everything in reverse order. A second call does nothing.

        Raises:
            CleanupFailed: something could not be closed.
        """
        with self._lock:
            resources, self._resources, self._closed = self._resources[::-1], [], True
        failures = [(one.name, error) for one in resources if (error := _close(one, self.close_timeout_s))]
        atexit.unregister(self.close)
        if failures:
            raise CleanupFailed(failures) from failures[0][1]

    def __enter__(self) -> Self:
        self._signals.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.defer()
        try:
            self._close_after(error)
        finally:
            self._signals.restore()

    async def __aenter__(self) -> Self:
        self._signals.install(asyncio.current_task())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.defer()
        try:
            await _to_the_end(asyncio.to_thread(self._close_after, error))
        finally:
            self._signals.restore()
        if self._signals.received and isinstance(error, asyncio.CancelledError):
            raise SystemExit(exit_code(self._signals.received))

    def _close_after(self, error: BaseException | None) -> None:
        """Close; what fails in that must not hide the `error` that led here, nor be hidden by it."""
        try:
            self.close()
        except CleanupFailed as failed:
            if error is None:
                raise
            error.add_note(str(failed))
            logger.error("%s", failed)  # notes of KeyboardInterrupt and SystemExit are not shown by Python


def _close(resource: Resource, timeout_s: float) -> BaseException | None:
    """Close one resource on a thread of its own, so that one which hangs can be left behind. Returns its error."""
    errors: list[BaseException] = []

    def close() -> None:
        try:
            resource.close()
        except BaseException as error:  # noqa: BLE001 - reported by the stack, after all others are closed
            errors.append(error)

    thread = threading.Thread(target=close, name=f"stack-close-{resource.name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # Python is exiting and starts no more threads
        close()
    else:
        thread.join(timeout_s)
    if thread.is_alive():
        return NotInTime(f"closing it took longer than {timeout_s:g} s and was given up")
    return errors[0] if errors else None


async def _to_the_end(work: Awaitable[None]) -> None:
    """Await something that must not be left half-done: a cancellation is passed on only when it has finished."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
