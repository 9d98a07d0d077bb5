"""Transactions that have ended, folded small for as long as somebody may ask for them.

One that has ended is asked for seldom, and ten thousand of them are kept. As each was while it ran, it is some twenty
objects, and the garbage collector went through all of them again and again: for a tenth of a second, in which the
coordinator did nothing else, every ten thousand transactions or so. Folded, one is 400 bytes, at which the collector
never looks.

A machine is moved by events and nothing else, so what has happened to a transaction is all there is to know about it
(event sourcing): to unfold it is to have a machine take the same steps once more, as rows of cohorts are shown, too.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator
from dataclasses import fields
from enum import Enum
from operator import attrgetter
from struct import Struct
from typing import Any, get_type_hints

from coordinator.protocol import events as e
from coordinator.protocol.states import TransactionState
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime.running import HISTORY_MAX, Running

Atom = str | int | float
"""A field of an event, or the value of one that is a member of an Enum."""

_STATES = tuple(TransactionState)
_NUMBER_OF_STATE = {state: number for number, state in enumerate(_STATES)}
_HEAD = Struct("<Bq")
"""The number of its state, and when it began, in milliseconds since 1970: what a list of all of them needs to know."""


def folded(running: Running) -> bytes | None:
    """Fold one that has ended; None when it must be kept as it is.

    That is so where something may still come for it (an answer that nobody needs any more shows in its history), where
    the middle of its history was dropped, and where a text in it is of a class of its own.
    """
    machine, history = running.transaction, running.history
    if running.in_flight or len(history) >= HISTORY_MAX or running.broken:
        return None
    record = [(branch.bqual, branch.proof) for branch in machine.branches.values()] if running.recovered else None
    atoms: list[Atom] = []
    for unix_ms, event in history:
        number, fields_of = _SPELLING[type(event)]
        atoms += (unix_ms, number, *fields_of(event))
    results = running.results
    whole = (
        running.client,
        (running.deadline_unix_ms, running.decided_unix_ms, running.ended_unix_ms, machine.deadline_s),
        (running.one_shot, running.apply_wait_over, running.one_phase_maybe_done),
        record,
        running.result_places,
        [(bqual, list(results[bqual])) for bqual in results],
        atoms,
    )
    try:
        # marshal, for nobody else reads it: text, numbers and lists as they are, in a microsecond.
        return _HEAD.pack(_NUMBER_OF_STATE[machine.state], running.begun_unix_ms) + marshal.dumps(whole)
    except ValueError:  # marshal takes no class but the plain ones
        return None


def unfolded(gtrid: str, whole: bytes) -> Running:
    """Show one as it was when it was folded.

    Args:
        gtrid: its name.
        whole: the rest.
    """
    _, begun_unix_ms = _HEAD.unpack_from(whole)
    client, times, flags, record, places, results, atoms = marshal.loads(whole[_HEAD.size :])
    deadline_unix_ms, decided_unix_ms, ended_unix_ms, deadline_s = times
    history = list(_events(atoms))
    if record is None:
        machine, steps = GlobalTransaction(gtrid, deadline_s), history
    else:
        (machine, _), steps = GlobalTransaction.recovered(gtrid, record), history[1:]  # the first is the recovery
    for _, event in steps:
        machine.step(event)
    recovered = record is not None
    running = Running(machine, begun_unix_ms, deadline_unix_ms, client, recovered, decided_unix_ms, ended_unix_ms)
    running.one_shot, running.apply_wait_over, running.one_phase_maybe_done = flags
    running.result_places = places
    running.results = dict(results)
    running.history = history
    return running


def standing_of(whole: bytes) -> tuple[TransactionState, int]:
    """Where one stands, and when it began, in milliseconds since 1970; without unfolding it."""
    number, begun_unix_ms = _HEAD.unpack_from(whole)
    return _STATES[number], begun_unix_ms


# -- events as atoms ---------------------------------------------------------------------------------------------------


def _is_enum(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _spelling_of(kind: type) -> Callable[[Any], tuple[Atom, ...]]:
    """What gives an event's fields as atoms."""
    hints = get_type_hints(kind)
    paths = [f"{field.name}._value_" if _is_enum(hints[field.name]) else field.name for field in fields(kind)]
    if not paths:
        return lambda event: ()
    get: Callable[[Any], Any] = attrgetter(*paths)
    return get if len(paths) > 1 else lambda event: (get(event),)


def _reading_of(kind: type) -> list[Callable[[Any], Any]]:
    """What makes each of its fields of an atom again."""
    hints = get_type_hints(kind)
    return [hints[field.name] if _is_enum(hints[field.name]) else _as_it_is for field in fields(kind)]


def _as_it_is(atom: Atom) -> Atom:
    return atom


_SPELLING = {kind: (number, _spelling_of(kind)) for number, kind in enumerate(e.EVENT_TYPES)}
_READING = [(kind, _reading_of(kind)) for kind in e.EVENT_TYPES]


def _events(atoms: list[Atom]) -> Iterator[tuple[int, e.Event]]:
    left: Iterator[Any] = iter(atoms)
    for unix_ms in left:
        kind, reading = _READING[next(left)]
        yield unix_ms, kind(*[made_of(next(left)) for made_of in reading])
