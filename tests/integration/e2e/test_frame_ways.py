"""Which way frames go between processes of one machine that speak no TLS, with settings left alone."""

import psutil

from chaos.bank_stack import BankStack
from examples.bank.client import Bank
from tests.frame_sockets import over_local
from tests.integration.e2e.bank_world import next_payment, off_loop, restart_service


def over_tcp(port: int) -> int:
    """How many connections of any process have come to a port."""
    found = psutil.net_connections("tcp")
    return sum(1 for one in found if one.laddr and one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED)


def frame_port(bank: BankStack, target: str) -> int:
    """The number of its frame port."""
    return int(bank.listening_for_frames(target).rpartition(":")[2])


async def test_between_client_coordinator_and_participants_they_travel_over_local_sockets(
    bank: BankStack, client: Bank
) -> None:
    await client.pay(next_payment())
    ports = {target: frame_port(bank, target) for target in ("coordinator", *bank.instances)}
    local = {target: len(over_local(port)) for target, port in ports.items()}
    assert {local[instance] for instance in bank.instances} == {1}, "the coordinator's"
    assert local["coordinator"] >= 1, "the client's, and those of participants that asked for something"
    assert {target: await off_loop(over_tcp, port) for target, port in ports.items()} == dict.fromkeys(ports, 0)


async def test_when_a_process_is_killed_its_connections_end_and_its_successor_has_others(
    bank: BankStack, client: Bank
) -> None:
    await client.pay(next_payment())
    port = frame_port(bank, "accounts-1")
    before = over_local(port)
    assert len(before) == 1
    await off_loop(restart_service, bank, "accounts")
    await client.pay(next_payment())
    assert len(over_local(port)) == 1
    assert over_local(port).isdisjoint(before)
