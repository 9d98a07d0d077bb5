"""Loopback ports for processes that are about to start.

The race: to learn of a free port one binds port 0 and reads the number, but the process that shall use the port has to
bind it itself, later. In between, and again whenever that process is stopped for a while, any other program may be
given the same number, most easily by the kernel for the near end of an outgoing connection.

On Linux the race is closed: the socket that found the port stays bound, never listens, and carries SO_REUSEADDR. The
kernel then gives the port to nobody who asks for *a* port, yet lets a server bind and listen on exactly this one, if
the server sets SO_REUSEADDR too, as Postgres, gRPC, Go and asyncio servers do. Elsewhere such a bind is refused, so the
socket is closed at once and the race stays open for a moment: whoever starts a server there must try again with another
port when the first is in use, as PostgresCluster does.
"""

import atexit
import socket
import sys
import threading

_HOLDS_PORTS = sys.platform == "linux"

_lock = threading.Lock()
_handed_out: dict[int, socket.socket] = {}


def free_port() -> int:
    """Find a free TCP port on 127.0.0.1 and keep it for this process.

    Returns:
        The port number. It is not handed out again in this process before `release_port`.

    Raises:
        OSError: the machine has no free port, or no file descriptor, left.
    """
    with _lock:
        while True:
            holder, port = _bind_any()
            if port not in _handed_out:
                _handed_out[port] = holder
                return port
            holder.close()


def release_port(port: int) -> None:
    """Give back a port from `free_port`. A port that was not handed out, or was given back, is left alone."""
    with _lock:
        holder = _handed_out.pop(port, None)
    if holder is not None:
        holder.close()


def _bind_any() -> tuple[socket.socket, int]:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind(("127.0.0.1", 0))
    except OSError:
        holder.close()
        raise
    port: int = holder.getsockname()[1]
    if _HOLDS_PORTS:
        # Only now: set before the bind, it would let us be given a port that another stack holds in the same way.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        holder.close()
    return holder, port


@atexit.register
def _release_all() -> None:
    for port in list(_handed_out):
        release_port(port)
