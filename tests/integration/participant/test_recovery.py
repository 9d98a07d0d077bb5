"""Branches in doubt are resolved by asking, by whichever instance; nothing foreign is touched."""

import pytest

from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant.testing import FakeCoordinator, serving
from tests.integration.participant.accounts_database import Database
from tests.integration.participant.accounts_service import Accounts, make_accounts, prepare
from tests.waiting import eventually


async def test_the_other_instance_finishes_what_one_prepared(database: Database, coordinator: FakeCoordinator) -> None:
    one, other = make_accounts(database, coordinator), make_accounts(database, coordinator)
    gtrid = coordinator.new_gtrid()
    async with serving(other):
        async with serving(one):
            voted = await coordinator.ask(one.address, prepare(one, gtrid, 5))
            assert voted.vote == t.VOTE_YES
        commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=one.bqual, proof=voted.proof)
        assert (await coordinator.ask(other.address, commit)).outcome == t.OUTCOME_COMMITTED
    assert database.value() == 105


@pytest.mark.parametrize(("standing", "value"), [(c.STANDING_COMMIT, 105), (c.STANDING_ABORT, 100)])
async def test_a_restarted_participant_asks_what_became_of_its_branches(
    database: Database, coordinator: FakeCoordinator, standing: c.Standing.ValueType, value: int
) -> None:
    gtrid = coordinator.new_gtrid()
    before = make_accounts(database, coordinator)
    async with serving(before):
        await coordinator.ask(before.address, prepare(before, gtrid, 5))
    coordinator.standings[gtrid] = standing
    async with serving(make_accounts(database, coordinator)):
        await eventually(lambda: database.prepared() == [])
    assert database.value() == value
    assert (coordinator.inquiries[0].gtrid, coordinator.inquiries[0].bqual) == (gtrid, before.bqual)


@pytest.mark.parametrize("standing", [c.STANDING_UNDECIDED, c.STANDING_UNKNOWN])
async def test_recovery_acts_on_nothing_less_than_a_decision(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator, standing: c.Standing.ValueType
) -> None:
    gtrid = coordinator.new_gtrid()
    coordinator.standings[gtrid] = standing
    await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    await eventually(lambda: len(coordinator.inquiries) >= 3)  # asked again and again
    assert len(database.prepared()) == 1
    inspected = await coordinator.ask(accounts.address, p.InspectRequest(resource="accounts"))
    reported = any("beyond the log's memory" in finding.check for finding in inspected.findings)
    assert reported is (standing == c.STANDING_UNKNOWN)


async def test_recovery_touches_nothing_foreign(database: Database, coordinator: FakeCoordinator) -> None:
    foreign = [database.xid(coordinator_id="another1").gid(), "made with psql"]
    for id, gid in enumerate(foreign, start=2):
        with database.cluster.connect(database.name) as psql:
            psql.execute(f"BEGIN; UPDATE account SET value = 0 WHERE id = {id}; PREPARE TRANSACTION '{gid}'".encode())
    gtrid = coordinator.new_gtrid()
    before = make_accounts(database, coordinator)
    async with serving(before):
        await coordinator.ask(before.address, prepare(before, gtrid, 5))
    coordinator.standings[gtrid] = c.STANDING_ABORT
    async with serving(make_accounts(database, coordinator)):
        await eventually(lambda: sorted(database.prepared()) == sorted(foreign))
    assert {inquiry.gtrid for inquiry in coordinator.inquiries} == {gtrid}


async def test_a_branch_that_an_operator_ended_is_found_ended(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator
) -> None:
    gtrid = coordinator.new_gtrid()
    await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    (gid,) = database.prepared()
    database.execute(f"ROLLBACK PREPARED '{gid}'")
    await eventually(lambda: accounts._driver.branches.in_doubt() == [])
    commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual)
    ended = await coordinator.ask(accounts.address, commit)
    assert ended.outcome == t.OUTCOME_HEURISTIC_ROLLBACK
    assert "pg_xact_status" in ended.evidence


@pytest.mark.parametrize("asks", ["the participant", "the coordinator"])
async def test_a_branch_that_a_restored_database_brings_back_is_ended_again(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator, asks: str
) -> None:
    """The service has lived on, and remembers the commit that its database has lost."""
    gtrid = coordinator.new_gtrid()
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    (gid,) = database.prepared()
    commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual, proof=voted.proof)
    assert (await coordinator.ask(accounts.address, commit)).outcome == t.OUTCOME_COMMITTED
    with database.cluster.connect(database.name) as psql:  # what the restore makes of it
        psql.execute(f"BEGIN; UPDATE account SET value = 205 WHERE id = 1; PREPARE TRANSACTION '{gid}'".encode())
    if asks == "the participant":
        coordinator.standings[gtrid] = c.STANDING_COMMIT
    else:
        listing = p.RecoverRequest(resource="accounts", coordinator_id=gtrid.partition("-")[0])
        (listed,) = (await coordinator.ask(accounts.address, listing)).branches
        assert listed.gtrid == gtrid
        assert (await coordinator.ask(accounts.address, commit)).outcome == t.OUTCOME_COMMITTED
    await eventually(lambda: database.prepared() == [])
    assert database.value() == 205


async def test_recover_and_inspect_speak_for_the_database(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator
) -> None:
    gtrid = coordinator.new_gtrid()
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    listed = await coordinator.ask(
        accounts.address, p.RecoverRequest(resource="accounts", coordinator_id="testcrd2", detail=True)
    )
    asked = p.BranchProof(gtrid=gtrid, bqual=accounts.bqual, proof=voted.proof)
    inspected = await coordinator.ask(accounts.address, p.InspectRequest(resource="accounts", branches=[asked]))
    assert [branch.gtrid for branch in listed.branches] == [gtrid]
    assert [end.state for end in inspected.ends] == [t.BRANCH_STATE_IN_DOUBT]
    assert {finding.subject for finding in inspected.findings} == {"accounts"}
