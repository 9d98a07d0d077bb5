"""Batched streams: how every hop of Handfast carries many calls in one message.

A unary RPC costs about 180 µs of CPU on each side; a call inside a batch of 32 costs 5 to 6 µs. So each service has a
unary contract, which any language can implement, and a ``Connect(stream Frame) returns (stream Frame)`` beside it. This
package is that second way, for both services and both sides:

    service.py   what is carried: request type → field of the frame's call, response type → field of its reply
    columns.py   many calls of one kind, spelled once for all of them, over frame connections
    failure.py   how a call fails, and how an error of the catalog crosses the wire (in a frame, in a unary status)
    calls.py     the calling side: CallStream, with its fallback to unary calls
    outstanding.py, books.py, filling.py
                 what of that has no answer yet, and what goes into a frame
    serving.py   the serving side: serve_frames, and answer_unary for the unary twin of the same dispatch
    outbox.py    its replies
    gathering.py when a frame leaves
    reading.py   bytes from strangers, and what becomes of those that are no message
    connection.py, ports.py, dialing.py, local.py, carried.py, ways.py
                 frames over a socket beside the stream, which costs a twelfth
    channels.py  the channel and server settings that both sides need (message size, keepalive, reconnect backoff)

A sender flushes whatever gathered while its last frame was being written, or while the loop still turned for it. There
is no timer: an idle sender sends at once, a busy one sends large frames, and nothing needs tuning.
"""

from handfast.frames.calls import CallStream
from handfast.frames.carried import carried
from handfast.frames.channels import MESSAGE_BYTES_MAX, channel_options, server_options
from handfast.frames.columns import ColumnReplies, ColumnsReply, TakeColumns
from handfast.frames.failure import (
    LOST,
    TIMEOUT,
    UNIMPLEMENTED,
    UNREACHABLE,
    CallFailed,
    abort,
    error_of_fault,
    failure_of_rpc,
)
from handfast.frames.gathering import together
from handfast.frames.outbox import Reply
from handfast.frames.outstanding import OnReply
from handfast.frames.ports import FramePort
from handfast.frames.reading import careful
from handfast.frames.service import COORDINATOR, PARTICIPANT, FramedService, Method
from handfast.frames.serving import Dispatch, answer_unary, serve_frames

__all__ = [
    "COORDINATOR",
    "LOST",
    "MESSAGE_BYTES_MAX",
    "PARTICIPANT",
    "TIMEOUT",
    "UNIMPLEMENTED",
    "UNREACHABLE",
    "CallFailed",
    "CallStream",
    "ColumnReplies",
    "ColumnsReply",
    "Dispatch",
    "FramePort",
    "FramedService",
    "Method",
    "OnReply",
    "Reply",
    "TakeColumns",
    "abort",
    "answer_unary",
    "careful",
    "carried",
    "channel_options",
    "error_of_fault",
    "failure_of_rpc",
    "serve_frames",
    "server_options",
    "together",
]
