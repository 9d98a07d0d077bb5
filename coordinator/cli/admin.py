"""The calls to the coordinator's Admin service, and how they fail in words that help."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import grpc
import grpc.aio
from cyclopts import Parameter
from google.protobuf.message import Message

from handfast.bearer import bearer
from handfast.catalog import HandfastFault
from handfast.frames import LOST, TIMEOUT, UNIMPLEMENTED, CallFailed, failure_of_rpc
from handfast.v1 import admin_pb2_grpc

RESPONSE_BYTES_MAX = 256 * 2**20
"""An audit of a full log is large; the coordinator is ours, so that its answer is not to be feared."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


Switch = partial(Parameter, negative="", show_default=False)
"""An option that is there or not, and takes no value."""

JSON_HELP = "Print one JSON document on standard output."


@Parameter(name="*")
@dataclass(frozen=True)
class Target:
    """Which coordinator to ask, how long to wait, and how to print; the same options for every report."""

    address: Annotated[str, Parameter(help="host:port of the coordinator.", env_var="HANDFAST_ADDRESS")] = (
        "127.0.0.1:7400"
    )
    timeout: Annotated[float, Parameter(help="How long to wait for the answer, in seconds.")] = 30.0
    json: Annotated[bool, Switch(help=JSON_HELP)] = False
    tls_ca: Annotated[
        Path | None,
        Parameter(help="Speak TLS, and trust the authorities in this file (PEM).", env_var="HANDFAST_TLS_CA"),
    ] = None
    client_cert: Annotated[
        Path | None, Parameter(help="With TLS: show this certificate (PEM).", env_var="HANDFAST_CLIENT_CERT")
    ] = None
    client_key: Annotated[
        Path | None, Parameter(help="With TLS: the certificate's private key (PEM).", env_var="HANDFAST_CLIENT_KEY")
    ] = None
    token_file: Annotated[
        Path | None, Parameter(help="Send the bearer token in this file.", env_var="HANDFAST_TOKEN_FILE")
    ] = None
    tls_name: Annotated[
        str,
        Parameter(
            help="With TLS: the name that the coordinator's certificate must hold, instead of the address's.",
            env_var="HANDFAST_TLS_NAME",
            show_default=False,
        ),
    ] = ""


DEFAULT_TARGET = Target()


class Admin:
    """An open connection to a coordinator's Admin service.

    Args:
        target: where it is and how long to wait.
        channel: the connection.
    """

    def __init__(self, target: Target, channel: grpc.aio.Channel) -> None:
        self.target = target
        self.calls = admin_pb2_grpc.AdminStub(channel)
        self._metadata = _metadata(target)

    async def ask(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Make a call.

        Raises:
            CallFailed: the coordinator refused, in its own words.
            HandfastFault: COORDINATOR_UNREACHABLE, COORDINATOR_SILENT, COORDINATOR_MISSING or COORDINATOR_ODD.
        """
        try:
            return await method(request, timeout=self.target.timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as problem:
            raise self._failure(problem) from None

    async def watch(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncIterator[Response]:
        """Follow a stream until it ends or the caller stops; no time limit.

        Raises:
            CallFailed, HandfastFault: as in ``ask``.
        """
        call = method(request, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as problem:
            raise self._failure(problem) from None
        finally:
            call.cancel()

    def _failure(self, problem: grpc.aio.AioRpcError) -> CallFailed | HandfastFault:
        address = self.target.address
        failure = failure_of_rpc(problem, address)
        if failure.mend and failure.answered:
            return failure
        details = _reason(problem.details() or failure.code)
        if failure.code == LOST:
            return HandfastFault("COORDINATOR_UNREACHABLE", address=address, problem=details)
        if failure.code == TIMEOUT:
            return HandfastFault("COORDINATOR_SILENT", address=address, timeout_s=f"{self.target.timeout:g}")
        code = "COORDINATOR_MISSING" if failure.code == UNIMPLEMENTED else "COORDINATOR_ODD"
        return HandfastFault(code, address=address, problem=f"{failure.code}, {details}")


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Admin]:
    """Open a connection for the length of the block.

    Raises:
        HandfastFault: OPTIONS_UNFIT when a TLS file can't be read or the options don't fit.
    """
    options = [("grpc.max_receive_message_length", RESPONSE_BYTES_MAX), ("grpc.enable_retries", 0)]
    credentials = _credentials(target)
    if credentials is None:
        channel = grpc.aio.insecure_channel(target.address, options)
    else:
        named = [("grpc.ssl_target_name_override", target.tls_name)] if target.tls_name else []
        channel = grpc.aio.secure_channel(target.address, credentials, [*options, *named])
    async with channel:
        yield Admin(target, channel)


def _metadata(target: Target) -> tuple[tuple[str, str], ...] | None:
    """The bearer token, where there is one."""
    try:
        return bearer(target.token_file)() or None
    except OSError as error:
        problem = f"--token-file {target.token_file} can't be read, {error.strerror}"
        raise HandfastFault("OPTIONS_UNFIT", problem=problem) from None


def _reason(details: str) -> str:
    """What a person needs of gRPC's account: its last cause."""
    return details.rsplit(": ", 1)[-1].rstrip(". ")


def _credentials(target: Target) -> Any:
    """The TLS credentials; None for plain text."""
    if target.tls_ca is None:
        if target.client_cert is not None or target.client_key is not None:
            raise HandfastFault("OPTIONS_UNFIT", problem="a client certificate needs --tls-ca")
        return None
    if (target.client_cert is None) != (target.client_key is None):
        raise HandfastFault("OPTIONS_UNFIT", problem="--client-cert and --client-key go together")
    return grpc.ssl_channel_credentials(
        _read("tls-ca", target.tls_ca), _read("client-key", target.client_key), _read("client-cert", target.client_cert)
    )


def _read(option: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        problem = f"--{option} {path} can't be read, {error.strerror}"
        raise HandfastFault("OPTIONS_UNFIT", problem=problem) from None
