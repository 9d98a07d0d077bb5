"""Many decisions offered at once, and many ends: as good as one by one."""

from __future__ import annotations

from coordinator.log.records import CommitRows, DecisionRecord, EndRecord, EndRows, LoggedTransaction
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.states import Decision
from tests.conformance.decision_logs import Answers, Rig, abort, commit, decide, ended, flush, gtrid, participant
from tests.waiting import eventually


def together(*records: DecisionRecord) -> CommitRows:
    """Commit records that differ in their names alone, as rows."""
    first = records[0]
    bquals = tuple(branch.bqual for branch in first.branches)
    proofs = [[record.branches[place].proof for record in records] for place in range(len(bquals))]
    gtrids = [record.gtrid for record in records]
    rows = CommitRows(gtrids, bquals, proofs, first.decided_unix_ms, first.begun_unix_ms, first.client)
    assert list(rows.each()) == list(records)
    return rows


def all_ended(*records: EndRecord) -> EndRows:
    rows = EndRows([record.gtrid for record in records], records[0].outcome, records[0].ended_unix_ms)
    assert list(rows.each()) == list(records)
    return rows


async def test_many_decisions_are_durable_when_they_are_answered_and_go_in_one_force(rig: Rig) -> None:
    heard: list[object] = []
    records = [commit(number, decided_unix_ms=7) for number in range(1, 6)]
    rig.hold()
    rig.store.decide_all(together(*records), heard.extend)
    assert [rig.store.lookup(record.gtrid) for record in records] == [None] * 5, "nothing is durable yet"
    assert heard == []
    rig.release()
    await eventually(lambda: heard != [])
    assert heard == [Decision.COMMIT] * 5
    assert [rig.store.lookup(record.gtrid) for record in records] == [LoggedTransaction(one, None) for one in records]
    assert rig.forces == [5]


async def test_each_of_many_learns_what_stands_for_it_alone(rig: Rig) -> None:
    heard: list[object] = []
    await decide(rig.store, abort(2))
    rig.store.decide_all(
        together(
            commit(1, decided_unix_ms=7),
            commit(2, decided_unix_ms=7),
            commit(3, decided_unix_ms=7),
            commit(3, decided_unix_ms=7),
        ),
        heard.extend,
    )
    await eventually(lambda: heard != [])
    assert heard == [Decision.COMMIT, Decision.ABORT, Decision.COMMIT, Decision.COMMIT]


async def test_many_keep_their_place_among_what_was_submitted_before_and_after(rig: Rig) -> None:
    answers = Answers()
    rig.hold()
    rig.store.decide(abort(1), answers.to(1))
    rig.store.decide_all(together(commit(1, decided_unix_ms=7), commit(2, decided_unix_ms=7)), answers.to(2))
    rig.store.decide(abort(2), answers.to(3))
    rig.release()
    await eventually(lambda: len(answers.heard) == 3)
    assert answers.labels() == [1, 2, 3]
    assert answers.values() == [Decision.ABORT, [Decision.ABORT, Decision.COMMIT], Decision.COMMIT]


async def test_many_that_are_refused_learn_it_together(rig: Rig) -> None:
    heard: list[object] = []
    rig.failures = [LogRefused("full")]
    rig.store.decide_all(together(commit(1, decided_unix_ms=7), commit(2, decided_unix_ms=7)), heard.extend)
    await eventually(lambda: heard != [])
    assert [type(one) for one in heard] == [LogRefused, LogRefused]
    assert await decide(rig.store, abort(1)) is Decision.ABORT, "nothing stood"


async def test_many_that_come_when_the_log_is_broken_learn_it_too(rig: Rig) -> None:
    before: list[object] = []
    after: list[object] = []
    rig.failures = [OSError("fsync failed")]
    rig.store.decide_all(together(commit(1, decided_unix_ms=7), commit(2, decided_unix_ms=7)), before.extend)
    await eventually(lambda: before != [])
    rig.store.decide_all(together(commit(3, decided_unix_ms=7), commit(4, decided_unix_ms=7)), after.extend)
    await eventually(lambda: after != [])
    assert [type(one) for one in (*before, *after)] == [LogBroken] * 4


async def test_many_ends_alone_are_forced_after_a_while(closed_rig: Rig) -> None:
    closed_rig.use_lazy_flush_s(0.02)
    await closed_rig.store.open()
    heard: list[object] = []
    closed_rig.store.decide_all(together(commit(1, decided_unix_ms=7), commit(2, decided_unix_ms=7)), heard.extend)
    await eventually(lambda: heard != [])
    await flush(closed_rig.store)
    closed_rig.store.end_all(all_ended(ended(1, at_unix_ms=9), ended(2, at_unix_ms=9)))
    await eventually(lambda: closed_rig.store.unended() == [])
    known = [closed_rig.store.lookup(gtrid(number)) for number in (1, 2)]
    assert [one.end for one in known if one is not None] == [ended(1, at_unix_ms=9), ended(2, at_unix_ms=9)]


async def test_many_ends_that_are_refused_go_with_the_next_force(rig: Rig) -> None:
    await decide(rig.store, commit(1, decided_unix_ms=7))
    rig.hold()
    rig.store.end_all(all_ended(ended(1, at_unix_ms=9)))
    rig.failures = [LogRefused("full")]
    refused: list[object] = []
    rig.store.register(participant("ledger", "a", "h:1"), refused.append)
    rig.release()
    await eventually(lambda: refused != [])
    await decide(rig.store, commit(3, decided_unix_ms=7))
    known = rig.store.lookup(gtrid(1))
    assert known is not None
    assert known.end == ended(1, at_unix_ms=9)
