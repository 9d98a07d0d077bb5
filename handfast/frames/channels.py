"""The gRPC settings without which batched streams misbehave, once, for all sides."""

from __future__ import annotations

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""The largest gRPC message, which is to say frame, that either side takes."""

CALL_BYTES_MAX = 14 * 1024 * 1024
"""The largest call or reply. A larger one would break the stream, and every other call on it."""

FRAME_BYTES_MAX = 1024 * 1024
"""Past this a frame takes no further call, so that a frame never exceeds ``MESSAGE_BYTES_MAX``."""

KEEPALIVE_TIME_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 5_000
CONNECT_ATTEMPT_MS = 5_000
RECONNECT_BACKOFF_MIN_MS = 100
RECONNECT_BACKOFF_MAX_MS = 1_000

Options = tuple[tuple[str, int | str], ...]


def channel_options() -> Options:
    """The options for a client's channel.

    Keepalive finds a peer that vanished without closing its connection. The reconnect backoff is capped at a second:
    a coordinator that restarts in one should not be waited for in thirty. ``http_proxy`` is ignored, because a
    coordinator is reached directly.
    """
    return (
        *_message_sizes(),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_BACKOFF_MIN_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_ATTEMPT_MS),  # despite its name: how long one attempt may take
        ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MAX_MS),
        ("grpc.enable_http_proxy", 0),
        # A connection of one's own, whose reconnect backoff no other channel of the process has used up.
        ("grpc.use_local_subchannel_pool", 1),
    )


def server_options(
    frame_bytes_max: int = MESSAGE_BYTES_MAX, keepalive_s: float = KEEPALIVE_TIME_MS / 1000, age_max_s: float = 0
) -> Options:
    """The options for a server.

    It takes no offence at the clients' keepalive, and finds by its own a client that vanished without a word.

    Args:
        frame_bytes_max: the largest message that it takes.
        keepalive_s: after how much idle time it asks whether the client is there.
        age_max_s: how old a connection gets before its client is told to make another; 0 means any age. Streams get
            longer than that again, so that they can be ended in good order.
    """
    aged = (
        ("grpc.max_connection_age_ms", int(age_max_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(age_max_s * 1200) + 30_000),
    )
    return (
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", frame_bytes_max),
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        *(aged if age_max_s else ()),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        # A second server on the port is an error to report, not a sharer of its connections.
        ("grpc.so_reuseport", 0),
    )


def _message_sizes() -> Options:
    return (
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    )
