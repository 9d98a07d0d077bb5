"""Carries a run's plan of faults out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.runtime.requests import Requests
from handfast.catalog import HandfastFault
from handfast.xid import Xid
from tests.simulation import faults as f
from tests.simulation.processes import COORDINATOR, Process

if TYPE_CHECKING:
    from tests.simulation.world import World


def arm(world: World) -> None:
    """Put every planned fault where it will strike."""
    for fault in world.scenario.faults:
        match fault:
            case f.MessageFault():
                world.network.faults[fault.kind, fault.number] = fault
            case f.CrashOnMessage():
                world.network.crashes[fault.kind, fault.number, fault.when] = fault
            case f.LogFault():
                world.log.faults[fault.number] = fault
            case f.PauseOnMessage():
                world.network.pauses[fault.kind, fault.number] = fault
            case f.CrashOnForce():
                world.log.crashes[fault.number] = fault
            case f.StatementFault():
                world.databases[fault.database].faults[fault.kind, fault.number] = fault
            case f.Crash():
                world.processes[fault.process].loop.crash_at_step = fault.at_step
            case f.Operator():
                world.operators.append(fault)
            case f.ByHand():
                world.databases[fault.database].meddlers[fault.number] = fault
            case _:
                world.later(fault.at_s, _strike, world, fault)


def disarm(world: World) -> None:
    """Let nothing strike any more."""
    world.network.faults.clear()
    world.network.crashes.clear()
    world.network.pauses.clear()
    world.log.faults.clear()
    world.log.crashes.clear()
    for database in world.databases.values():
        database.faults.clear()
    for process in world.processes.values():
        process.loop.crash_at_step = -1


def crash_at_step(world: World, process: Process) -> None:
    """A process dies at its planned step."""
    for fault in world.scenario.faults:
        if isinstance(fault, f.Crash) and fault.process == process.name:
            world.count_fault(fault, f"{process.name} dies instead of step {fault.at_step}")
            world.crash(process.name, fault.down_s)
            return


def on_begun(world: World, number: int, gtrid: str) -> None:
    """A client's transaction has a name: whoever waits for it takes note."""
    for fault in world.operators:
        if fault.transaction == number:
            world.later(fault.after_s, _resolve, world, fault, gtrid)


def on_prepared(world: World, database: str, number: int, gid: str) -> None:
    """The n-th branch of a database is prepared: whoever waits for it takes note."""
    fault = world.databases[database].meddlers.get(number)
    if fault is not None:
        world.later(fault.after_s, _end_by_hand, world, fault, gid)


def _strike(world: World, fault: f.Fault) -> None:
    if world.mending:
        return
    match fault:
        case f.Pause():
            world.pause(world.processes[fault.process].loop, fault, fault.for_s)
        case f.Partition():
            ends = frozenset((fault.first, fault.second))
            world.count_fault(fault, f"{fault.first} and {fault.second} can't reach one another for {fault.for_s} s")
            world.network.cut(ends)
            world.later(fault.for_s, world.network.heal, ends)
        case f.DatabaseCrash():
            world.count_fault(fault, f"the server of {fault.database} dies for {fault.for_s} s")
            world.databases[fault.database].crash()
            world.later(fault.for_s, world.databases[fault.database].start)
        case f.ClockJump():
            world.count_fault(fault, f"the clock of {fault.process} jumps by {fault.by_s} s")
            world.processes[fault.process].wall_offset_s += fault.by_s
        case f.GracefulRestart():
            _restart(world, fault)


def _resolve(world: World, fault: f.Operator, gtrid: str) -> None:
    """An operator's command, carried out by the coordinator's own code."""
    coordinator = world.coordinator
    if world.mending or not coordinator.loop.alive or not hasattr(coordinator, "resolution"):
        return
    world.count_fault(fault, f"an operator: {fault.action} {gtrid}{' heuristic' if fault.heuristic else ''}")
    world.observe.resolved[gtrid] = None
    if fault.heuristic and fault.action in ("commit", "rollback"):
        world.observe.by_hand[gtrid] = None

    async def resolve() -> None:
        try:
            _, done = await coordinator.resolution.resolve(
                gtrid, fault.action, fault.heuristic, "operator", "simulated"
            )
        except HandfastFault as refused:
            world.trace("operator", "%s of %s is refused: %s", fault.action, gtrid, refused.code)
        else:
            world.trace("operator", "%s of %s: %s", fault.action, gtrid, done)

    if fault.action == "forget":
        world.observe.forgotten(gtrid)
    coordinator.loop.create_task(resolve())


def _end_by_hand(world: World, fault: f.ByHand, gid: str) -> None:
    database, xid = world.databases[fault.database], Xid.from_gid(gid)
    if world.mending or not database.up or gid not in database.prepared or xid is None:
        return
    world.observe.by_hand[xid.gtrid] = None
    world.count_fault(fault, f"by hand: {'COMMIT' if fault.commit else 'ROLLBACK'} PREPARED {gid}")
    database.end_prepared(gid, commit=fault.commit, done=lambda result: None)


def _restart(world: World, fault: f.GracefulRestart) -> None:
    coordinator = world.coordinator
    if not coordinator.loop.alive or not hasattr(coordinator, "requests"):
        return
    world.count_fault(fault, "the coordinator is told to stop")
    requests: Requests = coordinator.requests

    async def stop() -> None:
        await coordinator.stop()
        world.later(0.0, world.crash, COORDINATOR, fault.down_s)

    if not requests.stopping:
        coordinator.loop.create_task(stop())
