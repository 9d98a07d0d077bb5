"""One service process, from start to stop."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from examples.bank import database
from examples.bank.booking import Connection
from participant import Participant, ParticipantOptions, server_options

Register = Callable[[Participant[Connection], grpc.aio.Server], None]
"""Offers a service's work: its RPCs on the server, its operations to one-shot transactions."""

STOP_GRACE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one process needs to know.

    Args:
        dsn: its own database.
        port: the port to listen on.
        host: the address to listen on.
        address: host:port where others reach this process, when that differs: in a container, or behind a proxy.
        frame_address: host:port to listen on for frames beside gRPC; by default any free port, ``off`` for none.
        frame_via: where who dialed a proxy finds that port, as dialed=host:port; may be repeated.
        coordinator: host:port of the coordinator.
        accounts: how many accounts an empty database gets, numbered from 1.
        balance: what each of them holds, in cents.
        memory_age_s: for how long ended branches are remembered, in seconds.
    """

    dsn: str
    port: int
    host: str = "127.0.0.1"
    address: str = ""
    frame_address: str = ""
    frame_via: tuple[str, ...] = ()
    coordinator: str = "127.0.0.1:7400"
    accounts: int = 100
    balance: int = 1000
    memory_age_s: float = ParticipantOptions().memory_age_s


async def serve(name: str, register: Register, settings: Settings) -> None:
    """Run a service until SIGTERM or Ctrl-C; then finish the calls under way.

    Args:
        name: the resource that it is to the coordinator, for example ``accounts``.
        register: offers its work.
        settings: the rest.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    await database.set_up(settings.dsn, accounts=settings.accounts, balance=settings.balance)

    listening = f"{settings.host}:{settings.port}"
    address = settings.address or listening
    options = ParticipantOptions(
        memory_age_s=settings.memory_age_s,
        frame_address=settings.frame_address,
        frame_via=dict(pair.split("=", 1) for pair in settings.frame_via),
    )
    participant = Participant(name, settings.dsn, coordinator=settings.coordinator, address=address, options=options)
    server = grpc.aio.server(interceptors=participant.interceptors(), options=server_options())
    register(participant, server)
    participant.add_to_server(server)  # the coordinator's way in: Prepare, Commit, Rollback
    server.add_insecure_port(listening)

    await server.start()
    async with participant:
        print(f"{name} is ready on {listening}", flush=True)
        await stopped.wait()
    # Last, for the coordinator stays connected as long as there is a participant.
    await server.stop(STOP_GRACE_S)
