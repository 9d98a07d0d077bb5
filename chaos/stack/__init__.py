"""Real databases and real processes, started for a while and surely ended.

The map, from the bottom up; each layer uses only those above it in this list:

    errors            what can go wrong, as one tree
    waiting           the only clock here: wait for a condition, with a bound
    ports             loopback ports that nobody else takes before their owner binds them
    launch, spawn     how a child is started so that it cannot outlive its parent
    process           ManagedProcess: one child with its log, its readiness and its signals
    postgres_binaries the Postgres programs out of a Python wheel, and the user that may run them
    postgres_data     data directories: initdb once, then copies
    postgres          PostgresCluster
    folder            the temporary folder of one stack
    stop_signals      Ctrl-C and SIGTERM become an orderly end
    lifetime          Stack: closes everything in reverse order, whatever happens

    with Stack() as stack:
        bank = stack.start(PostgresCluster("bank", stack.path))
        print(bank.dsn())
"""

from chaos.stack.errors import (
    CleanupFailed,
    CommandFailed,
    MissingSoftware,
    NotInTime,
    NotRunning,
    StackError,
    StartFailed,
)
from chaos.stack.folder import StackFolder
from chaos.stack.lifetime import Resource, Stack, Startable
from chaos.stack.ports import free_port, release_port
from chaos.stack.postgres import PostgresCluster
from chaos.stack.process import ManagedProcess, python_module
from chaos.stack.waiting import wait_until

__all__ = [
    "CleanupFailed",
    "CommandFailed",
    "ManagedProcess",
    "MissingSoftware",
    "NotInTime",
    "NotRunning",
    "PostgresCluster",
    "Resource",
    "Stack",
    "StackError",
    "StackFolder",
    "StartFailed",
    "Startable",
    "free_port",
    "python_module",
    "release_port",
    "wait_until",
]
