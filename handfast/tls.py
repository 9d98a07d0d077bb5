"""TLS towards the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Where the keys are.

    Args:
        ca_file: the certificates of whom to trust, PEM; None trusts what gRPC trusts by default.
        cert_file: this program's own certificate, PEM, when the coordinator asks for one (mutual TLS).
        key_file: the key to it, PEM.
        server_name: the name that the coordinator's certificate is for, when it is not the address's.

    Raises:
        ValueError: only one of certificate and key was given.
    """

    ca_file: Path | str | None = None
    cert_file: Path | str | None = None
    key_file: Path | str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            OSError: one can't be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.cert_file),
        )

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """What the channel must know besides the credentials."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
