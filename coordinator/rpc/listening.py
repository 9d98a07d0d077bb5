"""Ports and TLS: what can go wrong before the first request, each with words of its own."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import grpc
import grpc.aio

from coordinator.config import CoordinatorConfig, split_address
from handfast.catalog import HandfastFault


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


def server_credentials(config: CoordinatorConfig) -> grpc.ServerCredentials | None:
    """The credentials that the settings name; None when the server speaks plain text.

    Raises:
        HandfastFault: SETTING_INVALID; gRPC itself would only say that it can't bind.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key)
    except (ssl.SSLError, OSError) as problem:
        raise HandfastFault(
            "SETTING_INVALID", setting="tls_cert", problem=f"it and tls_key can't be used: {problem}"
        ) from problem
    authorities = None if config.tls_client_ca is None else _authorities(config.tls_client_ca)
    return grpc.ssl_server_credentials(
        [(config.tls_key.read_bytes(), config.tls_cert.read_bytes())],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )


def _authorities(path: Path) -> bytes:
    try:
        ssl.create_default_context(cafile=str(path))
        return path.read_bytes()
    except (ssl.SSLError, OSError) as problem:
        raise HandfastFault("SETTING_INVALID", setting="tls_client_ca", problem=str(problem)) from problem


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
