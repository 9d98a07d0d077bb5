"""The check-up: is the coordinator well, and can it reach everybody?

A finding says what was checked, how it stands, and how to mend it. The participants' own findings come from their
Inspect; this module adds what only the coordinator can see.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from coordinator.log.records import ParticipantRecord
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.states import TransactionState
from coordinator.runtime.links import Links
from coordinator.runtime.lives import OLD_COPY, OLD_COPY_MEND
from coordinator.runtime.requests import Requests
from coordinator.runtime.running import Running
from coordinator.runtime.survey import Survey, survey
from handfast.catalog import HandfastFault
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.v1 import participant_pb2 as p

ASK_TIMEOUT_S = 5.0
FORCE_TIMEOUT_S = 10.0
FORCE_SLOW_S = 0.1
DISK_FREE_BYTES_ERROR = 64 * 2**20
DISK_FREE_BYTES_WARNING = 1024 * 2**20
CLOCK_SKEW_WARNING_S = 2.0
STUCK_S = 60.0
OPEN_SHARE_WARNING = 0.8
COORDINATOR = "coordinator"

_WORST_FIRST = {p.SEVERITY_ERROR: 0, p.SEVERITY_WARNING: 1, p.SEVERITY_UNSPECIFIED: 1, p.SEVERITY_OK: 2}


class Diagnosis:
    """Checks the log, the clock, the open transactions, and each participant.

    Args:
        requests: the coordinator's requests.
        links: the way to participants.
    """

    def __init__(self, requests: Requests, links: Links) -> None:
        self._requests = requests
        self._driver = requests.driver
        self._clock = requests.driver.clock
        self._links = links

    async def run(self) -> list[p.Finding]:
        """Check everything; worst first."""
        findings = [*self._log_place(), *self._clock_sanity(), *self._transactions()]
        findings.append(await self._force())
        findings += await self._participants()
        findings += await self._prepared()
        return sorted(findings, key=lambda finding: _WORST_FIRST[finding.severity])

    # -- the log ---------------------------------------------------------------------------------------------------

    def _log_place(self) -> Iterator[p.Finding]:
        place = self._driver.log.path
        if place == ":memory:":
            mend = "Give the coordinator a file with --log: a restart forgets every decision."
            yield _warning("log", "the decision log is in memory only", mend)
            return
        folder = Path(place).resolve().parent
        if os.access(place, os.W_OK) and os.access(folder, os.W_OK):
            yield _ok("log", f"{place} can be written")
        else:
            mend = "Give the coordinator's user the right to write the file and its folder (SQLite needs both)."
            yield _error("log", f"{place} or its folder can't be written", mend)
        try:
            free = shutil.disk_usage(folder).free
        except OSError as problem:
            yield _error("disk space", f"{folder} can't be asked: {problem}", "See to it that the disk is there.")
            return
        found = f"{free / 2**20:,.0f} MiB are free in {folder}"
        mend = "Make room: when the disk is full, transactions are aborted (LOG_REFUSED)."
        if free < DISK_FREE_BYTES_ERROR:
            yield _error("disk space", found, mend)
        elif free < DISK_FREE_BYTES_WARNING:
            yield _warning("disk space", found, mend)
        else:
            yield _ok("disk space", found)

    async def _force(self) -> p.Finding:
        """Make the log force something that changes nothing, its own horizon, and take the time."""
        done: asyncio.Future[int | LogRefused | LogBroken] = asyncio.get_running_loop().create_future()
        log = self._driver.log
        started_s = self._clock.now_s()
        log.forget_before(log.horizon_unix_ms, lambda result: None if done.done() else done.set_result(result))
        try:
            result = await asyncio.wait_for(done, FORCE_TIMEOUT_S)
        except TimeoutError:
            mend = "Look at the disk: no transaction can commit while a force hangs."
            return _error("force", f"a write was not durable within {FORCE_TIMEOUT_S:g} s", mend)
        if not isinstance(result, int):
            return _error("force", f"the log refuses writes: {result}", "Make room on the log's disk, or mend it.")
        took_s = self._clock.now_s() - started_s
        found = f"a write was durable after {took_s * 1000:.1f} ms"
        if took_s > FORCE_SLOW_S:
            return _warning("force", found, "Put the log on a faster disk: each commit waits for it.")
        return _ok("force", found)

    # -- the clock -------------------------------------------------------------------------------------------------

    def _clock_sanity(self) -> Iterator[p.Finding]:
        now = self._clock.unix_ms()
        try:
            last = max((logged.decision.decided_unix_ms for logged in self._driver.log.recent(1)), default=0)
        except HandfastFault as damaged:
            yield _error("log", damaged.message, damaged.mend)
            return
        ahead_s = (max(last, self._driver.log.horizon_unix_ms) - now) / 1000
        if ahead_s > CLOCK_SKEW_WARNING_S:
            found = f"the log holds moments {ahead_s:.1f} s in the future: the clock was set back"
            yield _warning("clock", found, "Run NTP; gtrids and retention go by this clock.")
        else:
            yield _ok("clock", "it agrees with the log")

    # -- transactions ----------------------------------------------------------------------------------------------

    def _transactions(self) -> Iterator[p.Finding]:
        running = list(self._driver.transactions.values())
        for one in running:
            if one.broken:
                mend = "Please report it; a restart takes the transaction up from the log."
                yield _error("set aside", f"{one.gtrid}: {one.broken}", mend)
        yield self._room(len(running))
        yield from self._oldest(running)

    def _room(self, count: int) -> p.Finding:
        limit = self._driver.options.open_transactions_max
        found = f"{count:,} of at most {limit:,} are open"
        mend = "Find clients that begin without ending (`handfast transactions list`), or raise open_transactions_max."
        if count >= limit:
            return _error("open transactions", found, mend)
        if count >= limit * OPEN_SHARE_WARNING:
            return _warning("open transactions", found, mend)
        return _ok("open transactions", found)

    def _oldest(self, running: list[Running]) -> Iterator[p.Finding]:
        """The transaction that has been decided for longest without every branch having heard."""
        decided = [one for one in running if one.decided_unix_ms and not one.broken]
        if not decided:
            yield _ok("unfinished transactions", "every decided transaction has ended")
            return
        oldest = min(decided, key=lambda one: one.decided_unix_ms)
        age_s = (self._clock.unix_ms() - oldest.decided_unix_ms) / 1000
        verb = "committing" if oldest.transaction.state is TransactionState.COMMITTING else "aborting"
        waiting = ", ".join(branch.bqual for branch in oldest.transaction.pending)
        found = (
            f"{len(decided):,} decided and not ended; the oldest, {oldest.gtrid}, {verb} for {age_s:.1f} s, "
            f"waits for {waiting}"
        )
        mend = f"`handfast transactions show {oldest.gtrid}`; when its participants are up: --retry-now."
        yield (
            _warning("unfinished transactions", found, mend)
            if age_s > STUCK_S
            else _ok("unfinished transactions", found)
        )

    # -- participants ----------------------------------------------------------------------------------------------

    async def _participants(self) -> list[p.Finding]:
        asked = list(self._requests.directory)
        if not asked:
            mend = "Start a service that has a Participant, or name one with --participant."
            return [_warning("participants", "none has registered", mend)]
        answers = await asyncio.gather(*(self._ask(participant) for participant in asked))
        answered = {
            one.resource for one, answer in zip(asked, answers, strict=True) if not isinstance(answer, CallFailed)
        }
        findings: list[p.Finding] = []
        inspected: set[str] = set()
        for participant, answer in zip(asked, answers, strict=True):
            if isinstance(answer, CallFailed):
                findings.append(_failed(participant, answer, participant.resource in answered))
                continue
            response, skew_s = answer
            findings.append(_reached(participant, skew_s))
            if participant.resource not in inspected:
                inspected.add(participant.resource)
                findings += [_of_resource(finding, participant.resource) for finding in response.findings]
        return findings

    async def _prepared(self) -> list[p.Finding]:
        """What the prepared branches tell of the log. A resource that can't be asked has its finding already."""
        surveyed = await survey(self._requests, self._links, foreign=True)
        return [*self._log_age(surveyed), *_others_branches(surveyed)]

    def _log_age(self, surveyed: Survey) -> Iterator[p.Finding]:
        unseen = sorted(key for key in surveyed.prepared if self._requests.is_from_unseen_life(key[0]))
        if not unseen:
            yield _ok("log's age", "no prepared branch is newer than the log")
            return
        (gtrid, bqual), count = unseen[0], len(unseen)
        found = f"prepared: {bqual} of {gtrid}{f' and {count - 1:,} more' if count > 1 else ''}, which {OLD_COPY}"
        yield _error("log's age", found, OLD_COPY_MEND)

    async def _ask(self, participant: ParticipantRecord) -> tuple[p.InspectResponse, float] | CallFailed:
        before = self._clock.unix_ms()
        try:
            request = p.InspectRequest(resource=participant.resource)
            response = await self._links.ask(participant, request, ASK_TIMEOUT_S)
        except CallFailed as failure:
            return failure
        if not isinstance(response, p.InspectResponse):
            raise TypeError(f"{participant.resource} answered Inspect with {type(response).__name__}")
        return response, self._skew_s(response.clock_unix_ms, before, self._clock.unix_ms())

    @staticmethod
    def _skew_s(theirs: int, before: int, after: int) -> float:
        """How far their clock is from ours at the least, in seconds; 0 when they did not tell."""
        if not theirs or before <= theirs <= after:
            return 0.0
        return (theirs - after if theirs > after else theirs - before) / 1000


def _others_branches(surveyed: Survey) -> Iterator[p.Finding]:
    """Those that other coordinators have left; a branch that one of them is just ending is nobody's worry."""
    left = sorted(key for key, branch in surveyed.foreign.items() if branch.age_ms > STUCK_S * 1000)
    if left:
        (gtrid, bqual), count = left[0], len(left)
        found = f"prepared: {bqual} of {gtrid}{f' and {count - 1:,} more' if count > 1 else ''}, of another coordinator"
        mend = (
            "They are never touched here. Start the coordinator that made them; if its log is lost, `handfast indoubt` "
            "has each with the SQL for a person."
        )
        yield _warning("others' branches", found, mend)


def _failed(participant: ParticipantRecord, failure: CallFailed, has_another: bool) -> p.Finding:
    name, where = f"{participant.resource}.{participant.instance}", participant.address
    if failure.code == UNIMPLEMENTED:
        found = f"{name} at {where} answers; it has no Inspect, so its resource is not checked"
        return _ok("reachable", found, participant.resource)
    found = f"{name} at {where} does not answer: {failure.message}"
    if has_another:
        mend = "Another process serves the resource; if this one is gone for good, nothing is lost."
        return _warning("reachable", found, mend, participant.resource)
    return _error("reachable", found, failure.mend, participant.resource)


def _reached(participant: ParticipantRecord, skew_s: float) -> p.Finding:
    name = f"{participant.resource}.{participant.instance} at {participant.address}"
    if abs(skew_s) > CLOCK_SKEW_WARNING_S:
        found = f"{name} answers, and its clock is {skew_s:+.1f} s from the coordinator's"
        return _warning("clock", found, "Run NTP on both machines; ages in reports are off.", participant.resource)
    return _ok("reachable", f"{name} answers", participant.resource)


def _of_resource(finding: p.Finding, resource: str) -> p.Finding:
    named = p.Finding()
    named.CopyFrom(finding)
    named.subject = finding.subject or resource
    return named


def _ok(check: str, found: str, subject: str = COORDINATOR) -> p.Finding:
    return p.Finding(check=check, severity=p.SEVERITY_OK, found=found, subject=subject)


def _warning(check: str, found: str, mend: str, subject: str = COORDINATOR) -> p.Finding:
    return p.Finding(check=check, severity=p.SEVERITY_WARNING, found=found, mend=mend, subject=subject)


def _error(check: str, found: str, mend: str, subject: str = COORDINATOR) -> p.Finding:
    return p.Finding(check=check, severity=p.SEVERITY_ERROR, found=found, mend=mend, subject=subject)
