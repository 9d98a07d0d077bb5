"""A certificate, its key and trusted authorities as files that are replaced while the program runs.

Certificates live for weeks or hours, a coordinator lives for months. So nobody keeps what was once read: whoever makes
a connection asks ``reread`` first, which costs a few ``stat`` calls. Whoever renews certificates replaces several
files, one after the other; in between they don't fit together. Files that don't fit are reported once and left for the
next time, and the connection is made with what worked before.
"""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Pems:
    """What the files held.

    Args:
        certificate: the certificate chain.
        key: its private key.
        authorities: the certificates of whom to trust.
    """

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None


class PemFiles:
    """The files. Safe to ask from any thread: gRPC asks from its own.

    Args:
        certificate: file with the certificate chain.
        key: file with its private key.
        authorities: file with the certificates of whom to trust.
    """

    def __init__(self, certificate: Path | str | None, key: Path | str | None, authorities: Path | str | None) -> None:
        self._certificate, self._key, self.authorities = map(_path, (certificate, key, authorities))
        self._lock = threading.Lock()
        self._used: _Stamp | None = None
        self._reported: _Stamp | None = None

    def read(self) -> Pems:
        """Read them.

        Raises:
            OSError: one can't be read, or they don't fit together.
        """
        with self._lock:
            stamp = self._stamp()
            pems = self._read()
            self._used = stamp
            return pems

    def reread(self) -> Pems | None:
        """What they hold now; None when that was read before, or can't be used yet."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp == self._used:
                    return None
                pems = self._read()
                if stamp != self._stamp():
                    return None  # they change right now
            except OSError as problem:
                self._report(problem)
                return None
            self._used, self._reported = stamp, None
            logger.info("read anew: %s", ", ".join(map(str, self._paths())))
            return pems

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have connections by this context use them.

        Raises:
            OSError: one can't be read, or they don't fit together.
        """
        try:
            if self._certificate is not None:
                # The password keeps OpenSSL from asking for one on the terminal.
                context.load_cert_chain(self._certificate, self._key, password="")
            if self.authorities is not None:
                context.load_verify_locations(self.authorities)
        except ssl.SSLError as problem:
            named = ", ".join(map(str, self._paths()))
            raise OSError(f"{named} can't be used as certificate, key and authorities: {problem}") from problem

    def _report(self, problem: OSError) -> None:
        try:
            stamp = self._stamp()
        except OSError:
            stamp = ()
        if stamp != self._reported:
            self._reported = stamp
            logger.warning("the new certificates can't be used, so the old ones stay: %s", problem)

    def _paths(self) -> list[Path]:
        return [path for path in (self._certificate, self._key, self.authorities) if path is not None]

    def _stamp(self) -> _Stamp:
        found = [path.stat() for path in self._paths()]
        return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)

    def _read(self) -> Pems:
        pems = Pems(_bytes(self._certificate), _bytes(self._key), _bytes(self.authorities))
        self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return pems


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _bytes(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
