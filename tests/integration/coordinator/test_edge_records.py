"""What is answered about a transaction that memory has dropped: what its record says, and nothing that it forbids."""

from coordinator.log.memory import MemoryLog
from coordinator.log.records import DecisionRecord, LoggedBranch
from coordinator.protocol.states import Decision
from coordinator.runtime.entropy import SeededEntropy
from handfast.clock import unix_ms
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.edge import begin, refusal, serving
from tests.integration.coordinator.participants import Scripted
from tests.waiting import eventually


async def test_a_commit_whose_end_is_not_written_yet_is_never_presumed_aborted() -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    async with serving(accounts, ledger, finished_kept_max=0) as edge:
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger)
        await ask(c.CommitRequest(gtrid=gtrid, branches=2))
        record = edge.log.lookup(gtrid)
        assert record is not None
        assert record.end is None
        assert (await ask(c.InquireRequest(gtrid=gtrid, branches=2))).standing == c.STANDING_COMMIT
        assert (await ask(c.CommitRequest(gtrid=gtrid, branches=2))).outcome == t.OUTCOME_COMMITTED


async def test_a_forgotten_commit_is_unknown_and_never_presumed_aborted() -> None:
    accounts, ledger = Scripted("accounts"), Scripted("ledger")
    async with serving(accounts, ledger) as edge:
        ask = edge.framed()
        gtrid = await begin(ask, accounts, ledger)
        await ask(c.CommitRequest(gtrid=gtrid))
        await eventually(lambda: (known := edge.log.lookup(gtrid)) is not None and known.end is not None)
        await edge.admin.Resolve(a.ResolveRequest(gtrid=gtrid, action=a.RESOLVE_ACTION_FORGET))
        assert (await ask(c.InquireRequest(gtrid=gtrid, bqual="accounts.one"))).standing == c.STANDING_UNKNOWN
        assert (await refusal(ask, c.CommitRequest(gtrid=gtrid, branches=2))).code == "TRANSACTION_UNKNOWN"


async def test_a_recorded_abort_is_answered_as_one() -> None:
    async with serving() as edge:
        gtrid = f"{edge.server.requests.gtrids.coordinator_id}-0-1-1"
        edge.log.decide(DecisionRecord(gtrid, Decision.ABORT, (), 1), lambda standing: None)
        await eventually(lambda: edge.log.lookup(gtrid) is not None)
        response = await edge.framed()(c.InquireRequest(gtrid=gtrid))
        assert (response.standing, response.outcome) == (c.STANDING_ABORT, t.OUTCOME_ABORTED)


async def test_a_restart_takes_up_what_is_decided_before_it_answers_anybody() -> None:
    accounts = Scripted("accounts")
    accounts.answers[p.ParticipantCommitRequest] = lambda request: None
    log = MemoryLog(make_coordinator_id=SeededEntropy(1).coordinator_id, on_broken=lambda broken: None, unix_ms=unix_ms)
    identity = await log.open()
    gtrid = f"{identity.coordinator_id}-1-1-1"
    branches = (LoggedBranch("accounts.one", "xid"),)
    log.decide(DecisionRecord(gtrid, Decision.COMMIT, branches, 1), lambda standing: None)
    await log.close()
    async with serving(accounts, log=log) as edge:
        ask = edge.framed()
        assert (await ask(c.InquireRequest(gtrid=gtrid, branches=2))).standing == c.STANDING_COMMIT
        await eventually(lambda: accounts.count(p.ParticipantCommitRequest) == 1)
        (told,) = [request for request in accounts.asked if isinstance(request, p.ParticipantCommitRequest)]
        assert (told.gtrid, told.proof) == (gtrid, "xid")


async def test_one_record_that_can_not_be_taken_up_does_not_keep_the_coordinator_from_starting() -> None:
    """btm 59: one bad transaction blocks start-up."""
    accounts = Scripted("accounts")
    log = MemoryLog(make_coordinator_id=SeededEntropy(1).coordinator_id, on_broken=lambda broken: None, unix_ms=unix_ms)
    identity = await log.open()
    bad, good = f"{identity.coordinator_id}-1-1-1", f"{identity.coordinator_id}-1-1-2"
    for gtrid, bqual in ((bad, "no such name"), (good, "accounts.one")):
        log.decide(DecisionRecord(gtrid, Decision.COMMIT, (LoggedBranch(bqual, "xid"),), 1), lambda standing: None)
    await log.close()
    async with serving(accounts, log=log):
        await eventually(lambda: accounts.ends == {(good, "accounts.one"): t.BRANCH_STATE_COMMITTED})


async def test_an_unreachable_participant_does_not_keep_the_coordinator_from_starting() -> None:
    async with serving(participants={"accounts": "127.0.0.1:1"}) as edge:
        (info,) = (await edge.admin.ListParticipants(a.ListParticipantsRequest())).participants
        assert (info.resource, info.instance, info.reachable) == ("accounts", "static", False)
        assert "127.0.0.1:1" in info.last_error
