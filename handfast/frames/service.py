"""What a framed service carries, read from its descriptor: the .proto files are the only list of methods.

What of it also travels as columns is listed below, for which fields make up a row is more than a descriptor says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from handfast.catalog import HandfastFault
from handfast.frames.columns import ROWS_MAX, ColumnKind, Commits, Executes, GatheredKind, Prepares, Rows
from handfast.frames.reading import reader_or_none
from handfast.v1 import coordinator_pb2, participant_pb2

CONNECT = "Connect"


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method, and how frames carry it.

    Args:
        name: its name, for example ``Commit``.
        path: what a unary call names, for example ``/handfast.v1.Coordinator/Commit``.
        request: the request's type.
        response: the response's type.
        field: the field of the frame's call and of its reply; None when frames don't carry it (Inspect).
    """

    name: str
    path: str
    request: type[Message]
    response: type[Message]
    field: str | None


@dataclass(frozen=True, slots=True)
class FramedService:
    """A service whose unary methods also travel in batches.

    Args:
        name: its full name, for example ``handfast.v1.Coordinator``.
        connect_path: what the batched stream names.
        methods: by the request's type.
        reply_fields: the reply's field by the response's type; only methods that frames carry.
        call_frame: makes an empty frame of calls.
        reply_frame: makes an empty frame of replies.
        parse_reply_frame: reads a frame of replies from its bytes; None when they are none.
        columns: what also travels as columns, in the order in which a frame's are taken.
        columns_by_type: the same by the type of the calls' columns and of the answers'.
        columns_by_response: the same by the type of a row's response.
        gathered: the kinds that single calls become, by the type of their requests.
    """

    name: str
    connect_path: str
    methods: dict[type[Message], Method]
    reply_fields: dict[type[Message], str]
    call_frame: Callable[[], Message]
    reply_frame: Callable[[], Message]
    parse_reply_frame: Callable[[bytes], Message | None]
    columns: tuple[ColumnKind, ...]
    columns_by_type: dict[type[Message], ColumnKind]
    columns_by_response: dict[type[Message] | type[HandfastFault], ColumnKind]
    gathered: dict[type[Message], GatheredKind]

    def method(self, request: Message) -> Method:
        """The method that takes this request.

        Raises:
            TypeError: the service has none.
        """
        try:
            return self.methods[type(request)]
        except KeyError:
            raise TypeError(f"{self.name} has no method that takes a {type(request).__name__}") from None

    def kind_of(self, columns: Message) -> ColumnKind:
        """The kind of columns, of calls or of answers.

        Raises:
            TypeError: the service has none like them.
        """
        try:
            return self.columns_by_type[type(columns)]
        except KeyError:
            raise TypeError(f"{self.name} has no columns of type {type(columns).__name__}") from None

    def rows_in(self, frame: Any) -> list[Rows]:
        """The columns of a frame of calls, each with all its rows.

        Raises:
            HandfastFault: MESSAGE_MALFORMED, by which the stream is to be ended. How many calls they are can't be told,
                so they can't be answered one by one.
        """
        found, count = [], 0
        for kind in self.columns:
            for columns in getattr(frame, kind.field):
                problem = kind.problem(columns)
                count += 0 if problem else kind.count(columns)
                if count > ROWS_MAX:
                    problem = f"the frame has more than {ROWS_MAX} rows"
                if problem:
                    raise HandfastFault("MESSAGE_MALFORMED", kind=type(columns).__name__, problem=problem)
                found.append(Rows(kind, columns, 0, kind.count(columns)))
        return found

    def answers_in(self, frame: Any) -> int:
        """How many calls a frame of replies answers."""
        count = len(frame.replies)
        for kind in self.columns:
            for answer in getattr(frame, kind.answer_field):
                count += len(answer.ids)
        return count


def framed_service(service: ServiceDescriptor, columns: Sequence[ColumnKind] = ()) -> FramedService:
    """Describe a service with a ``Connect`` method.

    Args:
        service: its descriptor.
        columns: what also travels as columns, in the order in which a frame's are taken.

    Raises:
        ValueError: a request travels in frames and its response does not.
    """
    connect = service.methods_by_name[CONNECT]
    call_fields = _payload_fields(connect.input_type.fields[0])
    reply_fields = _payload_fields(connect.output_type.fields[0])
    methods: dict[type[Message], Method] = {}
    for method in service.methods:
        if method.name == CONNECT:
            continue
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        field = call_fields.get(request)
        if field != reply_fields.get(response):
            raise ValueError(f"{service.full_name}.{method.name}: its call and its reply travel in different fields")
        methods[request] = Method(method.name, f"/{service.full_name}/{method.name}", request, response, field)
    call_frame, reply_frame = GetMessageClass(connect.input_type), GetMessageClass(connect.output_type)
    return FramedService(
        name=service.full_name,
        connect_path=f"/{service.full_name}/{CONNECT}",
        methods=methods,
        reply_fields={kind: field for kind, field in reply_fields.items() if field != "error"},
        call_frame=call_frame,
        reply_frame=reply_frame,
        parse_reply_frame=reader_or_none(reply_frame),
        columns=tuple(columns),
        columns_by_type={kind: one for one in columns for kind in (one.calls, one.answers)},
        columns_by_response={one.response: one for one in columns},
        gathered={one.request: one for one in columns if isinstance(one, GatheredKind)},
    )


def _payload_fields(envelopes: FieldDescriptor) -> dict[type[Message], str]:
    """The oneof of an envelope (a frame's repeated field): message type → field name."""
    envelope = envelopes.message_type
    if envelope is None:
        raise ValueError(f"{envelopes.full_name} holds no messages")
    fields = envelope.oneofs[0].fields
    return {GetMessageClass(field.message_type): field.name for field in fields if field.message_type is not None}


COORDINATOR = framed_service(coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"], [Executes()])
"""What applications and participants ask of the coordinator."""

PARTICIPANT = framed_service(participant_pb2.DESCRIPTOR.services_by_name["Participant"], [Prepares(), Commits()])
"""What the coordinator asks of a participant."""
