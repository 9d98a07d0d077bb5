"""Recovery by asking: branches in doubt are resolved by what stands in the coordinator's log.

The coordinator pushes its decisions. Recovery is what remains when the push does not come: this process restarted and
knows nothing of what it prepared, another instance died, or the coordinator did. It runs at start, when the coordinator
was restarted, and now and then.

Why it can never break atomicity: it acts on STANDING_COMMIT, which is durable, and on STANDING_ABORT, which says that
there is no commit record and never will be one. UNDECIDED asks again later; UNKNOWN (older than the log's memory) is
left alone and reported, for a person to decide. Branches of other coordinators, resources and databases are not even
looked at, and a branch that something is under way for in this process is left to that (a recovery that rolls back what
is just being prepared: citus 1030, 2095). Each branch is resolved for itself, so one that fails stalls no other (citus
6548, btm 59).

It also finds the opposite: branches that this process believes in doubt and that somebody else has ended.

A crash can leave thousands in doubt, and it asks no more than it has to. A coordinator that has come back is let to
tell what it has decided, for as long as it does; only then is the rest listed and asked about. One that can't be
reached is asked about a single branch, again and again, and nothing is listed meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from handfast.catalog import HandfastFault
from handfast.frames import CallFailed
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import Xid
from participant.clock import Clock
from participant.config import ParticipantOptions
from participant.driver import Driver
from participant.protocol import Branch, Fate
from participant.resource import Finding, Found, PreparedBranch, Severity, Stand

log = logging.getLogger(__name__)

_AT_ONCE_MAX = 32
_QUIET_S = 0.25
"""A coordinator that has ended nothing for so long has told what it had to tell, in seconds."""

Inquire = Callable[[str, str], Awaitable[c.InquireResponse]]
"""Asks the coordinator: gtrid, bqual."""

_FATES = {Stand.COMMITTED: Fate.COMMITTED, Stand.ABORTED: Fate.ABORTED, Stand.UNPROVED: Fate.UNPROVED}


class _Went(Enum):
    """How asking about one branch went."""

    WELL = "there is nothing to be done again soon"
    BADLY = "it stays in doubt for now"
    UNHEARD = "there was no answer"


class Recovery:
    """Resolves the branches in doubt of one resource.

    Args:
        resource: its name.
        driver: ends branches, and knows what is under way.
        inquire: asks the coordinator.
        options: intervals.
        clock: where time comes from.
    """

    def __init__(
        self, resource: str, driver: Driver[Any], inquire: Inquire, options: ParticipantOptions, clock: Clock
    ) -> None:
        self._resource = resource
        self._driver = driver
        self._inquire = inquire
        self._options = options
        self._clock = clock
        self._coordinator_id = ""
        self._epoch = 0
        self._wake = asyncio.Event()
        self._ask_all = True
        self._unheard: PreparedBranch | None = None  # the branch to ask about first
        self._task: asyncio.Task[None] | None = None
        self.unresolved: dict[Xid, str] = {}
        """Branches that the coordinator can't decide any more, and its words."""

    def on_registered(self, coordinator_id: str, epoch: int) -> None:
        """Learn whose branches to look for; a new epoch is a reason to look now."""
        if (coordinator_id, epoch) != (self._coordinator_id, self._epoch):
            if self._coordinator_id and coordinator_id != self._coordinator_id:
                log.error(
                    "%s: the coordinator is %s now and was %s; branches of the other are left alone",
                    *(self._resource, coordinator_id, self._coordinator_id),
                )
            self._coordinator_id, self._epoch = coordinator_id, epoch
            self._ask_all = True
            self._wake.set()

    def open(self) -> None:
        """Begin; the first pass waits for the registration."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def findings(self) -> list[Finding]:
        """What is worth a line in `handfast doctor`."""
        return [
            Finding(
                "in doubt beyond the log's memory",
                Severity.ERROR,
                f"{xid.gid()}: {problem}",
                f"Find out what its other branches did (`handfast audit`), then `handfast resolve {xid.gtrid}`.",
            )
            for xid, problem in self.unresolved.items()
        ]

    async def look(self) -> bool:
        """Look for branches in doubt once, and resolve those that the coordinator has decided.

        Returns:
            Whether all went well; False asks for another look soon.
        """
        if not await self._is_coordinator_there():
            return False
        ask_all, self._ask_all = self._ask_all, False
        believed = self._driver.branches.in_doubt()
        try:
            with self._driver.noting_ends() as ended:
                prepared = await self._driver.list_prepared(self._resource, self._coordinator_id, detail=False)
                listed = {branch.xid for branch in prepared}
                await self._find_ended(believed, listed)
                self.unresolved = {xid: why for xid, why in self.unresolved.items() if xid in listed}
                well = await self._resolve_all(prepared, ask_all, ended)
        except HandfastFault as fault:
            log.warning("recovery of %s: %s", self._resource, fault.message)
            well = False
        self._ask_all = self._ask_all or (ask_all and not well)
        return well

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay_s = self._options.retry_first_s
        await self._wake.wait()
        while True:
            if self._wake.is_set():
                self._wake.clear()
                await self._until_told()
            if await self._looked():
                delay_s, pause_s = self._options.retry_first_s, self._options.recovery_interval_s
            else:
                pause_s = delay_s
                delay_s = min(2 * delay_s, self._options.retry_max_s)
            await self._pause(self._clock.jittered(pause_s))

    async def _looked(self) -> bool:
        try:
            return await self.look()
        except Exception:
            # A defect here must not end recovery for good; it is told, and tried again.
            log.exception("recovery of %s failed", self._resource)
        return False

    async def _until_told(self) -> None:
        """Let the coordinator, which has just come back, end what it has decided."""
        until_s = self._clock.monotonic_s() + self._options.inquire_after_s
        with self._driver.noting_ends() as ended:
            before = -1
            while len(ended) != before and self._clock.monotonic_s() < until_s:
                before = len(ended)
                await self._clock.sleep(_QUIET_S)

    async def _is_coordinator_there(self) -> bool:
        """Ask once more about a branch that there was no answer for; True when there is none."""
        if self._unheard is None:
            return True
        unheard, self._unheard = self._unheard, None
        if await self._resolve(unheard) is _Went.UNHEARD:
            self._unheard = unheard
        return self._unheard is None

    async def _pause(self, pause_s: float) -> None:
        pause = asyncio.create_task(self._clock.sleep(pause_s))
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({pause, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            woken.cancel()
            await asyncio.gather(pause, woken, return_exceptions=True)

    async def _resolve_all(self, prepared: list[PreparedBranch], ask_all: bool, ended: set[Xid]) -> bool:
        """Resolve those that are due, some at a time, until nobody is there to be asked.

        A coordinator that has come back tells most of them before their turn to be asked about.
        """
        due = (branch for branch in prepared if branch.xid not in ended and self._is_due(branch, ask_all))
        well = True
        while some := list(itertools.islice(due, _AT_ONCE_MAX)):
            went = await asyncio.gather(*(self._resolve(branch) for branch in some))
            if all(way is _Went.UNHEARD for way in went):
                log.warning("%s: the coordinator can't be asked now about what is in doubt", self._resource)
                self._unheard = some[0]
                return False
            well = well and all(way is _Went.WELL for way in went)
        return well

    def _is_due(self, branch: PreparedBranch, ask_all: bool) -> bool:
        if self._driver.is_working_on(branch.xid):
            return False
        return ask_all or branch.age_ms >= 1000 * self._options.inquire_after_s

    async def _resolve(self, branch: PreparedBranch) -> _Went:
        """Ask about one branch and act on the answer."""
        xid = branch.xid
        try:
            answer = await self._inquire(xid.gtrid, xid.bqual)
            if self._driver.is_working_on(xid):
                return _Went.WELL
            if answer.standing == c.STANDING_COMMIT:
                await self._driver.commit(xid.gtrid, xid.bqual, branch.proof)
            elif answer.standing == c.STANDING_ABORT:
                await self._driver.rollback(xid.gtrid, xid.bqual, branch.proof)
            elif answer.standing == c.STANDING_UNKNOWN:
                self._report(xid, answer.reason or "the coordinator does not know the transaction any more")
            return _Went.BADLY if answer.standing == c.STANDING_UNDECIDED else _Went.WELL
        except CallFailed as failure:
            log.warning("%s of %s stays in doubt for now: %s", xid.bqual, xid.gtrid, failure)
            return _Went.BADLY if failure.answered else _Went.UNHEARD
        except HandfastFault as fault:
            log.warning("%s of %s stays in doubt for now: %s", xid.bqual, xid.gtrid, fault)
        except Exception:
            log.exception("%s of %s: resolving it failed", xid.bqual, xid.gtrid)
        return _Went.BADLY

    def _report(self, xid: Xid, why: str) -> None:
        if xid not in self.unresolved:
            log.error("%s of %s is in doubt, and nobody can decide it any more: %s", xid.bqual, xid.gtrid, why)
        self.unresolved[xid] = why

    async def _find_ended(self, believed: list[Branch], prepared: set[Xid]) -> None:
        """Branches of ours that are in doubt for us, and not prepared any more: somebody else ended them."""
        gone = [(branch, xid) for branch in believed if (xid := Xid(branch.gtrid, self._driver.bqual)) not in prepared]
        if not gone:
            return
        found: list[Found] = await self._driver.manager.ends_of([(xid, branch.proof) for branch, xid in gone])
        for (branch, xid), end in zip(gone, found, strict=True):
            fate = _FATES.get(end.stand)
            if fate is not None:
                log.info("%s of %s was ended elsewhere: %s", xid.bqual, xid.gtrid, end.evidence)
                self._driver.on_ended_elsewhere(branch, fate, end.evidence)
