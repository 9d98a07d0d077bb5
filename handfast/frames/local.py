"""Frames between two processes of one machine: a Unix socket beside the frame port.

What a small frame costs on loopback is mostly the kernel's TCP: over a Unix socket a lone transaction takes a
twentieth less. The socket has an abstract name (``man 7 unix``), which is no file: it needs no folder and no rights to
one, and is gone with its process. It can be reached from the same network namespace and no other, as loopback can.
Only Linux has such names; elsewhere frames travel over TCP.

Nothing is decided here about who may: what comes in is asked for a ticket, as on the port itself (``ports.py``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import socket
import sys
from urllib.parse import unquote

from handfast.clock import secret

AVAILABLE = sys.platform == "linux"
"""Whether this system has abstract names."""

_NAME = re.compile(r"handfast-[0-9]{1,5}-[0-9a-f]{32}")

log = logging.getLogger(__name__)


def listening(port: int, backlog: int) -> tuple[str, socket.socket] | None:
    """A socket that listens beside a frame port, and its name; None when it can't be had.

    Args:
        port: the frame port's number. It is part of the name, so that ``ss -xl`` shows what belongs together.
        backlog: how many may wait to be let in.
    """
    name = f"handfast-{port}-{secret(16).hex()}"
    near = None
    try:
        near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        near.bind(f"\0{name}")
        near.listen(backlog)
    except OSError as problem:  # a sandbox that allows no Unix sockets, for example
        log.info("no local socket beside frame port %d, so all frames to it travel over TCP: %s", port, problem)
        if near is not None:
            near.close()
        return None
    near.setblocking(False)
    return name, near


def connected(name: str) -> socket.socket:
    """A socket that is connected to the one of this name. Does not wait: whoever finds the backlog full is refused.

    Args:
        name: what a server said. Nothing but the name of such a socket is taken: never a path, nor anybody else's.

    Raises:
        ValueError: it is no name of a local socket.
        OSError: nobody of this name is there, as seen from here, or too many wait already.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError("what was told is no name of one")
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        near.setblocking(False)
        # Not the loop's sock_connect: that takes a full backlog (EAGAIN) for a connection on its way.
        near.connect(f"\0{name}")
    except OSError:
        near.close()
        raise
    return near


def is_near(peer: str) -> bool:
    """Whether this peer of a gRPC call is on the same machine, or something on it that passes on what others send.

    Args:
        peer: as gRPC writes it: ``ipv4:127.0.0.1:40000``, ``ipv6:%5B::1%5D:40000``, ``unix:``.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind in ("unix", "unix-abstract"):
        return True
    if kind in ("ipv4", "ipv6"):
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(rest.rpartition(":")[0].strip("[]"))
            return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return False
