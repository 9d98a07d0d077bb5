"""Bytes from strangers: how they become messages, and what becomes of those that don't.

gRPC hands bytes to a function that makes a message of them. When it raises, a server logs a traceback and answers
UNKNOWN, so that whoever can reach a port fills the log from outside; a client logs one too, and gives None for an
answer. So nothing raises here: on the serving side what can't be read becomes ``Unreadable``, which ``careful``
answers with an entry of the catalog before any servicer sees it; on the calling side it becomes ``None``, without a
word, for ``CallStream`` to report.

Small messages cost more than their bytes. Sixteen MiB of empty calls, two bytes each, take a third of a second and
half a GiB to parse, while everybody else waits. So a large frame is looked through first (``is_too_dense``), and
refused when it holds more messages than any honest sender would put into it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from handfast.catalog import HandfastFault
from handfast.frames.failure import abort

Context = grpc.aio.ServicerContext[Any, Any]

LOOKED_THROUGH_BYTES = 64 * 1024
"""A frame up to this size is parsed without a look: it can't cost more than a few milliseconds."""

MESSAGES_MAX = 4_096
"""How many calls a large frame holds at most, and how many parts a large call, or large columns. Our own senders write
256 to a frame, and 4,000 texts to columns."""

FRAME_DEPTH = 2
"""A frame's calls, and their requests. What these hold is looked at no further: nothing there repeats messages."""

COLUMNS = (2, 3)
"""The fields of a frame's columns, which hold texts and no messages."""

FRAME_CELLS_MAX = 65_536
"""How many texts all columns of a large frame hold. These take less than messages, and rows may have many."""

_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}  # wire type → bytes


Read = Callable[[bytes], "Message | Unreadable"]
"""Makes a message of bytes, and never raises."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands where a message should: bytes that are none.

    Args:
        kind: the message that was expected.
        problem: why they are none.
    """

    kind: str
    problem: str

    def fault(self) -> HandfastFault:
        """The answer to whoever sent them."""
        return HandfastFault("MESSAGE_MALFORMED", kind=self.kind, problem=self.problem)


def reader(kind: type[Message]) -> Read:
    """A function that reads messages of this kind, and never raises."""
    parse, name = kind.FromString, kind.DESCRIPTOR.name
    depth = FRAME_DEPTH if "calls" in kind.DESCRIPTOR.fields_by_name else 0

    def read(data: bytes) -> Message | Unreadable:
        if len(data) > LOOKED_THROUGH_BYTES and is_too_dense(data, depth):
            return Unreadable(name, f"it holds more than {MESSAGES_MAX} messages")
        try:
            return parse(data)
        except DecodeError as problem:
            return Unreadable(name, str(problem))

    return read


def reader_or_none(kind: type[Message]) -> Callable[[bytes], Any]:
    """The same for the calling side, where gRPC itself would give None, and log a traceback."""
    parse = kind.FromString

    def read(data: bytes) -> Message | None:
        try:
            return parse(data)
        except DecodeError:
            return None

    return read


# -- the look before parsing ---------------------------------------------------------------------------------------


def is_too_dense(data: bytes, depth: int) -> bool:
    """Whether a message holds more fields, or one of its large fields more of its own, than ``MESSAGES_MAX``.

    What is not well-formed is no concern of this; the parser says so.

    Args:
        data: the message.
        depth: how far down large fields are messages, and not texts or bytes, which may look like anything.
    """
    return _count(memoryview(data), depth) > MESSAGES_MAX


def _count(data: memoryview, depth: int) -> int:
    """How many fields there are, or the most in any large field or in columns; stops counting past the limit."""
    position = count = cells = 0
    while position < len(data) and count <= MESSAGES_MAX:
        tag, position = _varint(data, position)
        kind = tag & 7
        count += 1
        if kind == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            if depth == FRAME_DEPTH and tag >> 3 in COLUMNS:
                in_it = _count(data[position : position + length], 0)
                cells += in_it
                count = max(count, in_it, MESSAGES_MAX + 1 if cells > FRAME_CELLS_MAX else 0)
            elif depth and length > LOOKED_THROUGH_BYTES:
                count = max(count, _count(data[position : position + length], depth - 1))
            position += length
        elif kind == 0:
            _, position = _varint(data, position)
        else:
            position += _FIXED.get(kind, 0)  # groups have no length: their fields are counted as they come
    return count


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number and where it ends; one that is cut off ends with the data."""
    number = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number, position


# -- the serving side ----------------------------------------------------------------------------------------------


Admit = Callable[[Context], Awaitable[Callable[[], None]]]
"""Returns when a call may be handled, with whom to tell when it is refused."""


async def _at_once(context: Context) -> Callable[[], None]:
    """Admit everybody, and take no note of who is refused."""
    return _unnoted


def _unnoted() -> None:
    pass


def careful(server: grpc.aio.Server, admit: Admit = _at_once) -> Any:
    """A server for ``add_…Servicer_to_server``, whose handlers then answer what can't be read.

    Args:
        server: where the handlers go.
        admit: awaited before each unary call and each stream, whatever is in it.
    """
    return _CarefulServer(server, admit)


class _CarefulServer:
    """A server, as the generated code sees it."""

    def __init__(self, server: grpc.aio.Server, admit: Admit) -> None:
        self._server = server
        self._admit = admit

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Left to ``add_registered_method_handlers``: the generated code calls both, and that one is asked first."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Add a service."""
        careful = {name: _careful(handler, self._admit) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, careful),))


def _careful(handler: Any, admit: Admit) -> Any:
    """The handler, with a reader for a deserializer, and a behaviour that never sees what can't be read."""
    kind: type[Message] = handler.request_deserializer.__self__
    ways = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    (way,) = (name for name in ways if getattr(handler, name))
    wrap = _careful_generator if inspect.isasyncgenfunction(getattr(handler, way)) else _careful_coroutine
    make = getattr(grpc, f"{way}_rpc_method_handler")
    read = reader(kind)
    if handler.request_streaming:
        behaviour = wrap(getattr(handler, way), admit, read)
        return make(behaviour, response_serializer=handler.response_serializer)
    behaviour = wrap(getattr(handler, way), admit, None)
    return make(behaviour, request_deserializer=read, response_serializer=handler.response_serializer)


def _careful_coroutine(behaviour: Callable[[Any, Any], Awaitable[Any]], admit: Admit, read: Read | None) -> Any:
    async def unary(request: Any, context: Context) -> Any:
        refused = await admit(context)
        try:
            if type(request) is Unreadable:
                await abort(context, request.fault())
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            refused()
            raise

    async def streamed(requests: AsyncIterator[bytes], context: Context) -> Any:
        refused = await admit(context)
        try:
            return await behaviour(Readable(requests, read or _never), context)
        except grpc.aio.AbortError:
            refused()
            raise
        except HandfastFault as fault:
            refused()
            await abort(context, fault)

    return unary if read is None else streamed


def _careful_generator(behaviour: Callable[[Any, Any], AsyncIterator[Any]], admit: Admit, read: Read | None) -> Any:
    async def unary(request: Any, context: Context) -> AsyncIterator[Any]:
        await admit(context)
        if type(request) is Unreadable:
            await abort(context, request.fault())
        async for response in behaviour(request, context):
            yield response

    async def streamed(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        await admit(context)
        try:
            async for response in behaviour(Readable(requests, read or _never), context):
                yield response
        except HandfastFault as fault:
            await abort(context, fault)

    return unary if read is None else streamed


class Readable:
    """The requests of a stream, up to the first that is none.

    ``size`` is how many bytes the last one came in: to ask the message itself costs as much as to write it.

    Args:
        requests: as they came.
        read: makes messages of them.
    """

    __slots__ = ("_read", "_requests", "size")

    def __init__(self, requests: AsyncIterator[bytes], read: Read) -> None:
        self._requests = requests
        self._read = read
        self.size = 0

    @property
    def source(self) -> AsyncIterator[bytes]:
        """The requests as they came."""
        return self._requests

    def over(self, source: AsyncIterator[bytes]) -> Readable:
        """The same kind of requests, out of other bytes."""
        return Readable(source, self._read)

    def __aiter__(self) -> Readable:
        return self

    async def __anext__(self) -> Any:
        """The next one.

        Raises:
            HandfastFault: MESSAGE_MALFORMED.
        """
        data = await anext(self._requests)
        self.size = len(data)
        message = self._read(data)
        if type(message) is Unreadable:
            raise message.fault()
        return message


def _never(data: bytes) -> Unreadable:
    raise AssertionError("a stream is read by its kind's reader")
