"""An authority of a test's own, and certificates from it as files."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from coordinator.cli.authority import Authority, Issued
from handfast.tls import ServerTls, TlsConfig

LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Certified:
    """One holder's files.

    Args:
        cert: the certificate.
        key: its key.
        ca: the authority that signed it.
    """

    cert: Path
    key: Path
    ca: Path

    def client(self, server_name: str | None = None) -> TlsConfig:
        """Its settings as a client."""
        return TlsConfig(self.ca, self.cert, self.key, server_name)

    def server(self) -> ServerTls:
        """Its settings as a server that asks for certificates."""
        return ServerTls(self.cert, self.key, self.ca)

    def replace_by(self, other: "Certified") -> None:
        """Take over another's files, as a renewal does."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key), (self.ca, other.ca)):
            fresh = mine.with_suffix(".new")
            fresh.write_bytes(theirs.read_bytes())
            fresh.replace(mine)


class Pki:
    """An authority.

    Args:
        folder: where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now = datetime.now(UTC)
        self._authority = Authority.create("test authority", self._now, timedelta(days=2))
        self._issued = 0
        folder.mkdir(parents=True, exist_ok=True)

    def issue(self, *names: str) -> Certified:
        """Sign a certificate with these names, ``spiffe://…`` ones being URIs, for a server on loopback."""
        uris = [name for name in names if "://" in name]
        hosts = [*LOOPBACK, *(name for name in names if "://" not in name)]
        issued = self._authority.issue("test", uris, hosts, self._now, timedelta(days=1))
        self._issued += 1
        return self.write(str(self._issued), issued)

    def participant(self, *resources: str) -> Certified:
        """The certificate of a process that holds these resources."""
        uris = [f"spiffe://handfast/participant/{resource}" for resource in resources]
        return self.issue(*uris, *(f"{resource}.participant.handfast" for resource in resources))

    def client(self, name: str) -> Certified:
        """The certificate of an application."""
        return self.issue(f"spiffe://handfast/client/{name}")

    def admin(self, name: str) -> Certified:
        """The certificate of an operator."""
        return self.issue(f"spiffe://handfast/admin/{name}")

    def coordinator(self) -> Certified:
        """The certificate of a coordinator."""
        return self.issue("spiffe://handfast/coordinator", "coordinator.handfast")

    def write(self, name: str, issued: Issued) -> Certified:
        """Put a certificate into files of its own."""
        files = Certified(*(self._folder / f"{name}.{end}" for end in ("crt", "key", "ca.crt")))
        files.cert.write_bytes(issued.certificate)
        files.key.write_bytes(issued.key)
        files.ca.write_bytes(self._authority.pems.certificate)
        return files
