"""Frame connections as the system shows them, by the port at which they stand."""

from pathlib import Path

import psutil

from handfast.frames.local import AVAILABLE

_CONNECTED = "03"
"""The state of a Unix socket that was let in; one that waits for it has another."""


def over_tcp(port: int) -> set[str]:
    """Those of this process that came to the port itself, by the ports from which they came."""
    found = psutil.Process().net_connections("tcp")
    here = (one for one in found if one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED)
    return {f"port {one.raddr.port}" for one in here}


def over_local(port: int) -> set[str]:
    """Those of any process that came to the local socket beside it, by their inodes."""
    return {
        f"inode {inode}" for state, inode, path in _unix() if state == _CONNECTED and path.startswith(_beside(port))
    }


def local_name(port: int) -> str | None:
    """The name of the local socket beside a port, as everybody can see it."""
    return next((path.removeprefix("@") for _, _, path in _unix() if path.startswith(_beside(port))), None)


def _beside(port: int) -> str:
    return f"@handfast-{port}-"


def _unix() -> list[tuple[str, str, str]]:
    """State, inode and name of every Unix socket that has one."""
    if not AVAILABLE:
        return []
    _, *lines = Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()
    split = (line.split(maxsplit=7) for line in lines)
    return [(one[5], one[6], one[7]) for one in split if len(one) > 7]
