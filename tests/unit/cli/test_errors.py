"""What goes wrong: words that help, an exit code for scripts, and never a traceback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest

from handfast.catalog import ENTRIES, HandfastFault
from tests.unit.cli.conftest import RunCommand
from tests.unit.cli.fake_admin import FakeAdmin
from tests.unit.cli.sample_answers import GTRID

ASKING = (
    "status",
    "doctor",
    "indoubt",
    "participants",
    "operations",
    "audit",
    "transactions list",
    "transactions watch",
)


@pytest.fixture
def dead_address() -> Iterator[str]:
    """An address that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("command", ASKING)
async def test_an_unreachable_coordinator_is_named_with_how_to_start_it(
    handfast: RunCommand, dead_address: str, command: str
) -> None:
    ran = await handfast(*command.split(), "--address", dead_address)
    assert ran.code == 3
    assert ran.out == ""
    assert f"No coordinator answers at {dead_address}: Connection refused" in ran.err
    assert f"handfast serve --address {dead_address}" in ran.err
    assert "Traceback" not in ran.err


async def test_a_coordinator_that_does_not_answer_is_given_up_in_time(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["GetStatus"] = None
    ran = await handfast("status", "--timeout", "0.05")
    assert ran.code == 3
    assert f"{admin.address} did not answer within 0.05 s" in ran.err
    assert admin.time_left_s is not None
    assert admin.time_left_s < 1.0  # the wire rounds it up a little; without --timeout it would be seconds


async def test_a_server_that_is_no_coordinator_is_told_apart_from_a_dead_one(handfast: RunCommand) -> None:
    other = grpc.aio.server()
    address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    await other.start()
    try:
        ran = await handfast("status", "--address", address)
    finally:
        await other.stop(None)
    assert ran.code == 3
    assert f"What answers at {address} is no Handfast coordinator" in ran.err


async def test_a_refusal_is_told_in_the_coordinators_own_words(handfast: RunCommand, admin: FakeAdmin) -> None:
    fault = HandfastFault("TRANSACTION_UNKNOWN", gtrid=GTRID)
    admin.answers["GetTransaction"] = fault
    ran = await handfast("transactions", "show", GTRID)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        fault.message,
        fault.mend,
        "(TRANSACTION_UNKNOWN; `handfast explain TRANSACTION_UNKNOWN`)",
    ]


async def test_a_coordinator_that_is_stopping_was_reached(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["Audit"] = HandfastFault("COORDINATOR_STOPPING")
    assert (await handfast("audit")).code == 1


async def test_a_failure_without_an_entry_is_passed_on(handfast: RunCommand, admin: FakeAdmin) -> None:
    admin.answers["GetStatus"] = grpc.StatusCode.INTERNAL
    ran = await handfast("status")
    assert ran.code == 1
    assert "failed without naming an error: INTERNAL, disk on fire" in ran.err


async def test_an_error_is_the_json_document_when_json_was_asked_for(handfast: RunCommand, admin: FakeAdmin) -> None:
    fault = HandfastFault("TRANSACTION_UNKNOWN", gtrid=GTRID)
    admin.answers["GetTransaction"] = fault
    ran = await handfast("transactions", "show", GTRID, "--json")
    named = {"code": fault.code, "message": fault.message, "mend": fault.mend, "gtrid": GTRID, "bqual": ""}
    assert json.loads(ran.out) == {"error": named}
    assert ran.err == ""


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("frobnicate",), "Unknown command"),
        (("status", "--frobnicate"), "Unknown option"),
        (("transactions", "show"), "requires an argument"),
        (("transactions", "list", "--state", "dreaming"), "dreaming"),
        (("resolve", GTRID), "name one of --commit, --rollback, --retry-now and --forget"),
        (("resolve", GTRID, "--commit", "--rollback"), "name one of --commit, --rollback, --retry-now and --forget"),
        (("resolve", GTRID, "--forget", "--heuristic", "--yes"), "--heuristic goes with --commit or --rollback"),
        (("status", "--client-cert", "cert.pem"), "a client certificate needs --tls-ca"),
        (("status", "--tls-ca", "ca.pem", "--client-cert", "c.pem"), "--client-cert and --client-key go together"),
        (("status", "--tls-ca", "absent.pem"), "--tls-ca absent.pem can't be read"),
        (("explain", "NO_SUCH_CODE"), "The error catalog has no entry 'NO_SUCH_CODE'"),
    ],
)
async def test_a_wrong_command_line_leaves_with_2_and_asks_nobody(
    handfast: RunCommand, admin: FakeAdmin, tokens: tuple[str, ...], words: str
) -> None:
    ran = await handfast(*tokens)
    assert ran.code == 2
    assert words in " ".join(ran.err.replace("│", " ").split())
    assert admin.asked == []


async def test_no_command_shows_the_help(handfast: RunCommand) -> None:
    ran = await handfast()
    assert ran.code == 0
    assert "Usage: handfast COMMAND" in ran.out


async def test_explain_prints_an_entry_however_its_code_is_written(handfast: RunCommand) -> None:
    ran = await handfast("explain", "log-locked")
    assert ran.code == 0
    assert "The decision log <path> is in use by another coordinator (<holder>)." in ran.out
    assert "One log serves one coordinator" in ran.out


async def test_explain_without_a_code_lists_every_entry(handfast: RunCommand) -> None:
    out = (await handfast("explain")).out
    assert [code for code in ENTRIES if code not in out] == []


def test_the_process_leaves_with_the_commands_exit_code(dead_address: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "coordinator", "status", "--json", "--address", dead_address],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 3
    assert json.loads(finished.stdout)["error"]["code"] == "COORDINATOR_UNREACHABLE"
    assert finished.stderr == ""


def test_a_reader_that_has_gone_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "coordinator", "explain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as explain:
        assert explain.stdout is not None
        assert explain.stderr is not None
        explain.stdout.close()
        assert (explain.stderr.read(), explain.wait(60)) == (b"", 0)
