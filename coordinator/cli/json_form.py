"""A protobuf message as JSON for scripts.

The proto's own JSON mapping writes 64-bit numbers as strings and leaves out what is zero, and neither helps ``jq``.
Here every field is present under its proto name, numbers are numbers, an enum is its value's name without the prefix
(``COMMITTING``), and what is not set is null. Adding a field to the proto adds a key; keys are not renamed.
"""

from __future__ import annotations

import base64
from typing import Any  # a field's descriptor has two classes, by protobuf's implementation

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import CallFailed


def document(message: Message) -> dict[str, Any]:
    """The message with all its fields, in the proto's order."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def error_document(problem: HandfastFault | CallFailed) -> dict[str, Any]:
    """What went wrong, in the form of the message ``Error``."""
    named = ("code", "message", "mend", "gtrid", "bqual")
    return {"error": {name: getattr(problem, name) for name in named}}


def enum_word(descriptor: EnumDescriptor, number: int) -> str | None:
    """The value's name without the enum's; None when it is not set. A number this version doesn't know stays one."""
    if number == 0:
        return None
    value = descriptor.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(descriptor))


def _prefix(descriptor: EnumDescriptor) -> str:
    return descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return document(value)
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
