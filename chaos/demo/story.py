"""The demo's story: a bank, a thousand transfers, two deaths, and what is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from rich.text import Text

import handfast
from chaos.bank_stack import DATABASE, SERVICES, BankPlan, BankStack, PreparedBranch
from chaos.demo import pictures
from chaos.demo.findings import Findings, differences
from chaos.demo.scene import Scene
from chaos.demo.screen import Screen
from chaos.demo.transfers import Fate, Workload, fate_of, plan
from chaos.demo.writer import Writer
from chaos.stack import NotInTime, Stack, wait_until
from examples.bank.client import Bank

ACCOUNTS = 100
BALANCE = 1000
SEED = 1986  # the year of "Transaction management in the R* distributed database management system"

CRASH_AT = 0.4
"""The coordinator dies when this share of the transfers is decided …"""
SECOND_CRASH_AT = 0.7
"""… and a participant when this share is done."""

TIMEOUT_S = 3.0
OUTCOME_WAIT_S = 0.5
HEAL_S_MAX = 30.0
LOOKS_MAX = 500


class Story:
    """One run of the demo.

    Args:
        stack: what ends everything.
        screen: where it is told.
        transfers: how many to make.
    """

    def __init__(self, stack: Stack, screen: Screen, transfers: int) -> None:
        self._stack = stack
        self._screen = screen
        failpoint = f"after-force@{max(1, int(transfers * CRASH_AT))}"
        bank_plan = BankPlan(accounts=ACCOUNTS, balance=BALANCE, coordinator_env={"HANDFAST_FAILPOINT": failpoint})
        self._stacked = BankStack(stack, bank_plan)
        self._transfers = plan(transfers, accounts=ACCOUNTS, balance=BALANCE, seed=SEED)
        self._blocks_s: list[float] = []
        self._started = AsyncExitStack()
        self._money_before = 0

    async def tell(self) -> Findings:
        """Run it all.

        Raises:
            StackError: a part did not start, or something that must happen did not.
            handfast.HandfastError: the coordinator did not answer although it runs.
        """
        await self._open_bank()
        addresses = self._stacked.client_addresses()
        async with (
            handfast.connect(addresses["coordinator"], client="demo", outcome_wait=OUTCOME_WAIT_S) as tm,
            Bank(tm, accounts=addresses["accounts"], ledger=addresses["ledger"], timeout=TIMEOUT_S) as bank,
            self._started,
        ):
            workload = Workload(bank, self._transfers)
            await self._lose_coordinator(tm, workload)
            await self._lose_participant(tm, workload)
            await self._finish_transfers(tm, bank, workload)
        return await self._find(workload)

    # -- the steps -------------------------------------------------------------------------------------------------

    async def _open_bank(self) -> None:
        self._screen.step(
            "A bank on two databases",
            "Customers' money is in one Postgres server, merchants' money in another; neither knows of the other. A "
            "transfer changes both, and must do so on [b]both or on neither[/], whatever crashes in between.",
        )
        started_s = time.monotonic()
        with self._screen.busy("starting two Postgres servers, two services and a coordinator"):
            await asyncio.to_thread(self._stack.start, self._stacked)
        self._money_before = sum((await asyncio.to_thread(self._stacked.money)).values())
        self._screen.show(pictures.bank(self._stacked))
        self._screen.happened(
            f"started in {time.monotonic() - started_s:.1f} s; "
            f"{ACCOUNTS} accounts in each database, {pictures.money(self._money_before)} in all"
        )
        await self._screen.read(2.0)

    async def _lose_coordinator(self, tm: handfast.TransactionManager, workload: Workload) -> None:
        coordinator = self._stacked.coordinator
        self._screen.step(
            f"{workload.total:,} transfers",
            "Phase one: the coordinator asks both databases to [b]prepare[/], which is a promise to commit, through "
            "any crash, when told. Phase two: if both said yes it writes COMMIT into its log, and tells them. Some "
            "transfers are refused, for want of money or of an account: those leave no trace anywhere.",
        )
        await self._screen.read(1.0)
        async with self._screen.moving(lambda: pictures.progress(workload)):
            running = self._start(workload.run(pause_at_trouble=True))
            await _until(lambda: not coordinator.alive or running.done(), HEAL_S_MAX, "the coordinator did not die")
            workload.pause()
        branches = await self._settled_branches()
        self._screen.step(
            "The coordinator dies",
            "SIGKILL at the worst moment: it has written COMMIT for a transfer, and has told nobody. The branches "
            "below are [b magenta]in doubt[/]: prepared, so they may not roll back; told nothing, so they may not "
            "commit. They keep their locks, and anybody who needs those rows waits. [b]This is what two-phase commit "
            "costs.[/]",
        )
        scene = Scene("coordinator", branches)
        scene.clients = Text(f"{workload.in_flight} applications wait for their answer", "yellow")
        async with self._screen.moving(scene.draw):
            await self._block_writer(scene)
            died_s = time.monotonic()
            scene.process = Text("dead", "bold red")
            await running
            unknown = workload.count(Fate.UNKNOWN)
            scene.clients = Text(f"{unknown} applications gave up waiting: OUTCOME UNKNOWN, not a guess", "yellow")
            await self._screen.read(2.0)
            scene.process = Text("starting again, on the same log", "yellow")
            await asyncio.to_thread(self._stacked.start_coordinator)
            ready_s = time.monotonic()
            healed_s = await self._heal(scene, tm)
            scene.process = _healed(died_s, ready_s, healed_s)
            resolved = await workload.ask(tm)
            scene.clients = Text(f"{resolved} of {unknown} applications asked again, and know now", "green")
        self._screen.happened(
            "Recovery: what was in the log is [b]committed[/]; what was not is [b]rolled back[/] (no record means "
            "abort). Both databases were told the same."
        )
        await self._screen.read(3.0)

    async def _lose_participant(self, tm: handfast.TransactionManager, workload: Workload) -> None:
        accounts = self._stacked.service("accounts")
        self._screen.step(
            "A service dies", "The transfers go on. Now the accounts service is killed after it has voted."
        )
        goal = int(workload.total * SECOND_CRASH_AT)
        async with self._screen.moving(lambda: pictures.progress(workload)):
            running = self._start(workload.run())
            await _until(lambda: workload.done >= goal or running.done(), HEAL_S_MAX, "the transfers do not go on")
            branches = await self._kill_in_doubt(workload)
        self._screen.say(
            "SIGKILL. Its promises outlive it: they are in Postgres. The coordinator is alive, so nothing is "
            "undecided; it aborts what had not been voted for, and repeats what it decided until somebody listens."
        )
        scene = Scene("accounts", branches)
        async with self._screen.moving(scene.draw):
            await self._block_writer(scene)
            scene.process = Text("dead", "bold red")
            died_s = time.monotonic()
            await self._screen.read(3.0)
            scene.process = Text("starting again, on the same database", "yellow")
            await asyncio.to_thread(accounts.start)
            ready_s = time.monotonic()
            healed_s = await self._heal(scene, tm)
            scene.process = _healed(died_s, ready_s, healed_s)
            await running
            await workload.ask(tm)
        self._screen.happened("It found its promises in the database, asked the coordinator about each, and kept them.")
        await self._screen.read(2.0)

    async def _finish_transfers(self, tm: handfast.TransactionManager, bank: Bank, workload: Workload) -> None:
        self._screen.step("The rest", "The remaining transfers, with everything alive.")
        async with asyncio.timeout(HEAL_S_MAX):
            await bank.ready()
        async with self._screen.moving(lambda: pictures.progress(workload)):
            await workload.run()
            await workload.ask(tm)

    async def _find(self, workload: Workload) -> Findings:
        self._screen.step(
            "The audit",
            "Three witnesses: the coordinator compares its log with every database; plain SQL adds up the money and "
            "pairs the journals; each application compares what it was told.",
        )
        await asyncio.to_thread(self._stacked.wait_nothing_prepared)
        audit = await asyncio.to_thread(self._stacked.admin.audit)
        journal = await asyncio.to_thread(self._stacked.journal)
        prepared = await asyncio.to_thread(self._stacked.prepared)
        money_after = sum((await asyncio.to_thread(self._stacked.money)).values())
        self._screen.show(pictures.audit(audit, len(journal)))
        return Findings(
            transfers=workload.total,
            committed=workload.count(Fate.COMMITTED),
            aborts=workload.aborts(),
            unknown_resolved=sum(result.asked for result in workload.results),
            money_before=self._money_before,
            money_after=money_after,
            longest_block_s=max(self._blocks_s, default=0.0),
            differences=differences(workload.results, journal, prepared, audit, self._money_before, money_after),
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start something that goes on beside the story, and ends with it."""
        task = asyncio.create_task(work)
        self._started.push_async_callback(_end, task)
        return task

    # -- parts of a scene ------------------------------------------------------------------------------------------

    async def _settled_branches(self) -> list[PreparedBranch]:
        """The branches in doubt, once no more PREPARE is on its way."""

        def look() -> list[PreparedBranch]:
            return self._stacked.prepared()

        return await asyncio.to_thread(
            wait_until, look, HEAL_S_MAX, "no branch is in doubt after the coordinator's death"
        )

    async def _kill_in_doubt(self, workload: Workload) -> list[PreparedBranch]:
        """Kill the accounts service at a moment when it has branches in doubt: hold it still, look, and let go if not.

        Raises:
            NotInTime: there was no such moment.
        """
        accounts = self._stacked.service("accounts")
        for _ in range(LOOKS_MAX):
            await asyncio.to_thread(accounts.pause)
            await _until(lambda: not self._stacked.statements("accounts"), HEAL_S_MAX, "statements go on for ever")
            branches = await asyncio.to_thread(self._stacked.prepared, ["accounts"])
            if any(branch.accounts for branch in branches):
                workload.pause()
                await asyncio.to_thread(accounts.kill)
                return branches
            accounts.resume()
            await _until(partial(workload.has_done, workload.done + 1), HEAL_S_MAX, "the transfers do not go on")
        raise NotInTime(f"Looked {LOOKS_MAX} times: the accounts service never had a branch in doubt")

    async def _block_writer(self, scene: Scene) -> None:
        """Send a bystander to a row in doubt. Some branches may end yet, for they were told just before the death."""
        for branch in [branch for branch in scene.branches if branch.accounts]:
            writer = Writer(self._stacked.databases[branch.database].dsn(DATABASE), branch.accounts[0])
            self._started.push_async_callback(writer.stop)
            if await writer.start():
                scene.writer = writer
                scene.branches = await asyncio.to_thread(self._stacked.prepared)
                return
        raise NotInTime("no row is held by a branch in doubt any more")

    async def _heal(self, scene: Scene, tm: handfast.TransactionManager) -> float:
        """Wait until nothing is in doubt and everybody reaches everybody; then learn what became of each branch.

        Returns:
            When nothing was in doubt any more, by the monotonic clock.
        """
        await asyncio.to_thread(self._stacked.wait_nothing_prepared, HEAL_S_MAX)
        if scene.writer is not None:
            self._blocks_s.append(await scene.writer.finish(HEAL_S_MAX))
        healed_s = time.monotonic()
        await asyncio.to_thread(self._stacked.wait_reachable, HEAL_S_MAX)
        for gtrid in scene.gtrids:
            scene.fates[gtrid] = await fate_of(tm, gtrid, branches=len(SERVICES))
        return healed_s


def _healed(died_s: float, ready_s: float, healed_s: float) -> Text:
    down, rest = f"{ready_s - died_s:.1f} s", f"{healed_s - ready_s:.1f} s"
    return Text(f"✓ back, after {down}; nothing in doubt {rest} after that", "green")


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)  # an error of its own was raised where the story awaited it


async def _until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, timeout_s, what)
