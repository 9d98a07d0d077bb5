"""The audit and the check-up, over gRPC: what they find, and what they must not call different."""

from collections.abc import AsyncIterator

import pytest

from coordinator.log.records import DecisionRecord, EndRecord, LoggedBranch
from coordinator.protocol.states import Decision, Outcome
from handfast.catalog import HandfastFault
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.edge import Edge, begin, serving
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
    async with serving(accounts, ledger, open_transactions_max=10) as edge:
        yield edge


async def audit(edge: Edge, since_unix_ms: int = 0) -> a.AuditResponse:
    return await edge.admin.Audit(a.AuditRequest(since_unix_ms=since_unix_ms))


async def committed(edge: Edge, *participants: Scripted) -> str:
    """A committed transaction whose end is in the log."""
    ask = edge.framed()
    gtrid = await begin(ask, *participants)
    assert (await ask(c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_COMMITTED
    await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
    return gtrid


async def logged(edge: Edge, decision: Decision, ended: Outcome | None = None, evidence: str = "") -> str:
    """A transaction that is only in the log, with one branch at the ledger."""
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
    record = DecisionRecord(gtrid, decision, (LoggedBranch("ledger.one", "xid"),), 1000)
    edge.log.decide(record, lambda standing: None)
    if ended is not None:
        edge.log.end(EndRecord(gtrid, ended, 1001, evidence))
    await eventually(lambda: edge.log.lookup(gtrid) is not None)
    return gtrid


# -- the audit -----------------------------------------------------------------------------------------------------


async def test_what_every_resource_confirms_is_atomic(edge: Edge, accounts: Scripted, ledger: Scripted) -> None:
    await committed(edge, accounts, ledger)
    await committed(edge, accounts, ledger)
    response = await audit(edge)
    assert response == a.AuditResponse(verdict="atomic", transactions=2, branches=4)


async def test_a_branch_that_ended_against_the_commit_differs(edge: Edge, accounts: Scripted, ledger: Scripted) -> None:
    gtrid = await committed(edge, accounts, ledger)
    ledger.ends[gtrid, "ledger.one"] = t.BRANCH_STATE_ABORTED
    response = await audit(edge)
    assert response.verdict == "differs"
    (found,) = response.differences
    assert (found.gtrid, found.bqual, found.resource) == (gtrid, "ledger.one", "rolled back")
    assert (found.log, found.evidence) == ("commit, acknowledged", "its own books")


async def test_a_branch_that_ended_against_the_abort_differs(edge: Edge, accounts: Scripted, ledger: Scripted) -> None:
    """An abort has no record; memory's word is held against the resource's."""
    ask = edge.framed()
    gtrid = await begin(ask, ledger, accounts, timeout_ms=300)
    accounts.answers[p.PrepareRequest] = lambda request: None  # the deadline aborts, when the ledger has voted yes
    await ask(c.CommitRequest(gtrid=gtrid))
    ledger.ends[gtrid, "ledger.one"] = t.BRANCH_STATE_COMMITTED
    response = await audit(edge)
    assert response.verdict == "differs"
    (found,) = response.differences
    assert (found.gtrid, found.bqual, found.log, found.resource) == (gtrid, "ledger.one", "abort", "committed")


async def test_a_branch_that_is_in_doubt_makes_it_pending_and_not_different(edge: Edge, ledger: Scripted) -> None:
    gtrid = await logged(edge, Decision.COMMIT)
    ledger.prepare(gtrid)
    response = await audit(edge)
    assert (response.verdict, response.in_doubt, len(response.differences)) == ("pending", 1, 0)


async def test_a_branch_that_acknowledged_and_is_still_prepared_differs(edge: Edge, ledger: Scripted) -> None:
    """citus 3780: commit reported while a branch is still prepared."""
    gtrid = await logged(edge, Decision.COMMIT, Outcome.COMMITTED)
    ledger.prepare(gtrid)
    await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
    response = await audit(edge)
    assert (response.verdict, response.in_doubt) == ("differs", 1)
    assert response.differences[0].resource == "still prepared"


async def test_an_orphan_is_named_and_makes_it_pending(edge: Edge, ledger: Scripted) -> None:
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
    ledger.prepare(gtrid)
    response = await audit(edge)
    assert (response.verdict, response.in_doubt) == ("pending", 1)
    (found,) = response.differences
    assert (found.gtrid, found.resource) == (gtrid, "prepared (an orphan)")
    assert f"handfast resolve {gtrid} --rollback" in found.mend


async def test_a_branch_of_a_life_that_the_log_has_never_seen_differs(edge: Edge, ledger: Scripted) -> None:
    """The log may be an old copy: what it would presume aborted may have committed elsewhere."""
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-1-1-1"
    ledger.prepare(gtrid)
    response = await audit(edge)
    assert response.verdict == "differs"
    (found,) = response.differences
    assert (found.gtrid, "its log has never seen" in found.log) == (gtrid, True)
    assert "find the newer log" in found.mend


async def test_another_coordinators_branch_is_named_and_changes_no_verdict(edge: Edge, ledger: Scripted) -> None:
    ledger.prepare("zzzzzzzz-1-1-1")
    response = await audit(edge)
    assert (response.verdict, response.in_doubt) == ("atomic", 0)
    (found,) = response.differences
    assert (found.gtrid, found.log) == ("zzzzzzzz-1-1-1", "not ours: coordinator zzzzzzzz made it")


async def test_a_branch_that_ends_while_the_audit_looks_is_no_orphan(edge: Edge, ledger: Scripted) -> None:
    """citus 1030, 2095: what is just being finished is taken for what nobody will ever finish."""
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
    ledger.prepare(gtrid)

    def recover_once(request: p.RecoverRequest) -> p.RecoverResponse:
        listed = p.RecoverResponse(branches=ledger.prepared.values())
        ledger.prepared.clear()
        return listed

    ledger.answers[p.RecoverRequest] = recover_once
    assert await audit(edge) == a.AuditResponse(verdict="atomic")


async def test_a_branch_of_an_active_transaction_is_no_orphan(edge: Edge, accounts: Scripted, ledger: Scripted) -> None:
    gtrid = await begin(edge.framed(), accounts, ledger)
    ledger.prepare(gtrid)
    response = await audit(edge)
    assert (response.verdict, response.in_doubt, len(response.differences)) == ("pending", 1, 0)


async def test_a_transaction_decided_while_the_audit_looks_is_no_orphan(edge: Edge, ledger: Scripted) -> None:
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
    ledger.prepare(gtrid)
    looks = 0

    def decide_at_the_second_look(request: p.RecoverRequest) -> p.RecoverResponse:
        nonlocal looks
        looks += 1
        if looks == 2:
            record = DecisionRecord(gtrid, Decision.COMMIT, (LoggedBranch("ledger.one", "xid"),), 1000)
            edge.log.decide(record, lambda standing: None)
        return p.RecoverResponse(branches=ledger.prepared.values())

    ledger.answers[p.RecoverRequest] = decide_at_the_second_look
    response = await audit(edge)
    assert (response.verdict, len(response.differences)) == ("pending", 0)


async def test_a_recorded_heuristic_outcome_differs_with_its_evidence(edge: Edge) -> None:
    gtrid = await logged(edge, Decision.COMMIT, Outcome.HEURISTIC_MIXED, "ledger.one: ann did it")
    await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
    response = await audit(edge)
    assert response.verdict == "differs"
    assert response.differences[0].evidence == "ledger.one: ann did it"


async def test_what_acknowledged_once_and_can_not_be_proved_any_more_is_counted_only(edge: Edge) -> None:
    gtrid = await logged(edge, Decision.COMMIT, Outcome.COMMITTED)
    await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
    response = await audit(edge)
    assert (response.verdict, response.unproved) == ("atomic", 1)


async def test_an_acknowledged_commit_that_its_server_has_not_come_to_is_lost_and_differs(
    edge: Edge, ledger: Scripted
) -> None:
    """The database was restored to an earlier point than the commit."""
    gtrid = await logged(edge, Decision.COMMIT, Outcome.COMMITTED)
    await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
    evidence = "pg_xact_status(9): the server has not come to that id yet"
    ends = [p.BranchEnd(gtrid=gtrid, bqual="ledger.one", evidence=evidence, lost=True)]
    ledger.answers[p.InspectRequest] = lambda request: p.InspectResponse(ends=ends)
    response = await audit(edge)
    assert (response.verdict, response.unproved) == ("differs", 0)
    (found,) = response.differences
    assert (found.gtrid, found.bqual, found.evidence) == (gtrid, "ledger.one", evidence)
    assert found.resource == "lost: it does not hold the commit"


async def test_what_never_acknowledged_and_can_not_be_proved_is_pending(edge: Edge) -> None:
    await logged(edge, Decision.COMMIT)
    response = await audit(edge)
    assert (response.verdict, response.unproved) == ("pending", 1)


async def test_only_what_was_decided_since_then_is_looked_at(edge: Edge) -> None:
    await logged(edge, Decision.COMMIT)
    assert (await audit(edge, since_unix_ms=1000)).transactions == 1
    assert await audit(edge, since_unix_ms=1001) == a.AuditResponse(verdict="atomic")


async def test_branches_are_asked_for_in_chunks(
    edge: Edge, accounts: Scripted, ledger: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.runtime.audit.CHUNK", 2)
    for _ in range(3):
        await committed(edge, accounts, ledger)
    assert (await audit(edge)).branches == 6
    assert [len(r.branches) for r in ledger.asked if isinstance(r, p.InspectRequest)] == [2, 1]


@pytest.mark.parametrize("how", ["away", "without Inspect"])
async def test_who_can_not_be_asked_makes_it_pending(
    edge: Edge, accounts: Scripted, ledger: Scripted, how: str
) -> None:
    await committed(edge, accounts, ledger)
    await ledger.stop()
    plain = Plain("ledger")
    if how == "without Inspect":
        plain.port = ledger.port
        await plain.start()
    response = await audit(edge)
    assert response.verdict == "pending"
    assert [finding.subject for finding in response.unreachable] == ["ledger"]
    if how == "without Inspect":
        await plain.stop()


# -- the check-up --------------------------------------------------------------------------------------------------


async def diagnose(edge: Edge) -> dict[tuple[str, str], p.Finding]:
    """The findings, by subject and check."""
    findings = (await edge.admin.Diagnose(a.DiagnoseRequest())).findings
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities, reverse=True)
    return {(finding.subject, finding.check): finding for finding in findings}


async def test_a_healthy_coordinator_has_nothing_but_good_news_but_for_its_memory_log(edge: Edge) -> None:
    findings = await diagnose(edge)
    bad = {key for key, finding in findings.items() if finding.severity != p.SEVERITY_OK}
    assert bad == {("coordinator", "log")}
    assert findings.keys() >= {("coordinator", check) for check in ("force", "clock", "open transactions")}
    assert findings.keys() >= {("accounts", "reachable"), ("ledger", "reachable")}


async def test_a_log_older_than_the_branches_is_an_error(edge: Edge, ledger: Scripted) -> None:
    gtrid = f"{edge.server.requests.gtrids.coordinator_id}-1-1-1"
    ledger.prepare(gtrid)
    finding = (await diagnose(edge))["coordinator", "log's age"]
    assert (finding.severity, gtrid in finding.found) == (p.SEVERITY_ERROR, True)
    assert "find the newer log" in finding.mend


async def test_what_another_coordinator_has_left_for_long_is_a_warning(edge: Edge, ledger: Scripted) -> None:
    ledger.prepare("zzzzzzzz-1-1-1", age_ms=1_000)
    assert ("coordinator", "others' branches") not in await diagnose(edge)
    ledger.prepare("zzzzzzzz-1-1-2", age_ms=120_000)
    finding = (await diagnose(edge))["coordinator", "others' branches"]
    assert (finding.severity, "zzzzzzzz-1-1-2" in finding.found) == (p.SEVERITY_WARNING, True)
    assert "handfast indoubt" in finding.mend


async def test_a_participant_s_findings_are_passed_on(edge: Edge, ledger: Scripted) -> None:
    ledger.findings = [p.Finding(check="slots", severity=p.SEVERITY_ERROR, found="0 free", mend="Raise it.")]
    found = (await diagnose(edge))["ledger", "slots"]
    assert (found.severity, found.mend) == (p.SEVERITY_ERROR, "Raise it.")


async def test_a_clock_that_disagrees_is_found(edge: Edge, ledger: Scripted) -> None:
    ledger.clock_unix_ms = 1000
    found = (await diagnose(edge))["ledger", "clock"]
    assert found.severity == p.SEVERITY_WARNING


async def test_an_unreachable_participant_is_an_error_and_a_warning_when_another_serves(
    edge: Edge, ledger: Scripted
) -> None:
    await ledger.stop()
    assert (await diagnose(edge))["ledger", "reachable"].severity == p.SEVERITY_ERROR
    second = Scripted("ledger", "two")
    await second.start()
    await edge.register(second)
    findings = (await edge.admin.Diagnose(a.DiagnoseRequest())).findings
    reachable = [one.severity for one in findings if (one.subject, one.check) == ("ledger", "reachable")]
    assert reachable == [p.SEVERITY_WARNING, p.SEVERITY_OK]
    await second.stop()


async def test_a_nearly_full_table_of_transactions_is_found(edge: Edge) -> None:
    ask = edge.framed()
    for _ in range(8):
        await begin(ask)
    assert (await diagnose(edge))["coordinator", "open transactions"].severity == p.SEVERITY_WARNING
    for _ in range(2):
        await begin(ask)
    assert (await diagnose(edge))["coordinator", "open transactions"].severity == p.SEVERITY_ERROR


async def test_a_transaction_that_was_set_aside_is_an_error(edge: Edge) -> None:
    gtrid = await begin(edge.framed())
    running = edge.server.requests.driver.find(gtrid)
    assert running is not None
    running.broken = "a defect"
    found = (await diagnose(edge))["coordinator", "set aside"]
    assert (found.severity, found.found) == (p.SEVERITY_ERROR, f"{gtrid}: a defect")


async def test_a_commit_that_is_stuck_is_named(edge: Edge, accounts: Scripted, ledger: Scripted) -> None:
    ledger.answers[p.ParticipantCommitRequest] = lambda request: HandfastFault("INTERNAL", problem="no")
    ask = edge.framed()
    gtrid = await begin(ask, accounts, ledger)
    await ask(c.CommitRequest(gtrid=gtrid, wait=c.WAIT_DECIDED))
    running = edge.server.requests.driver.find(gtrid)
    assert running is not None
    running.decided_unix_ms -= 120_000
    found = (await diagnose(edge))["coordinator", "unfinished transactions"]
    assert found.severity == p.SEVERITY_WARNING
    assert gtrid in found.found
    assert "ledger.one" in found.found
