"""Ports and TLS: what can go wrong before the first request, each with words of its own."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path

import grpc
import grpc.aio

from coordinator.config import OFF, CoordinatorConfig, is_loopback, split_address
from coordinator.rpc.access import Access
from coordinator.rpc.trail import Trail
from coordinator.tokens import TokenFile
from handfast.catalog import HandfastFault
from handfast.frames import FramePort
from handfast.tls import ServerTls, TlsConfig

logger = logging.getLogger(__name__)


def listen(server: grpc.aio.Server, config: CoordinatorConfig) -> str:
    """Bind the server's port.

    Returns:
        The address with the port that it really has.

    Raises:
        HandfastFault: ADDRESS_IN_USE; SETTING_INVALID when the certificate and its key don't work.
    """
    credentials = server_credentials(config)
    try:
        if credentials is None:
            port = server.add_insecure_port(config.address)
        else:
            port = server.add_secure_port(config.address, credentials)
    except RuntimeError as failure:
        raise _in_use(config.address, str(failure)) from failure
    if port == 0:
        raise _in_use(config.address, "gRPC could not bind it")
    return f"{config.address.rpartition(':')[0]}:{port}"


def frame_port(config: CoordinatorConfig) -> FramePort | None:
    """Open the frame port; None when there is to be none, or when none that was left to chance can be had.

    Raises:
        HandfastFault: ADDRESS_IN_USE, by the one that was asked for; SETTING_INVALID.
    """
    if config.frame_address == OFF:
        return None
    host, port = split_address(config.frame_address) if config.frame_address else (split_address(config.address)[0], 0)
    tls = None
    if config.tls_cert is not None and config.tls_key is not None:
        tls = ServerTls(config.tls_cert, config.tls_key, config.tls_client_ca).files()
    try:
        return FramePort(host, port, via=config.frame_via, tls=tls, frame_bytes_max=config.frame_bytes_max)
    except OSError as failure:
        if config.frame_address:
            problem = failure.strerror or str(failure)
            raise HandfastFault("ADDRESS_IN_USE", address=config.frame_address, problem=problem) from failure
        logger.warning("no frame port could be had on %s, so frames travel over gRPC: %s", host, failure)
        return None


def server_credentials(config: CoordinatorConfig) -> grpc.ServerCredentials | None:
    """The credentials that the settings name; None when the server speaks plain text.

    Raises:
        HandfastFault: SETTING_INVALID; gRPC itself would only say that it can't bind.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    try:
        # The password keeps OpenSSL from asking for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key, password="")
    except (ssl.SSLError, OSError) as problem:
        raise HandfastFault(
            "SETTING_INVALID", setting="tls_cert", problem=f"it and tls_key can't be used: {problem}"
        ) from problem
    if config.tls_client_ca is not None:
        _check_authorities("tls_client_ca", config.tls_client_ca)
    return ServerTls(config.tls_cert, config.tls_key, config.tls_client_ca).credentials()


def participant_tls(config: CoordinatorConfig) -> TlsConfig | None:
    """How to speak to participants, checked; None speaks plain text.

    Raises:
        HandfastFault: SETTING_INVALID.
    """
    if config.participant_ca is None:
        return None
    _check_authorities("participant_ca", config.participant_ca)
    cert, key = config.participant_cert or config.tls_cert, config.participant_key or config.tls_key
    tls = TlsConfig(ca_file=config.participant_ca, cert_file=cert, key_file=key)
    try:
        tls.credentials()
    except OSError as problem:
        said = f"it and participant_key can't be used: {problem}"
        raise HandfastFault("SETTING_INVALID", setting="participant_cert", problem=said) from problem
    return tls


def make_access(config: CoordinatorConfig, trail: Trail) -> Access:
    """Who is asked for a name, and how names are read.

    Raises:
        HandfastFault: SETTING_INVALID, the tokens can't be read.
    """
    try:
        tokens = None if config.tokens_file is None else TokenFile(config.tokens_file)
    except (OSError, ValueError) as problem:
        raise HandfastFault("SETTING_INVALID", setting="tokens_file", problem=str(problem)) from problem
    return Access(
        trail,
        certificates=config.tls_client_ca is not None,
        tokens=tokens,
        admins=config.admins,
        participant_name=config.certified_name,
    )


def warn_of_plain_text(config: CoordinatorConfig) -> None:
    """Say at each start what travels readable and changeable by whoever is on the way."""
    if config.insecure and not is_loopback(config.address):
        logger.warning("INSECURE: %s can be reached from other machines, and has no TLS", config.address)
    elif config.tls and config.tls_client_ca is None and not is_loopback(config.address):
        logger.warning("nobody has to show who they are on %s: there is no tls_client_ca", config.address)
    if config.tls and config.participant_ca is None:
        logger.warning("participants are spoken to without TLS, for there is no participant_ca")


def _check_authorities(setting: str, path: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(path))
    except (ssl.SSLError, OSError) as problem:
        raise HandfastFault("SETTING_INVALID", setting=setting, problem=str(problem)) from problem


def _in_use(address: str, problem: str) -> HandfastFault:
    """Name the cause in the system's words: gRPC hides it in a log line of its own."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(where)
    except OSError as failure:
        problem = failure.strerror or str(failure)
    return HandfastFault("ADDRESS_IN_USE", address=address, problem=problem)
