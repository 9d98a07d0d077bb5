"""What an operator asks, over gRPC: reports on transactions, branches in doubt and participants, and interventions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.rpc.watching import Watcher
from handfast.frames import failure_of_rpc
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.edge import Ask, Edge, begin, operation, serving
from tests.integration.coordinator.participants import Plain, Scripted
from tests.waiting import eventually


@pytest.fixture
def accounts() -> Scripted:
    return Scripted("accounts")


@pytest.fixture
def ledger() -> Scripted:
    return Scripted("ledger")


@pytest.fixture
async def edge(accounts: Scripted, ledger: Scripted) -> AsyncIterator[Edge]:
    # Retries far apart: what failed once waits, until somebody wants it sent.
    async with serving(accounts, ledger, apply_wait_s=0.1, retry_base_s=30, open_transactions_max=10) as edge:
        yield edge


@pytest.fixture
def ask(edge: Edge) -> Ask:
    return edge.framed()


async def refused(call: Any) -> str:
    """Make a call that must be refused, and return the error's code."""
    try:
        response = await call
    except grpc.aio.AioRpcError as problem:
        return failure_of_rpc(problem, "the coordinator").code
    raise AssertionError(f"not refused: {response}")


async def committing(ask: Ask, accounts: Scripted, ledger: Scripted) -> str:
    """A transaction that is decided commit and whose Commit failed at the ledger."""
    ledger.answers[p.ParticipantCommitRequest] = lambda request: p.RecoverResponse()  # no answer to a Commit
    gtrid = await begin(ask, accounts, ledger)
    response = await ask(c.CommitRequest(gtrid=gtrid))
    assert [branch.bqual for branch in response.branches] == ["ledger.one"]
    del ledger.answers[p.ParticipantCommitRequest]
    return gtrid


# -- status and transactions ---------------------------------------------------------------------------------------


async def test_the_status_counts_what_happened_and_what_is_held(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    await ask(c.CommitRequest(gtrid=await begin(ask, accounts, ledger)))
    await ask(c.ExecuteRequest(operations=[operation("accounts")]))
    await begin(ask, accounts)
    status = await edge.admin.GetStatus(a.GetStatusRequest())
    assert (status.coordinator_id, status.epoch) == (edge.server.requests.gtrids.coordinator_id, 1)
    assert dict(status.transactions_by_state) == {"ACTIVE": 1}
    counted = {name: status.counters[name] for name in ("begun", "committed", "one_phase", "aborted")}
    assert counted == {"begun": 3, "committed": 2, "one_phase": 1, "aborted": 0}
    assert status.counters["log_forces"] > 0
    assert "swept_orphans" in status.counters
    assert (status.log, status.stopping) == (":memory:", False)
    assert status.version


async def test_transactions_are_listed_newest_first_and_the_rest_is_counted(
    edge: Edge, ask: Ask, accounts: Scripted
) -> None:
    gtrids = [await begin(ask, accounts) for _ in range(4)]
    await ask(c.RollbackRequest(gtrid=gtrids[0]))
    response = await edge.admin.ListTransactions(a.ListTransactionsRequest(limit=3))
    assert (len(response.transactions), response.more) == (3, 1)
    begun = [one.begun_unix_ms for one in response.transactions]
    assert begun == sorted(begun, reverse=True)


async def test_transactions_are_listed_by_state(edge: Edge, ask: Ask, accounts: Scripted) -> None:
    active, aborted = await begin(ask, accounts), await begin(ask, accounts)
    await ask(c.RollbackRequest(gtrid=aborted))
    request = a.ListTransactionsRequest(states=[t.TRANSACTION_STATE_ABORTED])
    assert [one.gtrid for one in (await edge.admin.ListTransactions(request)).transactions] == [aborted]
    request = a.ListTransactionsRequest(states=[t.TRANSACTION_STATE_ACTIVE])
    assert [one.gtrid for one in (await edge.admin.ListTransactions(request)).transactions] == [active]
    request = a.ListTransactionsRequest(states=[t.TRANSACTION_STATE_UNSPECIFIED])
    assert await refused(edge.admin.ListTransactions(request)) == "FIELD_INVALID"


async def test_what_only_the_log_remembers_is_listed_and_shown(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await begin(ask, accounts, ledger)
    await ask(c.CommitRequest(gtrid=gtrid))
    await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
    edge.server.requests.driver.finished.clear()
    (listed,) = (await edge.admin.ListTransactions(a.ListTransactionsRequest())).transactions
    assert (listed.gtrid, listed.outcome) == (gtrid, t.OUTCOME_COMMITTED)
    shown = (await edge.admin.GetTransaction(a.GetTransactionRequest(gtrid=gtrid))).transaction
    assert [entry.event for entry in shown.history] == ["Begun", "DecisionStood", "Ended"]
    assert (listed.recovered, shown.recovered, shown.one_shot) == (True, True, False)


async def test_the_history_tells_votes_decision_and_ends(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await begin(ask, accounts, ledger)
    await ask(c.CommitRequest(gtrid=gtrid))
    shown = (await edge.admin.GetTransaction(a.GetTransactionRequest(gtrid=gtrid))).transaction
    events = [(entry.event, entry.bqual) for entry in shown.history]
    assert events[0] == ("Begun", "")
    assert events[1:4] == [("Enlisted", "accounts.one"), ("Enlisted", "ledger.one"), ("CommitRequested", "")]
    assert set(events[4:6]) == {("VoteReceived", "accounts.one"), ("VoteReceived", "ledger.one")}
    assert events[6] == ("DecisionStood", "")
    assert set(events[7:]) == {("BranchEnded", "accounts.one"), ("BranchEnded", "ledger.one")}
    assert shown.history[4].detail == f"yes: proof xid of {gtrid}"


async def test_an_unknown_transaction_can_not_be_shown(edge: Edge) -> None:
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-9-9-9"
    show = edge.admin.GetTransaction
    assert await refused(show(a.GetTransactionRequest(gtrid=gtrid))) == "TRANSACTION_UNKNOWN"
    assert await refused(show(a.GetTransactionRequest(gtrid="nonsense"))) == "GTRID_MALFORMED"


# -- watching ------------------------------------------------------------------------------------------------------


async def test_a_watcher_sees_every_change_of_state(edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    watching: Any = edge.admin.WatchTransactions(a.WatchTransactionsRequest())
    await watching.initial_metadata()
    gtrid = await begin(ask, accounts, ledger)
    await ask(c.CommitRequest(gtrid=gtrid))
    seen = [(await watching.read()).transaction for _ in range(4)]
    watching.cancel()
    assert {one.gtrid for one in seen} == {gtrid}
    assert [one.state for one in seen] == [
        t.TRANSACTION_STATE_ACTIVE,
        t.TRANSACTION_STATE_PREPARING,
        t.TRANSACTION_STATE_COMMITTING,
        t.TRANSACTION_STATE_COMMITTED,
    ]
    await eventually(lambda: edge.server.requests.driver.observers == [])


async def test_a_watcher_of_one_transaction_sees_no_other(edge: Edge, ask: Ask, accounts: Scripted) -> None:
    gtrid = await begin(ask, accounts)
    watching: Any = edge.admin.WatchTransactions(a.WatchTransactionsRequest(gtrid=gtrid))
    await watching.initial_metadata()
    await ask(c.RollbackRequest(gtrid=await begin(ask, accounts)))
    await ask(c.RollbackRequest(gtrid=gtrid))
    change = await watching.read()
    watching.cancel()
    assert (change.transaction.gtrid, change.transaction.state) == (gtrid, t.TRANSACTION_STATE_ABORTING)


async def test_a_slow_watcher_is_told_how_much_it_missed_and_sees_the_newest(
    edge: Edge, ask: Ask, accounts: Scripted
) -> None:
    stop = asyncio.Event()
    with Watcher(edge.server.requests.driver, queue_max=2) as watcher:
        gtrid = await begin(ask, accounts)
        await ask(c.CommitRequest(gtrid=gtrid))
        await begin(ask)
        changes = watcher.changes(stop)
        first, second = await anext(changes), await anext(changes)
    assert (first.skipped, first.transaction.state) == (2, t.TRANSACTION_STATE_COMMITTED)
    assert (second.skipped, second.transaction.state) == (0, t.TRANSACTION_STATE_ACTIVE)


async def test_watching_ends_when_the_server_stops(edge: Edge) -> None:
    watching: Any = edge.admin.WatchTransactions(a.WatchTransactionsRequest())
    await watching.initial_metadata()
    await edge.server.stop()
    assert [change async for change in watching] == []


# -- branches in doubt ---------------------------------------------------------------------------------------------


async def in_doubt(edge: Edge) -> a.InDoubtBranch:
    """The one branch in doubt."""
    (found,) = (await edge.admin.ListInDoubt(a.ListInDoubtRequest())).branches
    return found


async def test_an_undelivered_commit_is_explained_with_its_retry(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await committing(ask, accounts, ledger)
    found = await in_doubt(edge)
    assert (found.branch.gtrid, found.resource, found.state) == (gtrid, "ledger", t.TRANSACTION_STATE_COMMITTING)
    assert "commit is decided and was sent 1 time(s)" in found.why
    assert "will be retried in" in found.why
    assert found.command == f"handfast resolve {gtrid} --retry-now"


async def test_a_branch_whose_transaction_awaits_votes_needs_nobody(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    ledger.answers[p.PrepareRequest] = lambda request: None
    gtrid = await begin(ask, accounts, ledger)
    waiting = asyncio.create_task(ask(c.CommitRequest(gtrid=gtrid)))
    await eventually(lambda: (gtrid, "accounts.one") in accounts.prepared)
    found = await in_doubt(edge)
    assert found.state == t.TRANSACTION_STATE_PREPARING
    assert "the votes of ledger.one are awaited; nothing to do" in found.why
    assert found.command == f"handfast resolve {gtrid} --rollback"
    waiting.cancel()


async def test_an_orphan_is_called_one(edge: Edge, ledger: Scripted) -> None:
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
    ledger.prepare(gtrid)
    found = await in_doubt(edge)
    assert found.state == t.TRANSACTION_STATE_UNSPECIFIED
    assert "an orphan" in found.why
    assert found.command == f"handfast resolve {gtrid} --rollback"


async def test_a_branch_from_the_future_is_left_to_a_person(edge: Edge, ledger: Scripted) -> None:
    """citus 8855: a node that inherits another's identity rolls back its commits."""
    ledger.prepare(f"{edge.server.requests.gtrids.coordinator_id}-9-1-1")
    found = await in_doubt(edge)
    assert "the log is probably an old copy" in found.why
    assert "resolve" not in found.command


async def test_a_branch_of_a_life_that_the_log_lacks_is_left_to_a_person(edge: Edge, ledger: Scripted) -> None:
    """The first life on a copy of the log has the epoch of the first one that was lost; its names are newer."""
    ledger.prepare(f"{edge.server.requests.gtrids.coordinator_id}-1-1-1")
    found = await in_doubt(edge)
    assert "a life of this coordinator that its log has never seen" in found.why
    assert "resolve" not in found.command


async def test_what_is_of_no_coordinator_or_another_resource_is_not_listed(edge: Edge, ledger: Scripted) -> None:
    ledger.prepare("not a gtrid at all")
    ledger.prepare(f"{edge.server.requests.gtrids.coordinator_id}-0-1-1", bqual="accounts.one")
    ledger.prepare("zzzzzzzz-1-1-1", bqual="accounts.one")
    assert not (await edge.admin.ListInDoubt(a.ListInDoubtRequest())).branches


async def test_another_coordinators_branch_is_listed_last_as_not_ours_with_both_statements(
    edge: Edge, ledger: Scripted
) -> None:
    """After a log was lost, nobody else will ever name them."""
    ledger.prepare("zzzzzzzz-1-1-1", age_ms=5_000)
    ours = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
    ledger.prepare(ours)
    listed = (await edge.admin.ListInDoubt(a.ListInDoubtRequest())).branches
    assert [(one.branch.gtrid, one.foreign) for one in listed] == [(ours, False), ("zzzzzzzz-1-1-1", True)]
    assert listed[1].why.startswith("NOT OURS: coordinator zzzzzzzz made it")
    gid = "handfast_zzzzzzzz-1-1-1_ledger.one"
    assert listed[1].command == f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'"
    assert await edge.server.recovery.sweep() == 1  # our own orphan
    assert ("zzzzzzzz-1-1-1", "ledger.one") in ledger.prepared


async def test_a_branch_whose_participant_is_down_is_told_of_from_memory(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await committing(ask, accounts, ledger)
    known = edge.server.requests.show(gtrid)
    assert known is not None
    await ledger.stop()
    response = await edge.admin.ListInDoubt(a.ListInDoubtRequest())
    assert [finding.subject for finding in response.unreachable] == ["ledger"]
    (found,) = response.branches
    assert (found.branch.gtrid, found.branch.bqual, found.not_asked) == (gtrid, "ledger.one", True)
    assert (found.branch.prepared_unix_ms, found.state) == (known.decided_unix_ms, t.TRANSACTION_STATE_COMMITTING)
    assert "its resource can't be asked" in found.why
    assert "commit is decided and was sent" in found.why
    assert found.command == f"handfast resolve {gtrid} --retry-now"


async def test_who_can_not_be_asked_is_named(edge: Edge, accounts: Scripted) -> None:
    await accounts.stop()
    (finding,) = (await edge.admin.ListInDoubt(a.ListInDoubtRequest())).unreachable
    assert (finding.subject, finding.severity) == ("accounts", p.SEVERITY_ERROR)
    assert finding.mend


# -- participants --------------------------------------------------------------------------------------------------


async def test_participants_are_asked_whether_they_are_there(edge: Edge, accounts: Scripted, ledger: Scripted) -> None:
    plain = Plain("stock")
    await plain.start()
    await edge.register(plain, operations=("reserve",))
    await ledger.stop()
    infos = (await edge.admin.ListParticipants(a.ListParticipantsRequest())).participants
    assert [(one.resource, one.reachable, one.batched) for one in infos] == [
        ("accounts", True, True),
        ("ledger", False, False),
        ("stock", True, False),
    ]
    assert infos[1].last_error
    assert list(infos[2].operations) == ["reserve"]
    await plain.stop()


# -- resolving -----------------------------------------------------------------------------------------------------


async def test_retry_now_sends_what_waits_and_is_recorded(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await committing(ask, accounts, ledger)
    request = a.ResolveRequest(gtrid=gtrid, action=a.RESOLVE_ACTION_RETRY_NOW, operator="ann", reason="it is back")
    response = await edge.admin.Resolve(request)
    assert response.transaction.state == t.TRANSACTION_STATE_COMMITTED
    assert ledger.ends == {(gtrid, "ledger.one"): t.BRANCH_STATE_COMMITTED}
    shown = (await edge.admin.GetTransaction(a.GetTransactionRequest(gtrid=gtrid))).transaction
    (resolved,) = [entry for entry in shown.history if entry.event == "Resolved"]
    assert resolved.detail == "ann: retry-now: it is back (committing → committed)"


async def test_a_resolution_against_the_decision_is_refused_without_heuristic(
    edge: Edge, ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await committing(ask, accounts, ledger)
    request = a.ResolveRequest(gtrid=gtrid, action=a.RESOLVE_ACTION_ROLLBACK)
    assert await refused(edge.admin.Resolve(request)) == "RESOLUTION_CONTRADICTS"
    assert ledger.ends == {}


async def test_a_resolution_that_names_nothing_to_do_is_refused(edge: Edge, ask: Ask, accounts: Scripted) -> None:
    request = a.ResolveRequest(gtrid=await begin(ask, accounts))
    assert await refused(edge.admin.Resolve(request)) == "FIELD_INVALID"


async def test_a_defect_in_a_report_is_internal_and_logged(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(edge.log, "counters", broken)
    assert await refused(edge.admin.GetStatus(a.GetStatusRequest())) == "INTERNAL"
    assert "ZeroDivisionError: a defect" in caplog.text
