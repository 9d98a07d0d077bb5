"""The participant SDK: what a service embeds to let its database take part in global transactions.

The layers, from the inside out:

    protocol/       what a branch answers to each message; no I/O, standard library only
    resource.py     the contract of what a branch changes (X/Open's resource manager)
    postgres/       that contract for Postgres, on psycopg 3
    work.py         the branches at work: connections, locks, deadlines, operations
    driver.py       takes the coordinator's messages through all of these
    link.py         to the coordinator: register, enlist, inquire
    recovery.py     branches in doubt, resolved by asking
    server.py       the gRPC service, and the interceptor that joins the caller's transaction
    participant.py  Participant: all of it, for one resource
    testing.py      a resource in memory and a coordinator made of cardboard, for your own tests

Clock, options, operations, faults, failpoints, trace, wire and tasks serve all of them.
"""

from handfast.catalog import HandfastFault
from handfast.frames import server_options
from participant.config import ParticipantOptions
from participant.participant import Participant, interceptors
from participant.resource import ResourceManager

__all__ = ["HandfastFault", "Participant", "ParticipantOptions", "ResourceManager", "interceptors", "server_options"]
