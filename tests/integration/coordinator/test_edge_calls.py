"""What applications and participants ask, over gRPC: every call, unary and in batches."""

from collections.abc import AsyncIterator

import pytest

from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import base36
from tests.integration.coordinator.edge import Ask, Edge, begin, enlist, operation, refusal, serving
from tests.integration.coordinator.participants import Plain, Scripted
from tests.waiting import eventually


@pytest.fixture
def accounts() -> Scripted:
    return Scripted("accounts")


@pytest.fixture
def ledger() -> Scripted:
    return Plain("ledger")


@pytest.fixture
async def edge(accounts: Scripted, ledger: Scripted) -> AsyncIterator[Edge]:
    async with serving(accounts, ledger, open_transactions_max=50, payload_bytes_max=1000) as edge:
        yield edge


@pytest.fixture(params=["unary", "framed"])
def ask(request: pytest.FixtureRequest, edge: Edge) -> Ask:
    return edge.unary() if request.param == "unary" else edge.framed()


# -- what goes well ------------------------------------------------------------------------------------------------


async def test_a_transaction_commits_on_a_batched_and_on_a_unary_participant(
    ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await begin(ask, accounts, ledger)
    response = await ask(c.CommitRequest(gtrid=gtrid))
    assert response == c.CommitResponse(gtrid=gtrid, outcome=t.OUTCOME_COMMITTED)
    for one in (accounts, ledger):
        assert one.ends == {(gtrid, one.bqual): t.BRANCH_STATE_COMMITTED}


async def test_the_reason_of_a_no_vote_reaches_the_client(ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    ledger.answers[p.PrepareRequest] = lambda request: p.PrepareResponse(
        vote=t.VOTE_NO, reason="no money left", reason_code="CONSTRAINT_VIOLATED"
    )
    gtrid = await begin(ask, accounts, ledger)
    response = await ask(c.CommitRequest(gtrid=gtrid))
    assert (response.outcome, response.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_VOTE_NO)
    assert "no money left" in response.reason
    (no,) = response.branches
    assert (no.bqual, no.vote, no.reason_code) == ("ledger.one", t.VOTE_NO, "CONSTRAINT_VIOLATED")
    assert accounts.ends == {(gtrid, "accounts.one"): t.BRANCH_STATE_ABORTED}


async def test_a_rollback_reaches_every_branch(ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    gtrid = await begin(ask, accounts, ledger)
    response = await ask(c.RollbackRequest(gtrid=gtrid, reason="changed my mind"))
    assert response == c.RollbackResponse(gtrid=gtrid, outcome=t.OUTCOME_ABORTED)
    assert len(accounts.ends) == len(ledger.ends) == 1


async def test_one_shot_results_come_in_the_order_of_the_request(ask: Ask) -> None:
    operations = [operation("accounts", "a"), operation("ledger", "b"), operation("accounts", "c")]
    response = await ask(c.ExecuteRequest(operations=operations))
    assert (response.outcome, list(response.results)) == (t.OUTCOME_COMMITTED, [b"a", b"b", b"c"]), response


async def test_a_unary_participant_without_one_phase_commit_commits_alone_in_two(ask: Ask, ledger: Scripted) -> None:
    response = await ask(c.ExecuteRequest(operations=[operation("ledger", "b")]))
    assert (response.outcome, list(response.results)) == (t.OUTCOME_COMMITTED, [b"b"])
    assert (ledger.count(p.PrepareRequest), ledger.count(p.ParticipantCommitRequest)) == (1, 1)


async def test_wait_decided_does_not_wait_for_the_branches(ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    ledger.answers[p.ParticipantCommitRequest] = lambda request: None
    gtrid = await begin(ask, accounts, ledger)
    response = await ask(c.CommitRequest(gtrid=gtrid, wait=c.WAIT_DECIDED))
    assert response.outcome == t.OUTCOME_COMMITTED
    assert "ledger.one" in [branch.bqual for branch in response.branches]


async def test_an_undecided_transaction_is_to_be_asked_for_again_soon(ask: Ask, accounts: Scripted) -> None:
    gtrid = await begin(ask, accounts)
    response = await ask(c.InquireRequest(gtrid=gtrid))
    assert response.standing == c.STANDING_UNDECIDED
    assert 100 <= response.retry_after_ms <= 1000


async def test_an_inquiry_tells_what_stands(ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    committed, aborted = await begin(ask, accounts, ledger), await begin(ask, accounts, ledger)
    await ask(c.CommitRequest(gtrid=committed))
    await ask(c.RollbackRequest(gtrid=aborted))
    yes = await ask(c.InquireRequest(gtrid=committed, bqual="ledger.one"))
    no = await ask(c.InquireRequest(gtrid=aborted, branches=2))
    assert (yes.standing, yes.outcome) == (c.STANDING_COMMIT, t.OUTCOME_COMMITTED)
    assert (no.standing, no.outcome, no.cause) == (c.STANDING_ABORT, t.OUTCOME_ABORTED, t.ABORT_CAUSE_CLIENT)


async def test_a_registration_is_durable_when_it_is_answered(edge: Edge, ask: Ask) -> None:
    request = c.RegisterRequest(resource="stock", instance="a7", address="127.0.0.1:9", kind="k", operations=["x"])
    response = await ask(request)
    identity = edge.server.requests.gtrids
    assert (response.coordinator_id, response.epoch) == (identity.coordinator_id, identity.epoch)
    (kept,) = [one for one in edge.log.participants() if one.resource == "stock"]
    assert (kept.instance, kept.address, kept.kind, kept.operations) == ("a7", "127.0.0.1:9", "k", ("x",))


async def test_a_name_drawn_from_a_block_begins_with_its_first_branch(
    ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    response = await ask(c.BeginRequest(block_size=10))
    block = response.block
    assert (response.gtrid, block.count, block.first) == ("", 10, 0)
    assert block.lifetime_ms > 0
    gtrid = block.prefix + base36(7)
    await enlist(ask, gtrid, accounts, ledger)
    assert (await ask(c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_COMMITTED


async def test_blocks_do_not_overlap(ask: Ask) -> None:
    blocks = [(await ask(c.BeginRequest(block_size=5))).block for _ in range(3)]
    assert len({block.prefix for block in blocks}) == 3


async def test_a_timeout_is_taken_as_far_as_it_is_allowed(ask: Ask) -> None:
    asked = (await ask(c.BeginRequest(timeout_ms=1500))).timeout_ms
    default = (await ask(c.BeginRequest())).timeout_ms
    longest = (await ask(c.BeginRequest(timeout_ms=2**32 - 1))).timeout_ms
    assert (asked, default, longest) == (1500, 30_000, 3_600_000)


# -- duplicates ----------------------------------------------------------------------------------------------------


async def test_a_repeated_commit_gets_the_first_answer_and_sends_nothing(
    ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await begin(ask, accounts, ledger)
    first = await ask(c.CommitRequest(gtrid=gtrid))
    asked = len(accounts.asked)
    assert await ask(c.CommitRequest(gtrid=gtrid)) == first
    assert len(accounts.asked) == asked


async def test_a_repeated_enlist_is_one_branch(edge: Edge, ask: Ask, accounts: Scripted) -> None:
    gtrid = await begin(ask, accounts, accounts)
    running = edge.server.requests.show(gtrid)
    assert running is not None
    assert list(running.transaction.branches) == ["accounts.one"]


async def test_a_repeated_rollback_gets_the_first_answer(ask: Ask, accounts: Scripted) -> None:
    gtrid = await begin(ask, accounts)
    assert await ask(c.RollbackRequest(gtrid=gtrid)) == await ask(c.RollbackRequest(gtrid=gtrid))


async def test_a_repeated_execute_does_its_work_once(ask: Ask, accounts: Scripted) -> None:
    block = (await ask(c.BeginRequest(block_size=1))).block
    request = c.ExecuteRequest(gtrid=block.prefix + "0", operations=[operation("accounts", "a")])
    first = await ask(request)
    assert first.outcome == t.OUTCOME_COMMITTED
    assert await ask(request) == first
    assert accounts.count(p.CommitOnePhaseRequest) == 1


async def test_a_commit_of_what_was_rolled_back_answers_aborted(ask: Ask, accounts: Scripted) -> None:
    gtrid = await begin(ask, accounts)
    await ask(c.RollbackRequest(gtrid=gtrid))
    response = await ask(c.CommitRequest(gtrid=gtrid))
    assert (response.outcome, response.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_CLIENT)


# -- bad input -----------------------------------------------------------------------------------------------------

BAD_REQUESTS = {
    "a malformed gtrid": (c.CommitRequest(gtrid="nonsense"), "GTRID_MALFORMED"),
    "an empty gtrid": (c.InquireRequest(), "GTRID_MALFORMED"),
    "a foreign gtrid": (c.CommitRequest(gtrid="zzzzzzzz-1-1-1"), "TRANSACTION_FOREIGN"),
    "a malformed resource": (c.RegisterRequest(resource="No!", instance="a", address="h:1"), "NAME_MALFORMED"),
    "a malformed instance": (c.RegisterRequest(resource="a", instance="-", address="h:1"), "NAME_MALFORMED"),
    "no address": (c.RegisterRequest(resource="a", instance="a"), "FIELD_INVALID"),
    "a long client name": (c.BeginRequest(client="x" * 65), "FIELD_INVALID"),
    "no operations": (c.ExecuteRequest(), "OPERATIONS_MISSING"),
    "an unknown resource": (c.ExecuteRequest(operations=[operation("nobody")]), "RESOURCE_UNKNOWN"),
    "a large payload": (c.ExecuteRequest(operations=[operation("accounts", payload=b"x" * 1001)]), "PAYLOAD_TOO_LARGE"),
}


@pytest.mark.parametrize(("request_message", "code"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_bad_input_is_refused_by_name_and_with_what_to_do(
    ask: Ask,
    edge: Edge,
    request_message: c.CommitRequest | c.InquireRequest | c.RegisterRequest | c.BeginRequest | c.ExecuteRequest,
    code: str,
) -> None:
    failure = await refusal(ask, request_message)
    assert failure.code == code
    assert failure.mend
    assert edge.server.requests.driver.transactions == {}


@pytest.mark.parametrize(
    "request_message",
    [c.CommitRequest(), c.RollbackRequest(), c.EnlistRequest(resource="accounts", instance="one")],
    ids=["commit", "rollback", "enlist"],
)
async def test_a_gtrid_that_nobody_handed_out_is_unknown(
    ask: Ask, edge: Edge, request_message: c.CommitRequest | c.RollbackRequest | c.EnlistRequest
) -> None:
    gtrid = request_message.gtrid = f"{edge.server.requests.gtrids.coordinator_id}-9-9-9"
    failure = await refusal(ask, request_message)
    assert (failure.code, failure.gtrid) == ("TRANSACTION_UNKNOWN", gtrid)


async def test_a_branch_of_an_unregistered_process_is_refused(ask: Ask) -> None:
    gtrid = await begin(ask)
    failure = await refusal(ask, c.EnlistRequest(gtrid=gtrid, resource="accounts", instance="ghost"))
    assert (failure.code, failure.bqual) == ("RESOURCE_UNKNOWN", "accounts.ghost")


async def test_enlisting_after_commit_began_is_refused(ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    gtrid = await begin(ask, accounts)
    await ask(c.CommitRequest(gtrid=gtrid))
    failure = await refusal(ask, c.EnlistRequest(gtrid=gtrid, resource="ledger", instance="one"))
    assert failure.code == "TRANSACTION_NOT_ACTIVE"
    assert ledger.asked == []


async def test_a_rollback_of_what_is_committed_is_refused(ask: Ask, accounts: Scripted, ledger: Scripted) -> None:
    gtrid = await begin(ask, accounts, ledger)
    await ask(c.CommitRequest(gtrid=gtrid))
    failure = await refusal(ask, c.RollbackRequest(gtrid=gtrid))
    assert failure.code == "ALREADY_DECIDED"
    assert (await ask(c.InquireRequest(gtrid=gtrid))).standing == c.STANDING_COMMIT


async def test_a_transaction_takes_64_branches_and_no_more(ask: Ask) -> None:
    gtrid = await begin(ask)
    for number in range(64):
        await ask(c.RegisterRequest(resource=f"r{number}", instance="i", address=f"127.0.0.1:{number + 1}"))
        await ask(c.EnlistRequest(gtrid=gtrid, resource=f"r{number}", instance="i"))
    failure = await refusal(ask, c.EnlistRequest(gtrid=gtrid, resource="accounts", instance="one"))
    assert failure.code == "BRANCHES_TOO_MANY"


async def test_past_the_limit_of_open_transactions_no_more_begin(ask: Ask) -> None:
    gtrids = [await begin(ask) for _ in range(50)]
    assert (await refusal(ask, c.BeginRequest())).code == "TRANSACTIONS_TOO_MANY"
    await ask(c.CommitRequest(gtrid=gtrids[0]))
    assert await begin(ask)


async def test_a_coordinator_that_stops_takes_no_new_work(edge: Edge, ask: Ask, accounts: Scripted) -> None:
    gtrid = await begin(ask, accounts)
    edge.server.requests.stopping = True
    for request in (c.BeginRequest(), c.BeginRequest(block_size=1)):
        assert (await refusal(ask, request)).code == "COORDINATOR_STOPPING"
    assert (await ask(c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_COMMITTED


async def test_what_the_edge_did_not_foresee_is_internal_and_logged_with_the_gtrid(
    edge: Edge, ask: Ask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gtrid = await begin(ask)

    def broken(*args: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(edge.server.requests, "inquire", broken)
    failure = await refusal(ask, c.InquireRequest(gtrid=gtrid))
    assert failure.code == "INTERNAL"
    assert gtrid in caplog.text
    assert "ZeroDivisionError: a defect" in caplog.text


# -- a dead participant --------------------------------------------------------------------------------------------


async def test_a_dead_address_aborts_the_transaction_and_says_which(
    ask: Ask, accounts: Scripted, ledger: Scripted
) -> None:
    gtrid = await begin(ask, accounts, ledger)
    await ledger.stop()
    response = await ask(c.CommitRequest(gtrid=gtrid))
    assert (response.outcome, response.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_UNREACHABLE)
    assert "ledger.one" in response.reason
    await eventually(lambda: accounts.ends == {(gtrid, "accounts.one"): t.BRANCH_STATE_ABORTED})


async def test_one_shot_work_is_not_given_to_a_process_that_is_gone(ask: Ask, accounts: Scripted) -> None:
    """A process that never comes back stays registered; its share of the work must not be lost for ever."""
    await ask(c.RegisterRequest(resource="accounts", instance="gone", address="127.0.0.1:1"))
    for _ in range(6):
        answer = await ask(c.ExecuteRequest(operations=[operation("accounts")]))
        assert answer.outcome == t.OUTCOME_COMMITTED
    assert accounts.count(p.CommitOnePhaseRequest) == 6
