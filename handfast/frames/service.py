"""What a framed service carries, read from its descriptor: the .proto files are the only list of methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

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
    """

    name: str
    connect_path: str
    methods: dict[type[Message], Method]
    reply_fields: dict[type[Message], str]
    call_frame: Callable[[], Message]
    reply_frame: Callable[[], Message]
    parse_reply_frame: Callable[[bytes], Message | None]

    def method(self, request: Message) -> Method:
        """The method that takes this request.

        Raises:
            TypeError: the service has none.
        """
        try:
            return self.methods[type(request)]
        except KeyError:
            raise TypeError(f"{self.name} has no method that takes a {type(request).__name__}") from None


def framed_service(service: ServiceDescriptor) -> FramedService:
    """Describe a service with a ``Connect`` method.

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
    )


def _payload_fields(envelopes: FieldDescriptor) -> dict[type[Message], str]:
    """The oneof of an envelope (a frame's repeated field): message type → field name."""
    envelope = envelopes.message_type
    if envelope is None:
        raise ValueError(f"{envelopes.full_name} holds no messages")
    fields = envelope.oneofs[0].fields
    return {GetMessageClass(field.message_type): field.name for field in fields if field.message_type is not None}


COORDINATOR = framed_service(coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"])
"""What applications and participants ask of the coordinator."""

PARTICIPANT = framed_service(participant_pb2.DESCRIPTOR.services_by_name["Participant"])
"""What the coordinator asks of a participant."""
