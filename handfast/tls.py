"""TLS on both ends of a connection, with certificates that may be replaced while the program runs.

gRPC's own TLS is what runs: BoringSSL, TLS 1.2 at least and 1.3 where both sides can. grpcio has no setting for the
least version and needs none: a peer that offers less is refused.

A server asks for its files at each handshake. A client's credentials can't be changed in a channel that is made, so
``open_channel`` gives one that is made anew, underneath, when it has to connect again and the files have changed
(``renewed_channel``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import grpc
import grpc.aio

from handfast.frames.channels import Options, channel_options
from handfast.frames.dialing import FrameDialer
from handfast.pem_files import PemFiles, Pems
from handfast.renewed_channel import RenewedChannel


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Where a client's keys are: an application's or participant's towards the coordinator.

    Args:
        ca_file: the certificates of whom to trust, PEM; None trusts what gRPC trusts by default.
        cert_file: this program's own certificate, PEM, when the other side asks for one (mutual TLS).
        key_file: the key to it, PEM.
        server_name: the name that the other side's certificate is for, when it is not the address's.

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
            OSError: one can't be read, or they don't fit together.
        """
        return _channel_credentials(self.files().read())

    def files(self) -> PemFiles:
        """The files, to be read again when they change."""
        return PemFiles(self.cert_file, self.key_file, self.ca_file)

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """What the channel must know besides the credentials."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Where a server's keys are: a service's that embeds a participant, or the coordinator's.

        server.add_secure_port("0.0.0.0:7501", ServerTls("tls/tls.crt", "tls/tls.key", "tls/ca.crt").credentials())

    Args:
        cert_file: the server's certificate chain, PEM.
        key_file: the key to it, PEM.
        client_ca_file: the authorities of clients, PEM: each must then show a certificate (mutual TLS).
    """

    cert_file: Path | str
    key_file: Path | str
    client_ca_file: Path | str | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files, now and again before a handshake when they have changed.

        Raises:
            OSError: one can't be read, or they don't fit together.
        """
        files = self.files()
        first = _server_configuration(files.read())
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", partial(renewed_configuration, files))
        return grpc.dynamic_ssl_server_credentials(first, fetch, self.client_ca_file is not None)

    def files(self) -> PemFiles:
        """The files, to be read again when they change."""
        return PemFiles(self.cert_file, self.key_file, self.client_ca_file)


def renewed_configuration(files: PemFiles) -> grpc.ServerCertificateConfiguration | None:
    """What a server uses from the next handshake on; None when nothing has changed.

    gRPC takes whatever it is given for a change, and lets the old configuration go while other threads shake hands by
    it: a few hundred handshakes that fail at once then end the process (grpc issue 36693). So it is given nothing.
    """
    pems = files.reread()
    return None if pems is None else _server_configuration(pems)


def open_channel(
    address: str, tls: TlsConfig | grpc.ChannelCredentials | None, server_name: str | None = None
) -> grpc.aio.Channel:
    """Make a channel with the settings that batched streams need.

    Args:
        address: ``host:port``.
        tls: how to trust the other side; None speaks plain text. gRPC's own credentials are never renewed.
        server_name: the name that the other side's certificate must hold, instead of the one in ``tls``.

    Raises:
        OSError: a file of ``tls`` can't be read.
    """
    options = channel_options()
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    if not isinstance(tls, TlsConfig):
        return grpc.aio.secure_channel(address, tls, options=options)
    named: Options = (("grpc.ssl_target_name_override", server_name),) if server_name else tls.channel_options()
    files = tls.files()

    def secure(pems: Pems) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(address, _channel_credentials(pems), options=(*options, *named))

    return cast("grpc.aio.Channel", RenewedChannel(files, secure))


def frame_dialer(
    address: str, tls: TlsConfig | grpc.ChannelCredentials | None, server_name: str | None = None
) -> FrameDialer | None:
    """The way to the frame port beside a channel that ``open_channel`` makes of the same arguments.

    None with gRPC's own credentials: nobody can read out of them what they trust.
    """
    if tls is None:
        return FrameDialer(address)
    if not isinstance(tls, TlsConfig):
        return None
    return FrameDialer(address, tls.files(), server_name or tls.server_name)


def _channel_credentials(pems: Pems) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(pems.authorities, pems.key, pems.certificate)


def _server_configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    assert pems.key is not None
    assert pems.certificate is not None
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], root_certificates=pems.authorities)
