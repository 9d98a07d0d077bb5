"""The contract for messages to participants."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.message import Message

from handfast.frames import ColumnReplies, OnReply


class Transport(Protocol):
    """Delivers a request to the participant of a branch and brings back the reply.

    It gives no promise about order, and none about delivery: a reply may be lost after the request was carried out.
    It promises that ``on_reply`` is called exactly once, on the loop's thread, and never from within ``send``.
    """

    def send(
        self, bqual: str, request: Message, on_reply: OnReply, *, attempt: int, any_instance: bool, timeout_s: float
    ) -> None:
        """Send one request.

        Args:
            bqual: the branch, ``resource.instance``.
            request: a request of the Participant service.
            on_reply: told the response, or a ``CallFailed``.
            attempt: counts from 1; with ``any_instance``, later attempts try other instances.
            any_instance: whether any instance of the resource will do (phase two of a prepared branch), or only the
                one that holds the branch.
            timeout_s: how long to wait for the reply.
        """

    def takes_columns(self, bqual: str) -> bool:
        """Whether messages for this branch, to the process that holds it, can go in columns now."""

    def send_columns(
        self, bqual: str, columns: Message, count: int, replies: ColumnReplies, *, timeout_s: float
    ) -> None:
        """Send many requests of one kind to the process that holds the branch; as good as ``send`` for each row.

        Args:
            bqual: the branch, of each of them.
            columns: the requests (PrepareColumns, CommitColumns).
            count: how many they are.
            replies: told each one's reply, exactly once, and never from within ``send_columns``.
            timeout_s: how long to wait for them.
        """
